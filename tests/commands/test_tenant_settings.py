"""Tenants: whose a host name is, how many users there may be, and that a suspended one is no longer at work."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from commands import accounts as account_commands
from commands import invitations, limits, tenant_settings, tenants
from domain.tenants import PLATFORM_ID, Limits, TenantSuspended
from ledger import ids
from tests.world import World, caller


async def made(world: World, slug: str) -> UUID:
    command = tenants.Create(
        slug=slug,
        name=slug,
        currency="EUR",
        admin_email=f"admin@{slug}.test",
        admin_name="Admin",
        admin_password="correct horse battery",
    )
    await tenants.ensure_platform(world.ledger)
    return (await tenants.create(command, caller(PLATFORM_ID), world.ledger, world.passwords)).aggregate.id


async def gives(world: World, tenant_id: UUID, *hosts: str) -> None:
    command = tenant_settings.ChangeHosts(tenant_id=tenant_id, hosts=hosts)
    await tenant_settings.change_hosts(command, caller(PLATFORM_ID), world.ledger)


async def test_a_host_name_is_one_tenants(world: World) -> None:
    """Whoever logs in there must land where the name says."""
    a, b = await made(world, "a"), await made(world, "b")
    await gives(world, a, "shop.example.com", "SHOP.example.org")
    assert await tenant_settings.of_host("Shop.Example.Org", world.ledger) == a
    with pytest.raises(tenant_settings.HostTaken):
        await gives(world, b, "b.example.com", "shop.example.com")
    assert await tenant_settings.of_host("b.example.com", world.ledger) is None
    await gives(world, a, "shop.example.org")
    await gives(world, b, "shop.example.com")
    assert await tenant_settings.of_host("shop.example.com", world.ledger) == b
    assert await tenant_settings.of_host("not a host", world.ledger) is None


async def test_no_more_users_than_the_limit(world: World) -> None:
    a = await made(world, "a")
    await tenant_settings.limit(tenant_settings.Limit(limits=Limits(users=2)), caller(a), world.ledger)

    async def registers(email: str) -> None:
        command = account_commands.Register(email=email, name="Ann", password="correct horse battery")
        await account_commands.register(command, caller(a), world.ledger, world.passwords)

    await registers("ann@a.test")
    with pytest.raises(limits.LimitReached, match="users"):
        await registers("ben@a.test")
    await tenant_settings.limit(tenant_settings.Limit(limits=Limits()), caller(a), world.ledger)
    await registers("ben@a.test")


async def test_of_accounts_made_at_the_same_moment_none_is_one_too_many(world: World) -> None:
    """A limit that is paid for: whoever sends their registrations at once must not get more for it, and none less."""
    a = await made(world, "a")
    await tenant_settings.limit(tenant_settings.Limit(limits=Limits(users=4)), caller(a), world.ledger)

    def registers(number: int) -> Any:
        command = account_commands.Register(
            email=f"p{number}@a.test", name="Some One", password="correct horse battery"
        )
        return account_commands.register(command, caller(a), world.ledger, world.passwords)

    outcomes = await asyncio.gather(*(registers(number) for number in range(8)), return_exceptions=True)
    assert [type(each) for each in outcomes].count(limits.LimitReached) == 5  # there was the admin before
    assert await world.ledger.count(a, limits.ADDRESS, 100) == 4
    invite = invitations.Issue(email="invited@a.test")
    await invitations.issue(invite, caller(a), world.ledger)  # which is no account yet
    again = await asyncio.gather(registers(0), registers(9), return_exceptions=True)
    assert [type(each) for each in again] == [limits.LimitReached] * 2


async def test_who_was_made_up_to_the_limit_is_told_so_again(world: World) -> None:
    """A repeat of the last registration that there was room for has its answer, not the limit's."""
    a = await made(world, "a")
    await tenant_settings.limit(tenant_settings.Limit(limits=Limits(users=2)), caller(a), world.ledger)
    command = account_commands.Register(email="ann@a.test", name="Ann Archer", password="correct horse battery")
    about = caller(a)
    first = await account_commands.register(command, about, world.ledger, world.passwords)
    again = await account_commands.register(command, about, world.ledger, world.passwords)
    assert (again.replayed, again.aggregate.id) == (True, first.aggregate.id)


async def test_suspending_and_resuming_is_known_at_once_here(world: World) -> None:
    a = await made(world, "a")
    suspend, command_id = tenant_settings.Suspend(reason="unpaid"), ids.new_id()
    await tenant_settings.suspend(suspend, caller(a, command_id), world.ledger)
    assert world.ledger.revocations.is_suspended(a)
    with pytest.raises(TenantSuspended):
        await tenant_settings.check_open(a, world.ledger)
    await tenant_settings.suspend(suspend, caller(a, command_id), world.ledger)  # a repeat
    await tenant_settings.resume(tenant_settings.Resume(), caller(a), world.ledger)
    assert not world.ledger.revocations.is_suspended(a)
    await tenant_settings.check_open(a, world.ledger)


async def test_the_platform_is_not_limited(world: World) -> None:
    """All super admins are its callers: nobody could ask for the limit to be lifted."""
    await tenants.ensure_platform(world.ledger)
    command = tenant_settings.Limit(limits=Limits(requests_per_minute=0))
    with pytest.raises(tenant_settings.PlatformStays):
        await tenant_settings.limit(command, caller(PLATFORM_ID), world.ledger)
    await tenant_settings.limit(tenant_settings.Limit(limits=Limits()), caller(PLATFORM_ID), world.ledger)


async def test_the_platform_is_not_suspended(world: World) -> None:
    """Nobody could lift it."""
    await made(world, "a")
    with pytest.raises(tenant_settings.PlatformStays):
        await tenant_settings.suspend(tenant_settings.Suspend(reason="x"), caller(PLATFORM_ID), world.ledger)
