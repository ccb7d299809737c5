"""What attackers send, to every route that the document names, so that a new one is tried too."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from commands import passwords
from commands.passwords import Passwords
from tests.api import house
from tests.api.house import House, Served
from tests.world import Database

JSON = {"Content-Type": "application/json"}
SQL = (
    "'; DROP TABLE views.products; --",
    "' OR '1'='1",
    "\\'; SELECT pg_sleep(5); --",
    "%' UNION SELECT 1 --",
    "$$;$$",
    "{}",
)
BROKEN = (
    b'{"x": ' * 200_000,  # nested too deeply
    b'{"metadata": ' + b'{"a":' * 100_000,
    b"[" * 500_000,
    b'{"name": "\\ud800"}',  # half a pair
    b'{"name": "a\\u0000b"}',
    b'{"email": "a\\u0000@b.example", "password": "long enough", "name": "a\\u0000"}',
    b'{"price": 99999999999999999999999999, "quantity": 99999999999999999999, "n": 1e999}',
    b'{"quantity": -9223372036854775809}',
    b"\x00" * 100,
    b"\xff\xfe{\x00}\x00",
    b'{"name": NaN}',
    b'{"name": "' + b"x" * 900_000 + b'"}',
)
LEVELS = 16
"""More than any folder of ours lies deep."""
ENDLESS = {"listen"}
ENDS_THE_RUN = {"logOut", "endSessions", "eraseUser"}

Operation = dict[str, Any]


@pytest.fixture
async def document(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = (await served.client.get("/schema/openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if operation["operationId"] not in ENDLESS | ENDS_THE_RUN:
                yield method.upper(), path, operation


def resolved(document: dict[str, Any], schema: Any) -> Any:
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    return schema


def body_of(document: dict[str, Any], operation: Operation) -> dict[str, Any] | None:
    """The properties of its bare body."""
    if "requestBody" not in operation:
        return None
    schema = resolved(document, operation["requestBody"]["content"]["application/json"]["schema"])
    if "oneOf" in schema:
        schema = resolved(document, schema["oneOf"][0])
    properties: dict[str, Any] = schema.get("properties", {})
    return properties


def filled(document: dict[str, Any], schema: Any, value: str) -> Any:
    """Something of the schema, with `value` in every string."""
    schema = resolved(document, schema)
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return filled(document, schema[several][0], value)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        return [filled(document, schema["items"], value)]
    if kind == "object":
        return {name: filled(document, each, value) for name, each in schema.get("properties", {"x": {}}).items()}
    return {"integer": 1, "number": 1, "boolean": True, "null": None}.get(kind, value)


def address(path: str, value: str = "00000000-0000-7000-8000-00000000ffff") -> str:
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + value + rest.partition("}")[2]
    return path


async def test_sql_in_every_string_is_a_string(
    served: Served, a: House, b: House, document: dict[str, Any], database: Database
) -> None:
    await a.lists()
    heads = (await b.ledger.head(b.id)).hash
    tried = 0
    for method, path, operation in operations(document):
        for value in SQL:
            query = {each["name"]: value for each in operation.get("parameters", ()) if each["in"] == "query"}
            names = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"]
            headers = {**a.admin.headers, **dict.fromkeys(names, value)}
            request: dict[str, Any] = {"params": query, "headers": headers}
            properties = body_of(document, operation)
            if properties is not None:
                request["json"] = {name: filled(document, each, value) for name, each in properties.items()}
            for each in (request, {**request, "params": {}, "headers": a.admin.headers}):
                answer = await served.client.request(method, address(path), **each)
                assert answer.status_code < 500, (method, path, value, answer.text)
                assert "syntax" not in answer.text, answer.text
                tried += 1
        answer = await served.client.request(method, address(path, SQL[0].replace("/", "")), headers=a.admin.headers)
        assert answer.status_code < 500, (method, path, answer.text)
    assert tried > 200
    assert (await b.ledger.head(b.id)).hash == heads
    with psycopg.connect(database.owner_url) as connection:
        assert connection.execute("SELECT to_regclass('views.products') IS NOT NULL").fetchone() == (True,)


async def test_what_is_no_json_or_too_much_of_it_is_refused_by_every_route(
    served: Served, a: House, document: dict[str, Any]
) -> None:
    for method, path, operation in operations(document):
        if "requestBody" not in operation:
            continue
        for content in BROKEN:
            headers = {**a.admin.headers, **JSON}
            answer = await served.client.request(method, address(path), content=content, headers=headers)
            assert 400 <= answer.status_code < 500, (method, path, content[:40], answer.status_code, answer.text[:200])
            assert len(answer.text) < 3_000  # nobody's megabyte comes back


async def test_what_is_not_the_callers_to_say_is_refused_in_every_body(
    served: Served, a: House, b: House, document: dict[str, Any]
) -> None:
    """Mass assignment: whoever registers with a role would be an admin."""
    more = {"role": "admin", "tenant_id": str(b.id), "id": str(uuid4()), "status": "retired", "rights": ["ledger:read"]}
    tried = 0
    for method, path, operation in operations(document):
        properties = body_of(document, operation)
        if properties is None:
            continue
        good = {name: filled(document, each, "x" * 12) for name, each in properties.items()}
        for name, value in more.items():
            if name not in properties:
                answer = await served.client.request(
                    method, address(path), json={**good, name: value}, headers=a.admin.headers
                )
                if answer.status_code == 403:
                    break  # another role's, which is tried by schemathesis
                assert answer.status_code == 422, (method, path, name, answer.text)
                tried += name in answer.json()["errors"]
    assert tried > 20


async def test_another_tenants_ids_in_a_body_or_a_query_lead_nowhere(served: Served, a: House, b: House) -> None:
    theirs = await b.lists()
    sale = await b.sells(theirs, buyer=b.user)
    await a.lists("OURS")
    await served.views_reach(b)
    line = {"quantity": 1, "unit_price": "1.00"}
    for body in (
        {"lines": [{**line, "product_id": str(theirs.id)}]},
        {"product_id": str(theirs.id), "amount": "1.00"},
    ):
        refused = await served.post(a.admin, "/transactions", body)
        assert (refused.status_code, b.slug in refused.text) in ((404, False), (422, False)), refused.text
    for query in ({"buyer_id": str(b.user.id)}, {"cursor": str(sale.id)}, {"actor": str(b.user.id)}):
        for path in ("/transactions", "/refunds", "/products", "/audit"):
            answer = await served.get(a.admin, path, params=query)
            assert str(b.user.id) not in answer.text.replace(str(query), "") or answer.status_code == 422, path
            assert str(sale.id) not in answer.text or answer.status_code == 422, path


async def test_of_a_name_that_is_said_twice_the_last_counts_everywhere(served: Served, a: House) -> None:
    """A gateway that reads the first one would let pass what it was put there to stop: it must refuse such bodies itself."""
    body = b'{"sku": "FIRST", "sku": "LAST", "name": "Mug", "price": "9.00"}'
    made = await served.ask(a.admin, "POST", "/products", content=body, headers=JSON)
    assert (made.status_code, made.json()["data"]["sku"]) == (201, "LAST")


async def test_no_file_but_those_of_the_page_is_served(served: Served) -> None:
    """Asked on a socket: clients take the dots out of an address before they send it."""
    up = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..\\", "....//", "..;/", "%252e%252e%252f", "..%c0%af")
    paths = [
        f"{folder}{each * LEVELS}etc/passwd" for folder in ("/schema/", "/static/", "/api/v1/", "/") for each in up
    ]
    paths += [
        "/schema//etc/passwd",
        "/schema/%2fetc%2fpasswd",
        "//etc/passwd",
        "/schema/swagger-ui.css/" + "../" * LEVELS + "etc/passwd",
    ]
    paths += [
        "/schema/%00",
        "/schema/swagger-ui.css%00.png",
        "/static/../pyproject.toml",
        "/.env",
        "/.git/config",
        "/proc/self/environ",
    ]
    async with house.listening(served.app, served.parts) as url:
        for path in paths:
            answer = await on_a_socket(url, path)
            status = int(answer.split(b" ", 2)[1])
            assert (status, b"root:" in answer) in ((404, False), (400, False)), (path, answer[:300])


async def on_a_socket(url: str, path: str) -> bytes:
    """The whole answer to a GET of exactly this path."""
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    try:
        async with asyncio.timeout(house.PATIENCE_S):
            return await reader.read()
    finally:
        writer.close()


async def test_nobody_learns_from_a_log_in_whose_name_is_known(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the answer or by its time: the same words, and as many passwords hashed."""
    hashed: list[str] = []
    verify = Passwords._verify

    def counting(pool: Passwords, stored: str, password: str) -> bool:
        hashed.append(password)
        return verify(pool, stored, password)

    monkeypatch.setattr(Passwords, "_verify", counting)
    seen = []
    for email in (a.user.email, "nobody@alpha.test"):
        body = {"email": email, "password": "wrong horse battery", "tenant": a.slug}
        await served.post(None, "/auth/login", body)  # the first one of all hashes once more
        hashed.clear()
        answer = await served.post(None, "/auth/login", body)
        headers = {
            name: value for name, value in answer.headers.items() if name not in ("x-request-id", "content-length")
        }
        seen.append((answer.status_code, answer.text.replace(email, "EMAIL"), headers, len(hashed)))
    assert seen[0] == seen[1]
    assert seen[0][3] == 1


async def test_a_flood_of_log_ins_is_answered_and_others_go_on(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool of hashes is bounded: whoever comes too late is told so at once, and nobody else waits for the hashes."""
    free = threading.Event()
    hashed: list[str] = []

    def waiting(pool: Passwords, stored: str, password: str) -> bool:
        hashed.append(password)
        free.wait(house.PATIENCE_S)
        return False

    monkeypatch.setattr(Passwords, "_verify", waiting)
    body = {"email": a.user.email, "password": "wrong horse battery", "tenant": a.slug}
    flood = [asyncio.create_task(served.post(None, "/auth/login", body)) for _ in range(200)]
    try:
        async with asyncio.timeout(house.PATIENCE_S):
            while sum(each.done() for each in flood) < 200 - passwords.WAITING_MAX:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
            meanwhile = [await served.get(a.user, "/products") for _ in range(5)]
        refused = [each.result() for each in flood if each.done()]
    finally:
        free.set()
    answers = await asyncio.gather(*flood)
    assert {each.status_code for each in meanwhile} == {200}
    assert len(refused) == 200 - passwords.WAITING_MAX
    assert {each.status_code for each in refused} == {503}
    assert all(each.headers["retry-after"] for each in refused)
    assert len(hashed) == passwords.WAITING_MAX
    assert {each.status_code for each in answers} <= {401, 429, 503}


async def test_a_token_in_an_address_is_no_token(served: Served, a: House) -> None:
    """Addresses stand in logs and histories."""
    for name in ("token", "access_token", "authorization"):
        answer = await served.client.get("/api/v1/products", params={name: a.user.token})
        assert answer.status_code == 401
    assert json.loads(answer.text)["type"] == "urn:bitnexus:problem:unauthenticated"
    assert house.PASSWORD not in answer.text
