"""A tenant keeps somebody who can run it, whoever is erased and whatever happens at the same moment."""

import asyncio
from importlib import resources
from uuid import UUID

import psycopg
import pytest

from commands import accounts, admins, privacy
from domain import accounts as domain_accounts
from domain.accounts import LastAdmin, Role
from ledger import codec, errors
from tests.world import World, caller

PASSWORD = "correct horse battery"


async def register(world: World, tenant_id: UUID, name: str, role: Role = Role.ADMIN) -> UUID:
    command = accounts.Register(email=f"{name}@example.com", name=name, password=PASSWORD, role=role)
    return (await accounts.register(command, caller(tenant_id), world.ledger, world.passwords)).aggregate.id


async def erase(world: World, tenant_id: UUID, account_id: UUID) -> None:
    await privacy.erase(privacy.Erase(account_id=account_id), caller(tenant_id), world.ledger, privacy.noted_nowhere)


async def is_there(world: World, tenant_id: UUID, account_id: UUID) -> bool:
    account = await world.ledger.load(domain_accounts.Account, tenant_id, account_id)
    return account.email != codec.ERASED


async def test_an_admin_goes_while_another_stays(world: World, tenant_id: UUID) -> None:
    ann, bob = await register(world, tenant_id, "ann"), await register(world, tenant_id, "bob")
    await register(world, tenant_id, "user", Role.USER)
    await erase(world, tenant_id, ann)
    head = (await world.ledger.head(tenant_id)).position
    for named in (privacy.Erase(account_id=bob), privacy.Erase(email="BOB@example.com")):
        with pytest.raises(LastAdmin, match=str(bob)):
            await privacy.erase(named, caller(tenant_id), world.ledger, privacy.noted_nowhere)
    assert (await is_there(world, tenant_id, ann), await is_there(world, tenant_id, bob)) == (False, True)
    assert (await world.ledger.head(tenant_id)).position == head
    await register(world, tenant_id, "cleo")
    await erase(world, tenant_id, bob)
    assert not await is_there(world, tenant_id, bob)


async def test_whom_the_rule_keeps_is_not_noted_for_the_next_start(world: World, tenant_id: UUID) -> None:
    """What stands in the list outside the database is erased when the process starts, without asking."""
    ann = await register(world, tenant_id, "ann")
    noted: list[UUID] = []

    async def note(_: UUID, subject_id: UUID) -> None:
        noted.append(subject_id)

    with pytest.raises(LastAdmin):
        await privacy.erase(privacy.Erase(account_id=ann), caller(tenant_id), world.ledger, note)
    assert noted == []


async def test_of_admins_who_erase_each_other_at_once_one_stays(world: World, tenant_id: UUID) -> None:
    """Each of them sees the others when it decides."""
    people = [await register(world, tenant_id, name) for name in ("ann", "bob", "cleo", "dan")]
    outcomes = await asyncio.gather(*(erase(world, tenant_id, each) for each in people), return_exceptions=True)
    left = [each for each in people if await is_there(world, tenant_id, each)]
    assert len(left) >= 1
    assert all(outcome is None or isinstance(outcome, LastAdmin | errors.VersionConflict) for outcome in outcomes)
    assert outcomes.count(None) == len(people) - len(left)


async def test_who_decided_before_somebody_else_left_decides_again(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race at its narrowest: Bob is gone after Ann's erasure saw him, and before it is committed."""
    ann, bob = await register(world, tenant_id, "ann"), await register(world, tenant_id, "bob")
    find = admins._is_anybody_there

    async def seen_and_gone(others: set[UUID], *arguments: object) -> bool:
        monkeypatch.setattr(admins, "_is_anybody_there", find)
        seen = await find(others, tenant_id, world.ledger)
        await erase(world, tenant_id, bob)
        return seen

    monkeypatch.setattr(admins, "_is_anybody_there", seen_and_gone)
    with pytest.raises(LastAdmin):
        await erase(world, tenant_id, ann)
    assert (await is_there(world, tenant_id, ann), await is_there(world, tenant_id, bob)) == (True, False)


async def test_who_leaves_between_the_two_readings_is_seen(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The admins are read after the reservation: the other way round Bob would still be counted."""
    ann, bob = await register(world, tenant_id, "ann"), await register(world, tenant_id, "bob")
    leaving = await world.ledger.load(domain_accounts.Account, tenant_id, bob)
    find = type(world.ledger).find
    gone = False

    async def found_and_gone(ledger: object, tenant: UUID, kind: str, keys: list[str]) -> dict[str, UUID]:
        nonlocal gone
        if kind == admins.LEFT and not gone:
            gone = True
            await admins.leave(leaving, caller(tenant_id), world.ledger)  # and is about to be erased
        return await find(world.ledger, tenant, kind, keys)

    monkeypatch.setattr(type(world.ledger), "find", found_and_gone)
    with pytest.raises(LastAdmin):
        await erase(world, tenant_id, ann)


async def test_an_erased_admin_whose_password_was_set_at_that_moment_does_not_count(
    world: World, tenant_id: UUID
) -> None:
    """The account was loaded before the erasure and written after it."""
    ann, bob = await register(world, tenant_id, "ann"), await register(world, tenant_id, "bob")
    account = await world.ledger.load(domain_accounts.Account, tenant_id, bob)
    await erase(world, tenant_id, bob)
    await world.ledger.append(caller(tenant_id), account, secrets=accounts.passworded(account, b"late"))
    assert await accounts.admins_of(tenant_id, world.ledger) == {ann, bob}
    with pytest.raises(LastAdmin):
        await erase(world, tenant_id, ann)


async def test_the_list_of_erasures_forgets_the_last_admin_too(world: World, tenant_id: UUID) -> None:
    """A restored backup may bring back nobody who was erased; `tenants admin` then lets somebody in."""
    ann = await register(world, tenant_id, "ann")
    listed = privacy.Erase(subject_id=ann)
    await privacy.erase(listed, caller(tenant_id), world.ledger, privacy.noted_nowhere)
    assert not await is_there(world, tenant_id, ann)
    assert await accounts.admins_of(tenant_id, world.ledger) == set()
    command = admins.Appoint(email="ann@example.com", name="Ann", password=PASSWORD)
    appointed = await admins.appoint(command, caller(tenant_id), world.ledger, world.passwords)
    assert await accounts.admins_of(tenant_id, world.ledger) == {appointed.receipt.aggregate.id}


async def test_an_admin_who_was_let_in_again_counts(world: World, tenant_id: UUID) -> None:
    """After an import nobody has a password, and so nobody runs the tenant until somebody is appointed."""
    ann, bob = await register(world, tenant_id, "ann"), await register(world, tenant_id, "bob")
    with psycopg.connect(world.database.owner_url) as owner:
        owner.execute("DELETE FROM ledger.secrets")
    command = admins.Appoint(email="ann@example.com", name="", password=PASSWORD)
    await admins.appoint(command, caller(tenant_id), world.ledger, world.passwords)
    with pytest.raises(LastAdmin):
        await erase(world, tenant_id, ann)
    await erase(world, tenant_id, bob)


async def test_admins_of_before_the_rule_are_known(world: World, tenant_id: UUID) -> None:
    """A database of the release before has no list of them: the migration writes it."""
    ann, bob = await register(world, tenant_id, "ann"), await register(world, tenant_id, "bob")
    await register(world, tenant_id, "user", Role.USER)
    await erase(world, tenant_id, bob)
    with psycopg.connect(world.database.owner_url) as owner:
        owner.execute("DELETE FROM ledger.secrets WHERE owner = tenant_id")
        owner.execute("DROP INDEX ledger.erased_subjects_since")
        owner.execute("CREATE INDEX erased_subjects_in ON ledger.erased_subjects (tenant_id)")
        owner.execute(resources.files("migrations").joinpath("0010_pre_erasures.sql").read_bytes())
    assert await accounts.admins_of(tenant_id, world.ledger) == {ann}
