"""How many requests a caller may send, and what it is told."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from litestar.types import Scope

from api import api_keys, edge, rates
from api.app import create_app
from api.parts import Parts
from api.rates import Bucket, Policies, Policy, RateLimited, Rates
from api.rights import Who
from commands import service_accounts
from domain.tenants import PLATFORM_ID
from ledger import ids
from tests.api.house import House

FIVE = {kind: Policy(kind, 5, 60.0) for kind in ("address", "user", "tenant")}

Serving = Callable[..., httpx.AsyncClient]


def limited(**policies: Policy) -> Rates:
    return Rates(Policies(**policies), b"secret", PLATFORM_ID)


def who(tenant_id: UUID, account_id: UUID | None = None) -> Who:
    return Who(
        tenant_id=tenant_id,
        account_id=account_id or uuid4(),
        role="user",
        session_id=uuid4(),
        expires_at=2**40,
        rights=frozenset(),
    )


def scope(address: str = "203.0.113.7") -> Scope:
    made: Any = {"client": (address, 1), "state": {}}
    found: Scope = made
    return found


@pytest_asyncio.fixture
async def serving(parts: Parts) -> AsyncIterator[Serving]:
    """Makes clients at an address, of applications with these limits."""
    opened: list[Any] = []

    def serve(limits: Rates, address: str = "203.0.113.7") -> httpx.AsyncClient:
        app: Any = create_app(dataclasses.replace(parts, rates=limits))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://api.test")
        opened.extend((client, app))
        return client

    yield serve
    for each in opened:
        await (each.aclose() if isinstance(each, httpx.AsyncClient) else each.state.feed.close())


async def test_a_user_is_told_what_is_left_and_then_when_to_come_back(serving: Serving, a: House) -> None:
    client = serving(limited(user=FIVE["user"]))
    left = []
    for _ in range(5):
        answer = await client.get("/api/v1/products", headers=a.user.headers)
        assert answer.status_code == 200
        left.append(answer.headers["ratelimit"].split(";")[:2])
    assert left == [['"user"', f"r={number}"] for number in (4, 3, 2, 1, 0)]
    refused = await client.get("/api/v1/products", headers=a.user.headers)
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:bitnexus:problem:rate-limited")
    assert 'The limit "user" is reached: 5 requests in 60 s.' in refused.json()["detail"]
    assert refused.headers["ratelimit-policy"] == '"user";q=5;w=60'
    assert refused.headers["ratelimit"] == '"user";r=0;t=60'
    assert 1 <= int(refused.headers["retry-after"]) <= 12  # a fifth of a minute brings the next one
    assert (await client.get("/api/v1/products", headers=a.affiliate.headers)).status_code == 200


async def test_a_tenants_users_share_its_limit_and_another_tenant_has_its_own(
    serving: Serving, a: House, b: House
) -> None:
    """One tenant's runaway program must not be the other tenants' trouble."""
    client = serving(limited(tenant=FIVE["tenant"]))
    for person in (a.user, a.admin, a.user, a.affiliate, a.user):
        assert (await client.get("/api/v1/products", headers=person.headers)).status_code == 200
    refused = await client.get("/api/v1/products", headers=a.admin.headers)
    assert (refused.status_code, 'The limit "tenant"' in refused.json()["detail"]) == (429, True)
    assert (await client.get("/api/v1/products", headers=b.user.headers)).status_code == 200


async def test_who_is_not_known_is_limited_by_address_and_probes_are_not(serving: Serving, a: House) -> None:
    limits = limited(address=FIVE["address"])
    client = serving(limits)
    answers = [(await client.get("/nothing")).status_code for _ in range(7)]
    assert answers == [404] * 5 + [429] * 2
    for path in ("/health", "/ready"):  # a balancer would take the node out
        assert (await client.get(path)).status_code == 200
    assert (await client.get("/api/v1/products", headers=a.user.headers)).status_code == 200
    assert (await serving(limits, "203.0.113.8").get("/nothing")).status_code == 404


async def test_made_up_keys_are_not_looked_up_for_ever(
    serving: Serving, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look-up is a query, also for who is at the limit already; who is known by a key goes on."""
    looked_up, of_key = [], service_accounts.of_key

    async def counted(key: str, *arguments: Any) -> Any:
        looked_up.append(key)
        return await of_key(key, *arguments)

    monkeypatch.setattr(service_accounts, "of_key", counted)
    limits = limited(address=FIVE["address"])
    client, program = serving(limits), await a.program("products:read")
    assert (await client.get("/api/v1/products", headers=program.headers)).status_code == 200
    made_up = [service_accounts.new_key(a.id, ids.new_id())[0] for _ in range(6)]
    answers = [
        (await client.get("/api/v1/products", headers={"Authorization": f"Bearer {key}"})).status_code
        for key in made_up
    ]
    assert answers == [401] * 4 + [429] * 2
    assert looked_up == [program.token, *made_up[:4]]
    monkeypatch.setattr("api.api_keys.time.monotonic", lambda: monotonic() + api_keys.LOOKED_UP_EVERY_S)
    assert (await client.get("/api/v1/products", headers=program.headers)).status_code == 200


async def test_who_changes_the_own_account_all_the_time_is_stopped_and_may_do_everything_else(
    serving: Serving, a: House
) -> None:
    """Each new name is an event for good, and each use of the account reads all of them: one user could hold up a process."""
    client = serving(limited(account=Policy("account", 3, 3600.0)))

    async def rename(headers: dict[str, str], n: int) -> httpx.Response:
        return await client.patch("/api/v1/users/me", json={"name": f"Una {n}"}, headers=headers)

    answers = [(await rename(a.user.headers, n)).status_code for n in range(3)]
    refused = await client.put("/api/v1/users/me/password", json={}, headers=a.user.headers)
    assert ([*answers, refused.status_code], int(refused.headers["retry-after"]) > 600) == ([200] * 3 + [429], True)
    assert 'The limit "account" is reached: 3 requests in 3600 s.' in refused.json()["detail"]
    assert (await client.get("/api/v1/users/me", headers=a.user.headers)).status_code == 200
    assert (await rename(a.affiliate.headers, 1)).status_code == 200


async def test_tokens_cannot_be_tried_for_ever(serving: Serving) -> None:
    client = serving(limited(address=FIVE["address"]))
    bad = {"Authorization": "Bearer made up"}
    answers = [(await client.get("/api/v1/products", headers=bad)).status_code for _ in range(7)]
    assert answers == [401] * 5 + [429] * 2


async def test_a_page_with_an_old_token_is_told_so_on_a_node_that_has_not_seen_it(serving: Serving) -> None:
    """With several nodes the first of its requests wait for a lease; 429 instead of 401 would keep the page from refreshing."""
    limits = limited(address=Policy("address", 600, 60.0))
    limits.shared(0.5)

    async def lease() -> None:
        while True:
            await limits.wanted.wait()
            limits.wanted.clear()
            buckets = limits.pending(10)
            for bucket in buckets:
                bucket.corrected(0.0, 300.0, bucket.report(), 0.5, monotonic())
            limits.settle(buckets)

    leasing = asyncio.create_task(lease())
    client = serving(limits)
    bad = {"Authorization": "Bearer made up"}
    answers = await asyncio.gather(*(client.get("/api/v1/products", headers=bad) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {401}
    answers = await asyncio.gather(*(client.get("/nothing") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {404}
    leasing.cancel()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/auth/password/forgot"),
        ("POST", "/api/v1/auth/register"),
        ("POST", "//api/v1/auth//register/"),
        ("GET", "/schema"),
        ("GET", "/api/v1/tenant/branding?slug=alpha"),
        ("POST", "/socket/longpoll?vsn=2.0.0"),
        ("OPTIONS", "/api/v1/products"),
        ("GET", "/nothing"),
        ("DELETE", "/api/v1/products"),
    ],
)
async def test_a_header_that_nobody_looks_at_is_no_way_round_the_limit(
    serving: Serving, a: House, method: str, path: str
) -> None:
    """Anybody could flood registering, or fill mailboxes, by sending `Authorization: x`."""
    client = serving(limited(address=FIVE["address"]))
    headers = {"Authorization": "x"}
    answers = [(await client.request(method, path, headers=headers, json={})).status_code for _ in range(7)]
    assert 429 not in answers[:5]
    assert answers[5:] == [429] * 2


async def test_who_is_known_takes_nothing_from_the_address(serving: Serving, a: House) -> None:
    """A floor of people behind one address would lock each other out."""
    limits = limited(address=FIVE["address"])
    client = serving(limits)
    for path in ("/api/v1/products", "/api/v1/users/me", "/api/v1/nothing") * 3:
        await client.get(path, headers=a.user.headers)
    assert [bucket.taken for bucket in limits._addresses.values()] == [3]  # for what is not there


def test_a_customers_addresses_of_ipv6_are_one() -> None:
    """Whoever has a /64 has 2^64 addresses to come from."""
    assert rates.network("2001:db8:1:2::1") == rates.network("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert rates.network("2001:db8:1:3::1") != rates.network("2001:db8:1:2::1")
    assert rates.network("::ffff:203.0.113.7") == rates.network("203.0.113.7") == "203.0.113.7"
    assert rates.network("unix:") == "unix:"


def test_a_bucket_fills_again_and_never_over_its_quota() -> None:
    bucket = Bucket(Policy("user", 10, 10.0), uuid4(), uuid4(), 1.0, now=100.0)
    assert [bucket.take(100.0) for _ in range(11)] == [True] * 10 + [False]
    assert bucket.take(100.5) is False
    assert [bucket.take(102.0) for _ in range(3)] == [True, True, False]
    late = Bucket(Policy("user", 10, 10.0), uuid4(), uuid4(), 1.0, now=0.0)
    assert sum(late.take(10_000.0) for _ in range(50)) == 10


def test_the_memory_is_bounded_and_full_buckets_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker with many addresses, or a tenant with many users, must not fill it."""
    monkeypatch.setattr(rates, "BUCKETS_MAX", 100)
    limits = limited(address=Policy("address", 5, 1.0), user=Policy("user", 5, 60.0))
    tenant_id = uuid4()
    for number in range(300):
        limits.anonymous(scope(f"203.0.{number // 256}.{number % 256}"))
        limits.known(scope(), who(tenant_id))
    assert (len(limits._addresses), len(limits._users)) == (100, 100)
    assert len(limits._moved) == 200
    for bucket in limits._addresses.values():
        bucket.taken, bucket.at = 0, bucket.at - 10
    limits.forget_full()
    assert (len(limits._addresses), len(limits._users)) == (0, 100)


def test_a_tenants_own_limit_takes_the_place_of_the_installations() -> None:
    limits = limited(tenant=Policy("tenant", 1_000, 60.0))
    tenant_id, other = uuid4(), uuid4()
    limits.requests_per_minute = {tenant_id: 2, other: 0}.get
    for _ in range(2):
        assert limits.known(scope(), who(tenant_id)) is None
    with pytest.raises(RateLimited, match="2 requests in 60 s"):
        limits.known(scope(), who(tenant_id))
    with pytest.raises(RateLimited, match="no requests at all"):
        limits.known(scope(), who(other))
    limits.known(scope(), who(uuid4()))


def test_an_address_is_kept_as_a_hash_that_needs_the_key() -> None:
    """There are only 2^32 addresses of IPv4: a plain hash is soon found by trying them."""
    first, second = limited(), Rates(Policies(), b"another", PLATFORM_ID)
    assert first.hashed("203.0.113.7") == limited().hashed("203.0.113.7") != second.hashed("203.0.113.7")


async def test_sockets_are_refused_where_the_limit_of_the_address_is_reached(parts: Parts) -> None:
    """Each costs a check of a token. One that is good costs the address nothing: a thousand pages may be behind it."""
    opened: list[str] = []
    said: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        opened.append(scope["state"]["request_id"])
        if len(opened) > 10:
            await limits.charge(scope)

    async def send(message: Any) -> None:
        said.append(message)

    limits = limited(address=FIVE["address"])
    around: Any = edge.Edge(app, dataclasses.replace(parts, rates=limits), set(), frozenset())
    for _ in range(17):
        await around({**scope(), "type": "websocket", "headers": [], "path": "/socket"}, None, send)
    assert (len(set(opened)), [each["type"] for each in said]) == (15, ["websocket.close"] * 2)
