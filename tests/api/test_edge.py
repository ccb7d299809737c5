"""What stands around every answer: ids, headers, limits of length, and which pages may read it."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from api import edge, origins, rates
from api.app import create_app
from api.parts import Parts
from commands import tenant_settings
from domain import tenants
from domain.tenants import PLATFORM_ID
from ledger import ids
from ledger.store import Claim
from tests.api.house import House, Served
from tests.world import caller

PAGE = "https://shop.alpha.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

Serving = Callable[..., httpx.AsyncClient]


@pytest_asyncio.fixture
async def serving(parts: Parts) -> AsyncIterator[Serving]:
    """Makes clients of the application with other parts; `base` is its address."""
    opened: list[Any] = []

    def serve(base: str = "http://api.test", **changed: Any) -> httpx.AsyncClient:
        app = create_app(dataclasses.replace(parts, **changed))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base)  # type: ignore[arg-type]  # Litestar's types
        opened.extend((client, app))
        return client

    yield serve
    for each in opened:
        await (each.aclose() if isinstance(each, httpx.AsyncClient) else each.state.feed.close())


async def takes_host(house: House, host: str) -> None:
    """As the registration of a tenant does it."""
    stands_for_it = tenants.register(id=ids.new_id(), slug=f"{house.slug}-hosts", name="Hosts")
    await house.ledger.append(caller(PLATFORM_ID), stands_for_it, claims=[Claim(tenant_settings.HOST, host, house.id)])


async def test_every_answer_has_an_id_and_forbids_guessing_at_its_type(served: Served, a: House) -> None:
    for path in ("/health", "/nothing", "/api/v1/products", "/schema"):
        answer = await served.client.get(path, headers={"X-Request-Id": "mine-1"})
        assert (answer.headers["x-request-id"], answer.headers["x-content-type-options"]) == ("mine-1", "nosniff")
    made = await served.client.get("/health", headers={"X-Request-Id": "not one\twith blanks"})
    assert len(made.headers["x-request-id"]) == 32
    assert made.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_only_an_answer_over_https_says_that_https_is_a_must(serving: Serving) -> None:
    """Said over http it would be ignored at best; on a machine of a developer it would lock localhost."""
    assert "strict-transport-security" not in (await serving().get("/health")).headers
    secure = await serving("https://api.test").get("/health")
    assert secure.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


async def test_pages_may_not_be_framed_and_load_nothing_from_elsewhere(served: Served) -> None:
    policy = (await served.client.get("/schema")).headers["content-security-policy"]
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))


async def test_tokens_are_in_no_cache(served: Served, a: House) -> None:
    body = {"email": a.user.email, "password": "correct horse battery", "tenant": a.slug}
    assert (await served.client.post("/api/v1/auth/login", json=body)).headers["cache-control"] == "no-store"


async def test_what_is_too_long_is_refused_before_anything_is_done(served: Served, a: House) -> None:
    long_query = await served.get(a.user, "/products?q=" + "x" * edge.QUERY_BYTES_MAX)
    long_path = await served.get(a.user, "/products/" + "x" * edge.PATH_BYTES_MAX)
    many = {f"x-{number}": "1" for number in range(edge.HEADERS_MAX)}
    found = [
        (each.status_code, each.json()["type"])
        for each in (long_query, long_path, await served.get(a.user, "/products", headers=many))
    ]
    assert found == [
        (414, "urn:bitnexus:problem:uri-too-long"),
        (414, "urn:bitnexus:problem:uri-too-long"),
        (431, "urn:bitnexus:problem:headers-too-large"),
    ]
    assert long_query.headers["content-type"] == "application/problem+json"


async def test_a_page_of_a_tenants_own_host_may_read_its_answers(served: Served, a: House) -> None:
    await takes_host(a, "shop.alpha.example")
    answer = await served.get(a.user, "/products", headers={"Origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "Origin" in answer.headers["vary"].split(", ")  # or a cache gives it to another page
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert exposed == ["X-Position", "ETag", "Location", "Retry-After", "RateLimit"]
    assert "access-control-allow-credentials" not in answer.headers  # there are no cookies, and there shall be none


async def test_what_caches_keep_for_everybody_varies_by_origin_also_where_none_was_said(
    served: Served, a: House
) -> None:
    """A page of an allowed origin would be given the cached answer to somebody without one, and its browser refuse it."""
    for path in ("/.well-known/jwks.json", f"/api/v1/tenant/branding?slug={a.slug}"):
        answer = await served.client.get(path)
        assert answer.headers["Cache-Control"].startswith("public")
        assert "Origin" in answer.headers["vary"].split(", "), path


async def test_no_other_page_may(served: Served, a: House) -> None:
    """A page that somebody was lured to could otherwise use the token that it was told."""
    await takes_host(a, "shop.alpha.example")
    for page in (
        "https://shop.alpha.example.evil.example",
        "https://evil.example",
        "http://shop.alpha.example",
        "https://shop.alpha.example:8443",
        "https://alpha",
        "null",
        "https://" + "x" * 300,
        "https://shop.alpha.example/path",
    ):
        answer = await served.get(a.user, "/products", headers={"Origin": page})
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False), page
        asked = await served.client.options("/api/v1/products", headers={"Origin": page, **PREFLIGHT})
        assert (asked.status_code, "access-control-allow-origin" in asked.headers) == (204, False), page


async def test_a_page_of_one_tenant_may_not_read_with_anothers_token(served: Served, a: House, b: House) -> None:
    await takes_host(a, "shop.alpha.example")
    answer = await served.get(b.user, "/products", headers={"Origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers
    refused = await served.get(None, "/products", headers={"Origin": PAGE})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)


async def test_a_preflight_is_answered_alike_whatever_it_asks(served: Served, a: House) -> None:
    await takes_host(a, "shop.alpha.example")
    headers = {"Origin": PAGE, **PREFLIGHT, "Access-Control-Request-Headers": "x-" + "y" * 5_000}
    answer = await served.client.options("/api/v1/transactions", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = {name: value for name, value in answer.headers.items() if name.startswith("access-control")}
    assert allowed == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Position, "
        "Last-Event-ID",
        "access-control-max-age": "7200",
    }


async def test_the_installations_own_origins_may_use_any_tenants_tokens(serving: Serving, a: House, b: House) -> None:
    client = serving(cors_origins=frozenset({"http://localhost:3000"}))
    for person in (a.user, b.user):
        headers = {**person.headers, "Origin": "http://localhost:3000"}
        answer = await client.get("/api/v1/products", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_pages_of_any_origin_may_poll_where_sockets_do_not_come_through(serving: Serving, a: House) -> None:
    """Long polling says by itself that every page may read it, and looks then whose page it is: said twice, or refused before, no
    browser would take it."""
    client = serving(cors_origins=frozenset({"http://localhost:3000"}), socket_origins=("shop.example",))
    for page, status in (("https://shop.example", 410), ("http://localhost:3000", 403), ("https://evil.example", 403)):
        preflight = {"Origin": page, **PREFLIGHT, "Access-Control-Request-Headers": "x-phoenix-authtoken"}
        asked = await client.options("/socket/longpoll", headers=preflight)
        assert (asked.status_code, asked.headers.get_list("access-control-allow-origin")) == (200, ["*"])
        assert asked.headers["access-control-allow-headers"] == "x-phoenix-authtoken"
        answer = await client.post("/socket/longpoll?vsn=2.0.0", headers={"Origin": page}, content="[]")
        assert (answer.json()["status"], answer.headers.get_list("access-control-allow-origin")) == (status, ["*"])


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer made up"}])
async def test_made_up_origins_of_who_sends_too_much_are_not_looked_up(
    served: Served, serving: Serving, a: House, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """Each would cost a query, and drive a remembered one out."""
    await takes_host(a, "shop.alpha.example")
    limits = rates.Rates(rates.Policies(address=rates.Policy("address", 3, 60.0)), b"secret", PLATFORM_ID)
    client, looked_up, find = serving(rates=limits), list[str](), type(served.parts.ledger).find

    async def counted(ledger: Any, tenant_id: UUID, kind: str, keys: list[str]) -> dict[str, UUID]:
        looked_up.extend(keys)
        return await find(ledger, tenant_id, kind, keys)

    monkeypatch.setattr(type(served.parts.ledger), "find", counted)
    path = "/api/v1/products" if headers else "/nothing"
    assert (await client.get(path, headers={**headers, "Origin": PAGE})).headers["access-control-allow-origin"] == PAGE
    pages = [f"https://page{number}.example" for number in range(6)]
    answers = [(await client.get(path, headers={**headers, "Origin": page})).status_code for page in pages]
    assert answers[2:] == [429] * 4
    assert looked_up == ["shop.alpha.example", "page0.example", "page1.example"]
    refused = await client.get(path, headers={**headers, "Origin": PAGE})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (429, PAGE)  # it is remembered


async def test_made_up_origins_do_not_fill_the_memory(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "REMEMBERED_MAX", 5)
    known = origins.Origins(served.parts.ledger, frozenset())
    for number in range(20):
        assert not (await known.of(b"https://page%d.example" % number)).allowed
    assert len(known._remembered) == 5


async def test_where_the_database_is_away_no_page_is_allowed_and_that_is_not_remembered(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await takes_host(a, "shop.alpha.example")
    known = origins.Origins(served.parts.ledger, frozenset())
    find = type(served.parts.ledger).find

    async def away(*_: Any) -> dict[str, UUID]:
        import psycopg

        raise psycopg.OperationalError("gone")

    monkeypatch.setattr(type(served.parts.ledger), "find", away)
    assert not (await known.of(PAGE.encode())).allowed
    monkeypatch.setattr(type(served.parts.ledger), "find", find)
    assert (await known.of(PAGE.encode())).allowed
