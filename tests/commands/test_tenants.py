"""Tenants: made once and whole, found by their slugs."""

import contextlib
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from commands import accounts, looks, sessions, tenants
from domain import refusals
from domain import tenants as domain_tenants
from ledger import ids
from ledger.caller import Caller
from tests.world import World, caller

SHOP = tenants.Create(
    slug="shop", name="Shop", currency="EUR", admin_email="a@shop.example", admin_name="A", admin_password="long enough"
)


async def log_in(world: World, tenant_id: UUID, email: str, password: str) -> sessions.LoggedIn:
    command = accounts.LogIn(email=email, password=password)
    return await accounts.log_in(command, caller(tenant_id), world.ledger, world.passwords)


async def test_the_platform_is_made_once_and_has_a_slug(world: World) -> None:
    """Every process makes sure of it at its start."""
    for _ in range(2):
        await tenants.ensure_platform(world.ledger)
    assert (await world.ledger.head(domain_tenants.PLATFORM_ID)).position == 1
    assert await tenants.find("platform", world.ledger) == domain_tenants.PLATFORM_ID


async def test_a_tenant_is_created_with_its_admin_and_found_by_its_slug(world: World) -> None:
    await tenants.ensure_platform(world.ledger)
    receipt = await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)
    assert await tenants.find("shop", world.ledger) == receipt.aggregate.id
    logged_in = await log_in(world, receipt.aggregate.id, "a@shop.example", "long enough")
    assert logged_in.account.role == "admin"
    with pytest.raises(tenants.SlugTaken):
        await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)
    with pytest.raises(tenants.SlugUnknown):
        await tenants.find("nobody", world.ledger)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slug": "No Slug"},
        {"slug": "platform"},
        {"name": " "},
        {"currency": "???"},
        {"admin_email": "nobody"},
        {"admin_name": ""},
        {"admin_password": "short"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_creation_that_is_refused_leaves_nothing_behind(world: World, wrong: dict[str, str]) -> None:
    """A slug must not be lost to a slip of the pen in another field."""
    await tenants.ensure_platform(world.ledger)
    with pytest.raises(refusals.Invalid):
        await tenants.create(msgspec.structs.replace(SHOP, **wrong), _platform_caller(), world.ledger, world.passwords)
    assert (await world.ledger.head(domain_tenants.PLATFORM_ID)).position == 1


class Killed(Exception):
    pass


@pytest.mark.parametrize("writes", [1, 2, 3])
async def test_a_tenant_that_was_begun_is_finished_by_the_next_try(
    world: World, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """The process may be killed between any two of its writes."""
    await tenants.ensure_platform(world.ledger)
    left = writes
    with monkeypatch.context() as patch:
        for name in ("append", "open_stream"):
            write = getattr(world.ledger, name)

            async def counted(*args: Any, write: Any = write, **kwargs: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return await write(*args, **kwargs)

            patch.setattr(world.ledger, name, counted)
        with pytest.raises(Killed):
            await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)
    receipt = await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)
    assert await tenants.find("shop", world.ledger) == receipt.aggregate.id
    assert (await world.ledger.head(receipt.aggregate.id)).position == 2
    assert (await log_in(world, receipt.aggregate.id, SHOP.admin_email, SHOP.admin_password)).account.role == "admin"


async def test_a_tenant_that_was_begun_can_be_finished_also_after_somebody_looked_into_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slug would be lost, and the tenant be without anybody who could log in."""
    await tenants.ensure_platform(world.ledger)

    async def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(accounts, "register", killed)
        with pytest.raises(Killed):
            await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)
    tenant_id = await tenants.find("shop", world.ledger)
    super_admin = msgspec.structs.replace(_platform_caller(), actor_id=ids.new_id())
    await looks.look(tenant_id, "tenant", super_admin, world.ledger)
    await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)
    assert (await log_in(world, tenant_id, SHOP.admin_email, SHOP.admin_password)).account.role == "admin"
    with pytest.raises(tenants.SlugTaken):
        await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)


async def test_nobody_else_becomes_admin_of_a_tenant_without_passwords(world: World) -> None:
    """An import brings none: the next who creates a tenant with the slug must not walk in."""
    await tenants.ensure_platform(world.ledger)
    tenant_id = (await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)).aggregate.id
    with psycopg.connect(world.database.owner_url) as owner:
        owner.execute("DELETE FROM ledger.secrets WHERE tenant_id = %s", (tenant_id,))
        owner.execute("DELETE FROM ledger.commands")
    theirs = msgspec.structs.replace(SHOP, admin_email="b@other.example")
    with pytest.raises(tenants.SlugTaken):
        await tenants.create(theirs, _platform_caller(), world.ledger, world.passwords)


def _platform_caller() -> Caller:
    return caller(domain_tenants.PLATFORM_ID)


async def test_of_two_who_create_a_tenant_at_once_one_is_told_that_the_slug_is_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else somebody is told that a tenant is theirs into which they cannot log in. The other one is done meanwhile."""
    await tenants.ensure_platform(world.ledger)
    theirs = msgspec.structs.replace(SHOP, admin_email="b@other.example", admin_password="another password")
    hashed = world.passwords.hash

    async def created_meanwhile(password: str) -> bytes:
        monkeypatch.setattr(world.passwords, "hash", hashed)
        await tenants.create(theirs, _platform_caller(), world.ledger, world.passwords)
        return await hashed(password)

    monkeypatch.setattr(world.passwords, "hash", created_meanwhile)
    with pytest.raises(refusals.Conflict):
        await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)


async def test_a_repeated_creation_makes_no_second_tenant(world: World) -> None:
    """With the same command id. The second one would be in nobody's list, and no slug would lead to it."""
    await tenants.ensure_platform(world.ledger)
    asks = _platform_caller()
    first = await tenants.create(SHOP, asks, world.ledger, world.passwords)
    with contextlib.suppress(tenants.SlugTaken):
        again = await tenants.create(SHOP, asks, world.ledger, world.passwords)
        assert again.aggregate.id == first.aggregate.id
