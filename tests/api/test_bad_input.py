"""Whatever is sent, the answer is a problem with its own status, never a 500, and nothing is half-written."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest

from commands import products as commands
from ledger import ids
from tests.api.house import House, Served, listening

JSON = {"Content-Type": "application/json"}


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The shape that RFC 9457 and REQUIREMENTS promise."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "errors"}
    assert (problem["status"], problem["type"][:21]) == (status, "urn:bitnexus:problem:")
    assert problem["errors"]
    for field, messages in problem["errors"].items():
        if field == "detail":
            assert isinstance(messages, str)
        else:
            assert all(isinstance(message, str) for message in messages)
    assert "Traceback" not in answer.text
    assert "psycopg" not in answer.text
    return problem


BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "detail"),
    (b"{", 400, "detail"),
    (b'{"sku": "MUG",}', 400, "detail"),
    (b"\xff\xfe", 400, "detail"),
    (b'{"sku": "\xff"}', 400, "detail"),
    (rb'{"sku": "\ud800", "name": "Mug", "price": 1}', 400, "detail"),
    (b'{"metadata": ' + b'{"a":' * 100_000, 400, "detail"),
    (b"[]", 422, "detail"),
    (b"null", 422, "detail"),
    (b'"MUG"', 422, "detail"),
    (b"{}", 422, "sku"),
    (b'{"product": {}}', 422, "sku"),
    (b'{"product": []}', 422, "detail"),
    (b'{"sku": "MUG", "name": "Mug"}', 422, "price"),
    (b'{"sku": "MUG", "name": "Mug", "price": 1, "colour": "red"}', 422, "colour"),
    (b'{"product": {"sku": "MUG", "name": "Mug", "price": 1, "id": "x"}}', 422, "id"),
    (b'{"product": {"sku": "MUG", "name": "Mug", "price": 1}, "more": 1}', 422, "more"),
    (b'{"sku": 1, "name": "Mug", "price": 1}', 422, "sku"),
    (b'{"product": {"sku": "MUG", "name": null, "price": 1}}', 422, "name"),
    (b'{"sku": "MUG", "name": "Mug", "price": true}', 422, "price"),
    (b'{"sku": "MUG", "name": "Mug", "price": "nine"}', 422, "price"),
    (b'{"sku": "MUG", "name": "Mug", "price": -0.01}', 422, "price"),
    (b'{"sku": "MUG", "name": "Mug", "price": 1e999999}', 422, "price"),
    (b'{"sku": "MUG", "name": "Mug", "price": ' + b"9" * 5000 + b"}", 422, "price"),
    (b'{"sku": "M\\u0000G", "name": "Mug", "price": 1}', 422, "sku"),
    (b'{"sku": "MUG", "name": " ", "price": 1}', 422, "name"),
    (b'{"sku": "MUG", "name": "Mug", "price": 1, "currency": "XXX"}', 422, "currency"),
    (b'{"sku": "MUG", "name": "Mug", "price": 1, "metadata": {"n": ' + b"9" * 30 + b"}}", 422, "metadata"),
    (b'{"sku": "MUG", "name": "Mug", "price": 1, "metadata": {"n": 1e400}}', 422, "metadata"),
]


async def test_a_body_that_is_wrong_says_what_is(served: Served, a: House) -> None:
    head = (await a.ledger.head(a.id)).position
    for content, status, field in BODIES:
        refused = await served.ask(a.admin, "POST", "/products", content=content, headers=JSON)
        problem = check_problem(refused, status)
        assert list(problem["errors"]) == [field], (content[:80], problem)
    assert (await a.ledger.head(a.id)).position == head


async def test_a_body_of_another_type_is_refused(served: Served, a: House) -> None:
    types = (None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "json")
    for content_type in types:
        headers = {} if content_type is None else {"Content-Type": content_type}
        refused = await served.ask(a.admin, "POST", "/products", content=b'{"sku": "A"}', headers=headers)
        check_problem(refused, 415)
    for understood in ("application/json; charset=UTF-8", "application/vnd.api+json"):
        headers = {"Content-Type": understood}
        check_problem(await served.ask(a.admin, "POST", "/products", content=b"{}", headers=headers), 422)


async def test_a_body_over_a_megabyte_is_refused_however_it_comes(served: Served, a: House) -> None:
    """Told by Content-Length, or found while it streams in chunks."""
    big = b'{"name": "' + b"x" * (1024 * 1024) + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 65536):
            yield big[start : start + 65536]

    async with listening(served.app, served.parts) as address, httpx.AsyncClient(base_url=address) as client:
        for content in (big, chunks()):
            headers = {**a.admin.headers, **JSON, "Idempotency-Key": str(ids.new_id())}
            refused = await client.post("/api/v1/products", content=content, headers=headers)
            check_problem(refused, 413)


async def test_an_event_that_is_too_large_is_refused(served: Served, a: House) -> None:
    metadata = {str(n): "\u0001" for n in range(10)}
    refused = await served.post(
        a.admin, "/products", {"sku": "A", "name": "A", "price": 1, "metadata": metadata | {"x": "y" * 5000}}
    )
    check_problem(refused, 422)


ADDRESSES = [
    ("GET", "/api/v1/nothing", 404),
    ("GET", "/", 404),
    ("GET", "/schema/nothing", 404),
    ("GET", "/schema/..%2f..%2fetc%2fpasswd", 404),
    ("GET", "/api/v1/products/a\0b", 404),
    ("GET", "/api/v1/products/%FF", 404),
    ("DELETE", "/api/v1/products", 405),
    ("PUT", "/api/v1/transactions", 405),
    ("GET", "/api/v1/auth/login", 405),
]


async def test_addresses_and_methods_that_there_are_not(served: Served, a: House) -> None:
    for method, path, status in ADDRESSES:
        refused = await served.client.request(method, path.replace("\0", "%00"), headers=a.admin.headers)
        check_problem(refused, status)
        if status == 405:
            assert "POST" in refused.headers["Allow"] or "GET" in refused.headers["Allow"]


async def test_an_idempotency_key_must_be_printable_and_short(served: Served, a: House) -> None:
    for key in ("", "é", "a\tb", "x" * 256):
        headers = [(b"Authorization", f"Bearer {a.admin.token}".encode()), (b"Idempotency-Key", key.encode())]
        body = {"sku": "A", "name": "A", "price": 1}
        problem = check_problem(await served.client.post("/api/v1/products", json=body, headers=headers), 422)
        assert list(problem["errors"]) == ["Idempotency-Key"]


async def test_a_bug_is_logged_and_not_told(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(commands, "list_product", broken)
    with caplog.at_level(logging.ERROR, logger="api.errors"):
        answer = await served.post(a.admin, "/products", {"sku": "A", "name": "A", "price": 1})
    check_problem(answer, 500)
    assert "secret" not in answer.text
    assert "the secret of the house" in caplog.text


async def test_a_database_that_is_away_is_said_to_be_away(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise psycopg.OperationalError("connection to server at 10.0.0.5 failed")

    monkeypatch.setattr(commands, "list_product", away)
    answer = await served.post(a.admin, "/products", {"sku": "A", "name": "A", "price": 1})
    check_problem(answer, 503)
    assert answer.headers["Retry-After"] == "1"
    assert "10.0.0.5" not in answer.text


async def test_the_request_id_comes_back_and_stands_in_the_stream(served: Served, a: House) -> None:
    body = {"sku": "A", "name": "A", "price": 1}
    given = await served.post(a.admin, "/products", body, headers={"X-Request-Id": "req-17"})
    assert given.headers["X-Request-Id"] == "req-17"
    entries = (await served.get(a.admin, "/ledger/entries", params={"from": given.headers["X-Position"]})).json()
    assert '"request_id":"req-17"' in entries["data"][0]["metadata"]
    for bad in ("x" * 129, "a b", "<script>"):
        made = await served.client.get("/nowhere", headers={"X-Request-Id": bad})
        assert len(made.headers["X-Request-Id"]) == 32
