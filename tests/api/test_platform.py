"""Super admins across tenants, and what tenants see of it."""

import asyncio
import json
import time

import pytest_asyncio

from api.parts import Parts
from bitnexus import database as connections
from domain import accounts, tenants
from ledger.revocations import Revocations
from ledger.watch import Watch
from tests.api import house
from tests.api.house import PASSWORD, PATIENCE_S, House, Person, Served
from tests.world import World

LIMITS = "limit-reached"


@pytest_asyncio.fixture
async def root(world: World, parts: Parts) -> Person:
    return await house.person(world, tenants.PLATFORM_ID, accounts.Role.SUPER_ADMIN, "root@platform.test")


async def test_each_look_into_a_tenant_stands_in_its_own_stream(served: Served, a: House, root: Person) -> None:
    """An organisation can see who looked, and that nobody else did."""
    shown = await served.get(root, f"/platform/tenants/{a.id}")
    assert (shown.status_code, shown.json()["data"]["slug"], shown.json()["data"]["hosts"]) == (200, "alpha", [])
    head = (await served.get(a.admin, "/ledger/head")).json()["data"]["position"]
    entries = (await served.get(a.admin, "/ledger/entries", params={"from": head})).json()["data"]
    assert [each["topic"] for each in entries] == ["tenant.looked_into"]
    assert json.loads(entries[0]["state"]) == {"account_id": str(root.id), "what": "inspectTenant"}
    assert json.loads(entries[0]["metadata"])["role"] == "super_admin"


async def test_a_change_that_changes_nothing_is_a_look(served: Served, a: House, root: Person) -> None:
    """It is answered with the whole tenant: whoever sends the limits that there are could look without a trace."""

    async def recorded() -> list[str]:
        return [each.topic for each in await a.ledger.entries(a.id, head, 100)]

    head, path = (await a.ledger.head(a.id)).position, f"/platform/tenants/{a.id}"
    unlimited = {"users": None, "requests_per_minute": None, "events_per_day": None}
    shown = await served.ask(root, "PUT", f"{path}/limits", json=unlimited)
    assert (shown.status_code, shown.json()["data"]["slug"]) == (200, "alpha")
    assert await recorded() == ["tenant.looked_into"]
    for _ in range(2):
        assert (await served.post(root, f"{path}/suspension", {"reason": "unpaid"})).status_code == 200
    assert await recorded() == ["tenant.looked_into", "tenant.suspended", "tenant.looked_into"]


async def test_what_is_asked_of_all_tenants_is_recorded_once_on_the_platform(
    served: Served, a: House, b: House, root: Person
) -> None:
    mug = await a.lists()
    await a.refunds(await a.sells(mug, quantity=2), 1)
    assert (await served.ask(b.admin, "DELETE", f"/users/{b.affiliate.id}")).status_code == 204
    for each in (a, b):
        await served.views_reach(each)
    heads = [(await each.ledger.head(each.id)).position for each in (a, b)]
    before = (await a.ledger.head(tenants.PLATFORM_ID)).position
    listed = await served.get(root, "/platform/tenants", params={"limit": 2, "status": "active"})
    assert [each["slug"] for each in listed.json()["data"]] == ["platform", "alpha"]
    following = {"cursor": listed.json()["meta"]["next_cursor"]}
    assert [
        each["slug"] for each in (await served.get(root, "/platform/tenants", params=following)).json()["data"]
    ] == ["beta"]
    figures = (await served.get(root, "/platform/figures")).json()["data"]
    assert figures["tenants"] == {"active": 3}
    assert figures["users"] == {"admin": 2, "affiliate": 1, "user": 2, "super_admin": 1}
    assert figures["volumes"] == [{"currency": "EUR", "count": 1, "gross": "18.00", "refunded": "9.00", "net": "9.00"}]
    assert {each["view"] for each in figures["lags"]} >= {"accounts", "sales", "tenants"}
    assert (await a.ledger.head(tenants.PLATFORM_ID)).position == before + 3
    assert [(await each.ledger.head(each.id)).position for each in (a, b)] == heads


async def test_a_tenant_is_made_limited_and_given_host_names(served: Served, root: Person) -> None:
    body = {"slug": "gamma", "name": "Gamma", "admin_email": "admin@gamma.test", "admin_password": PASSWORD}
    made = await served.post(root, "/platform/tenants", {"tenant": body})
    assert made.status_code == 201
    path = f"/platform/tenants/{made.json()['data']['id']}"
    assert (await served.post(root, "/platform/tenants", body)).status_code == 409
    limits = await served.ask(root, "PUT", f"{path}/limits", json={"users": 1})
    assert limits.json()["data"]["limits"] == {"users": 1, "requests_per_minute": None, "events_per_day": None}
    register = {"email": "ann@gamma.test", "name": "Ann", "password": PASSWORD, "tenant": "gamma"}
    refused = await served.post(None, "/auth/register", register)
    assert (refused.status_code, refused.json()["type"].endswith(LIMITS)) == (403, True)
    assert "users" in refused.json()["detail"]
    hosts = await served.ask(root, "PUT", f"{path}/hosts", json={"hosts": ["shop.example.com"]})
    assert hosts.json()["data"]["hosts"] == ["shop.example.com"]
    branding = await served.client.get("/api/v1/tenant/branding", headers={"Host": "shop.example.com:8443"})
    assert branding.json()["data"]["slug"] == "gamma"


async def test_a_suspended_tenant_is_out_in_every_process_within_two_seconds(
    world: World, served: Served, a: House, b: House, root: Person
) -> None:
    """Tokens, keys, logging in, refreshing; its data stay, and the others are not touched."""
    program = await a.program("products:read")
    other = Revocations()  # what another process knows
    watch = Watch(connections.connector(world.database.app_url, "projector"), other)
    await watch.start()
    assert (await served.get(program, "/products")).status_code == 200
    path = f"/platform/tenants/{a.id}/suspension"
    assert (await served.post(root, path, {"reason": "unpaid"})).json()["data"]["status"] == "suspended"
    begin = time.monotonic()
    while not other.is_suspended(a.id):
        assert time.monotonic() - begin < 3 * 2
        await asyncio.sleep(0.02)
    await watch.close()
    for person in (a.admin, a.user, program):
        assert (await served.get(person, "/products")).status_code == 401
    login = {"email": a.user.email, "password": PASSWORD, "tenant": "alpha"}
    refused = await served.post(None, "/auth/login", login)
    assert (refused.status_code, refused.json()["type"].endswith("tenant-suspended")) == (403, True)
    assert (await served.get(b.user, "/products")).status_code == 200
    assert (await served.ask(root, "DELETE", path)).status_code == 204
    assert (await served.get(a.user, "/products")).status_code == 200
    assert (await served.get(program, "/products")).status_code == 200
    assert (await served.post(None, "/auth/login", login)).status_code == 200


async def test_more_events_than_the_limit_are_refused_and_those_of_accounts_are_not(
    served: Served, a: House, root: Person
) -> None:
    """A tenant that is over its limit can still lock somebody out, its admins can still log in, and whoever lost an answer gets it."""
    mug = await a.lists()
    path = f"/platform/tenants/{a.id}/limits"
    assert (await served.ask(root, "PUT", path, json={"events_per_day": 3})).status_code == 200
    sale = {"lines": [{"product_id": str(mug.id), "quantity": 1}]}
    key = {"Idempotency-Key": "the last one that there was room for"}
    assert (await served.post(a.user, "/transactions", sale)).status_code == 201  # the mug was the first
    last = await served.post(a.user, "/transactions", sale, headers=key)
    assert last.status_code == 201
    assert (await served.post(a.user, "/transactions", sale)).status_code == 403
    refused = await served.post(a.user, "/transactions", sale)
    assert "events_per_day" in refused.json()["detail"]
    for _ in range(2):
        assert (await served.post(a.user, "/transactions", sale, headers=key)).json() == last.json()
    other = await served.post(a.user, "/transactions", sale, headers={"Idempotency-Key": "another"})
    assert other.status_code == 403
    login = {"email": a.user.email, "password": PASSWORD, "tenant": "alpha"}
    assert (await served.post(None, "/auth/login", login)).status_code == 200
    assert (await served.ask(a.admin, "DELETE", f"/users/{a.affiliate.id}")).status_code == 204
    assert (await served.get(a.user, "/transactions")).status_code == 200
    await served.ask(root, "PUT", path, json={})
    async with asyncio.timeout(PATIENCE_S):
        while (await served.post(a.user, "/transactions", sale)).status_code == 403:  # noqa: ASYNC110  it is asked again
            await asyncio.sleep(0.2)


async def test_an_admin_brands_and_configures_the_own_tenant(served: Served, a: House, b: House) -> None:
    branding = {"name": "Alpha & Co", "logo_url": "https://cdn.example.com/a.svg", "primary_colour": "#0a7f42"}
    changed = await served.ask(a.admin, "PUT", f"/tenants/{a.id}/branding", json={"branding": branding})
    assert (changed.status_code, changed.json()["data"]["name"]) == (200, "Alpha & Co")
    anybody = await served.client.get("/api/v1/tenant/branding", params={"slug": "alpha"})
    assert anybody.json()["data"] == {
        **{"slug": "alpha", "accent_colour": None, "sender_address": None},
        **branding,
    }
    assert "public" in anybody.headers["Cache-Control"]
    configured = await served.ask(
        a.admin, "PUT", f"/tenants/{a.id}/configuration", json={"currency": "GBP", "flags": ["wishes"]}
    )
    assert configured.json()["data"]["currency"] == "GBP"
    assert (await served.get(a.user, f"/tenants/{a.id}")).json()["data"]["flags"] == ["wishes"]
    product = await served.post(a.admin, "/products", {"sku": "X", "name": "X", "price": "1.00"})
    assert product.json()["data"]["currency"] == "GBP"
    for limits in ({"events_per_day": None}, {"users": 9}):
        assert (await served.ask(a.admin, "PUT", f"/platform/tenants/{a.id}/limits", json=limits)).status_code == 403
    unknown = await served.client.get("/api/v1/tenant/branding", params={"slug": "nobody"})
    assert unknown.status_code == 422
