"""What admins do about accounts, and who stays to do it."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from commands import accounts as account_commands
from commands import admins, privacy, sessions, tenants
from commands.accounts import administering, held
from domain import accounts
from domain.tenants import PLATFORM_ID
from ledger import errors, history
from tests.world import World, caller

PASSWORD = "correct horse battery"


async def registered(world: World, tenant_id: UUID, email: str, role: str = "user") -> accounts.Account:
    command = account_commands.Register(email=email, name="Somebody", password=PASSWORD, role=role)
    return (await account_commands.register(command, caller(tenant_id), world.ledger, world.passwords)).aggregate


async def logs_in(world: World, account: accounts.Account) -> sessions.LoggedIn:
    command = account_commands.LogIn(email=account.email, password=PASSWORD)
    return await account_commands.log_in(command, caller(account.tenant_id), world.ledger, world.passwords)


async def refreshed(world: World, tenant_id: UUID, token: str) -> sessions.LoggedIn:
    return await sessions.refresh(token, sessions.Device(), caller(tenant_id), world.ledger)


async def changes(world: World, account: accounts.Account, **what: str) -> accounts.Account:
    command = administering.Change(account_id=account.id, **what)  # type: ignore[arg-type]  # name and role alone are given
    return (await administering.change(command, caller(account.tenant_id), world.ledger)).aggregate


async def deactivates(world: World, account: accounts.Account) -> accounts.Account:
    command = administering.Deactivate(account_id=account.id)
    return (await administering.deactivate(command, caller(account.tenant_id), world.ledger)).aggregate


async def test_another_role_ends_the_sessions_and_another_name_does_not(world: World, tenant_id: UUID) -> None:
    """A token that says "admin" must not outlive being one."""
    await registered(world, tenant_id, "boss@a.test", "admin")
    ann = await registered(world, tenant_id, "ann@a.test", "admin")
    first, second = await logs_in(world, ann), await logs_in(world, ann)
    assert (await changes(world, ann, name="Ann Other")).name == "Ann Other"
    renewed = await refreshed(world, tenant_id, first.refresh_token)
    assert (await changes(world, ann, role="user")).role == "user"
    for token in (renewed.refresh_token, second.refresh_token):
        with pytest.raises(accounts.SessionRevoked):
            await refreshed(world, tenant_id, token)
    assert await sessions.ids(ann.id, tenant_id, world.ledger) == []
    assert world.ledger.revocations.is_revoked(second.session.aggregate.id)
    session = await world.ledger.load(accounts.Session, tenant_id, second.session.aggregate.id)
    assert session.revoked
    assert (await logs_in(world, ann)).account.role == "user"


async def test_who_is_deactivated_is_out_until_reactivated(world: World, tenant_id: UUID) -> None:
    ann = await registered(world, tenant_id, "ann@a.test")
    before = await logs_in(world, ann)
    assert not (await deactivates(world, ann)).active
    with pytest.raises(account_commands.CredentialsWrong):
        await logs_in(world, ann)
    with pytest.raises(accounts.SessionRevoked):
        await refreshed(world, tenant_id, before.refresh_token)
    with pytest.raises(accounts.AccountDeactivated):
        await changes(world, ann, role="affiliate")
    again = administering.Reactivate(account_id=ann.id)
    assert (await administering.reactivate(again, caller(tenant_id), world.ledger)).aggregate.active
    assert (await logs_in(world, ann)).account.id == ann.id


async def test_a_session_that_began_meanwhile_is_refused(world: World, tenant_id: UUID) -> None:
    """Its password was checked before the account was deactivated."""
    ann = await registered(world, tenant_id, "ann@a.test")
    await logs_in(world, ann)
    before = await sessions.fence(ann.id, tenant_id, world.ledger)
    loaded = await world.ledger.load(accounts.Account, tenant_id, ann.id)
    await deactivates(world, ann)
    with pytest.raises(errors.VersionConflict):
        await account_commands.start_session(loaded, before, sessions.Device(), caller(tenant_id), world.ledger)


async def test_deactivating_twice_records_once(world: World, tenant_id: UUID) -> None:
    ann = await registered(world, tenant_id, "ann@a.test")
    await deactivates(world, ann)
    head = (await world.ledger.head(tenant_id)).position
    await deactivates(world, ann)
    assert (await world.ledger.head(tenant_id)).position == head


@pytest.mark.parametrize("how", ["role", "deactivation"])
async def test_the_last_admin_stays_one(world: World, tenant_id: UUID, how: str) -> None:
    """Nobody would be left to run the tenant. Whoever is deactivated is nobody either."""

    async def goes(account: accounts.Account) -> accounts.Account:
        return await (changes(world, account, role="user") if how == "role" else deactivates(world, account))

    first = await registered(world, tenant_id, "first@a.test", "admin")
    second = await registered(world, tenant_id, "second@a.test", "admin")
    await goes(first)
    with pytest.raises(accounts.LastAdmin):
        await goes(second)
    assert (await world.ledger.load(accounts.Account, tenant_id, second.id)).version == second.version
    if how == "role":
        await changes(world, first, role="admin")
    else:
        again = administering.Reactivate(account_id=first.id)
        await administering.reactivate(again, caller(tenant_id), world.ledger)
    await goes(second)


async def test_of_two_admins_who_demote_each_other_one_stays(world: World, tenant_id: UUID) -> None:
    admins_there = [await registered(world, tenant_id, f"{n}@a.test", "admin") for n in range(2)]
    results = await asyncio.gather(
        *(changes(world, each, role="user") for each in admins_there), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in results) == ["Account", "LastAdmin"]


async def test_only_the_version_that_was_seen_is_changed(world: World, tenant_id: UUID) -> None:
    ann = await registered(world, tenant_id, "ann@a.test")
    await changes(world, ann, name="Ann Other")
    stale = administering.Change(account_id=ann.id, role="affiliate", version=1)
    with pytest.raises(errors.VersionConflict):
        await administering.change(stale, caller(tenant_id), world.ledger)


async def test_an_erased_person_is_not_there_to_be_changed(world: World, tenant_id: UUID) -> None:
    ann = await registered(world, tenant_id, "ann@a.test")
    await privacy.erase(privacy.Erase(account_id=ann.id), caller(tenant_id), world.ledger, privacy.noted_nowhere)
    for what in ({"name": "Back"}, {"role": "affiliate"}):
        with pytest.raises(errors.NotFound):
            await changes(world, ann, **what)


async def test_super_admins_are_appointed_on_the_platform_alone(world: World, tenant_id: UUID) -> None:
    await tenants.ensure_platform(world.ledger)
    command = admins.Appoint(email="root@p.test", name="Root", password=PASSWORD, role=accounts.Role.SUPER_ADMIN)
    appointed = await admins.appoint(command, caller(PLATFORM_ID), world.ledger, world.passwords)
    assert (appointed.receipt.aggregate.role, appointed.new_account) == ("super_admin", True)
    with pytest.raises(accounts.RoleNotHere):
        await admins.appoint(command, caller(tenant_id), world.ledger, world.passwords)


async def test_all_former_names_are_told_and_the_history_is_read_once(
    world: World, shop: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read anew for each version, the export of somebody who changed the name often would hold up everybody."""
    ann = await registered(world, shop, "ann@example.com")
    for name in ("Ann 1", "Ann 2", "Ann 1", "Ann 3"):
        ann.rename(name)
    await world.ledger.append(caller(shop), ann)
    folds, fold = [], history.fold

    async def counted(*arguments: Any) -> Any:
        folds.append(arguments)
        return await fold(*arguments)

    monkeypatch.setattr(history, "fold", counted)
    found = await held.of(ann, world.ledger)
    assert (found.former_names, found.former_emails) == (["Ann 1", "Ann 2", "Somebody"], [])
    assert len(folds) == 1
