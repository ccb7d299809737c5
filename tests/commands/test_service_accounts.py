"""Service accounts and their keys."""

import re
from uuid import UUID

import psycopg
import pytest

from commands import service_accounts as commands
from domain import service_accounts
from ledger import ids
from ledger.store import Receipt
from tests.world import World, caller

MAY_GIVE = {"ledger:read", "products:read"}


async def made(world: World, tenant_id: UUID, *scopes: str) -> commands.Made:
    command = commands.Create(name="Auditor", scopes=scopes or ("ledger:read",), may_give=MAY_GIVE)
    return await commands.make(command, caller(tenant_id), world.ledger)


async def found(world: World, key: str | None) -> commands.Found:
    assert key is not None
    return await commands.of_key(key, world.ledger, world.app)


async def revoked(world: World, tenant_id: UUID, of: commands.Made) -> Receipt[service_accounts.ServiceAccount]:
    command = commands.RevokeKey(account_id=of.receipt.aggregate.id, key_id=of.key_id)
    return await commands.revoke_key(command, caller(tenant_id), world.ledger)


async def test_a_key_says_whose_it_is_and_what_it_may(world: World, tenant_id: UUID) -> None:
    one = await made(world, tenant_id, "products:read", "ledger:read")
    it = await found(world, one.key)
    assert (it.tenant_id, it.key_id, it.account.id) == (tenant_id, one.key_id, one.receipt.aggregate.id)
    assert it.account.scopes == ["ledger:read", "products:read"]
    assert re.fullmatch(r"bnx_[0-9A-Za-z]{92}", one.key or "")


async def test_only_the_hash_is_kept(world: World, tenant_id: UUID) -> None:
    """Whoever reads the database, or its backup, has no key."""
    one = await made(world, tenant_id)
    assert one.key is not None
    number = 0
    for character in one.key[4:-6]:
        number = number * 62 + commands._DIGITS.index(character)
    secret = number.to_bytes(64)[32:]
    with psycopg.connect(world.database.owner_url) as owner:
        kept = owner.execute("SELECT state, metadata FROM ledger.events").fetchall()
        kept += owner.execute("SELECT value, owner::text::bytea FROM ledger.secrets").fetchall()
    assert len(kept) >= 4
    for column in (bytes(each) for row in kept for each in row):
        assert secret not in column
        assert one.key.encode() not in column


@pytest.mark.parametrize("position", [4, 40, 89, 90, 95])
async def test_a_slip_of_one_character_is_told_by_the_checksum(world: World, tenant_id: UUID, position: int) -> None:
    """Without a look at the database."""
    key, _ = commands.new_key(tenant_id, ids.new_id())
    assert commands.parse(key)[0] == tenant_id
    other = "x" if key[position] != "x" else "y"
    with pytest.raises(commands.KeyInvalid):
        commands.parse(key[:position] + other + key[position + 1 :])


@pytest.mark.parametrize("key", ["bnx_", "bnx_" + "z" * 92, "bnx_" + "0" * 91, "bnx_" + "0" * 86 + "000000", "bnx_é"])
async def test_what_is_no_key_is_refused(world: World, key: str) -> None:
    with pytest.raises(commands.KeyInvalid):
        await found(world, key)


async def test_a_well_made_key_that_was_never_issued_is_refused(world: World, tenant_id: UUID) -> None:
    one = await made(world, tenant_id)
    for key_id in (ids.new_id(), one.key_id):
        with pytest.raises(commands.KeyInvalid):
            await found(world, commands.new_key(tenant_id, key_id)[0])


async def test_a_second_key_outlives_the_first(world: World, tenant_id: UUID) -> None:
    """So that a program changes its key without a gap. There are never three."""
    first = await made(world, tenant_id)
    account_id = first.receipt.aggregate.id
    second = await commands.issue_key(account_id, caller(tenant_id), world.ledger)
    with pytest.raises(service_accounts.TooManyKeys):
        await commands.issue_key(account_id, caller(tenant_id), world.ledger)
    await revoked(world, tenant_id, first)
    with pytest.raises(commands.KeyInvalid):
        await found(world, first.key)
    assert (await found(world, second.key)).key_id == second.key_id
    with pytest.raises(service_accounts.KeyUnknown):
        await revoked(world, tenant_id, first)


async def test_a_second_key_that_is_asked_for_again_is_answered(world: World, tenant_id: UUID) -> None:
    """The repeat finds two keys, as many as there can be: that is its own doing."""
    one = await made(world, tenant_id)
    who = caller(tenant_id)
    first = await commands.issue_key(one.receipt.aggregate.id, who, world.ledger)
    again = await commands.issue_key(one.receipt.aggregate.id, who, world.ledger)
    assert (again.receipt.replayed, again.key_id, again.key) == (True, first.key_id, None)


async def test_the_last_service_account_that_is_asked_for_again_is_answered(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "OPEN_MAX", 1)
    create = commands.Create(name="Auditor", scopes=["ledger:read"], may_give=["ledger:read"])
    who = caller(tenant_id)
    first, again = [await commands.make(create, who, world.ledger) for _ in range(2)]
    assert (again.receipt.replayed, again.key_id, again.key) == (True, first.key_id, None)


async def test_closing_ends_all_keys(world: World, tenant_id: UUID) -> None:
    first = await made(world, tenant_id)
    account_id = first.receipt.aggregate.id
    second = await commands.issue_key(account_id, caller(tenant_id), world.ledger)
    assert await commands.all_ids(tenant_id, world.ledger) == [account_id]
    await commands.close(commands.Close(account_id=account_id), caller(tenant_id), world.ledger)
    for key in (first.key, second.key):
        with pytest.raises(commands.KeyInvalid):
            await found(world, key)
    assert await commands.all_ids(tenant_id, world.ledger) == []
    with pytest.raises(service_accounts.ServiceAccountClosed):
        await commands.issue_key(account_id, caller(tenant_id), world.ledger)


@pytest.mark.parametrize("scopes", [("products:write",), ("ledger:read", "accounts:write")])
async def test_nobody_gives_what_they_do_not_have(world: World, tenant_id: UUID, scopes: tuple[str, ...]) -> None:
    with pytest.raises(service_accounts.ScopeUnavailable):
        await made(world, tenant_id, *scopes)


async def test_a_repeat_makes_nothing_and_shows_no_key(world: World, tenant_id: UUID) -> None:
    """A key is in no stored answer."""
    once, command_id = commands.Create(name="A", scopes=["ledger:read"], may_give=MAY_GIVE), ids.new_id()
    first = await commands.make(once, caller(tenant_id, command_id), world.ledger)
    again = await commands.make(once, caller(tenant_id, command_id), world.ledger)
    assert (again.receipt.aggregate.id, again.key_id, again.key) == (first.receipt.aggregate.id, first.key_id, None)
    assert len(await commands.all_ids(tenant_id, world.ledger)) == 1
    await found(world, first.key)


async def test_a_busy_key_is_noted_once_in_five_minutes(world: World, tenant_id: UUID) -> None:
    one = await made(world, tenant_id)
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        uses = "SELECT xmin::text, used_at FROM ledger.key_uses"
        await found(world, one.key)
        before = owner.execute(uses).fetchall()
        await found(world, one.key)
        assert owner.execute(uses).fetchall() == before
        owner.execute("UPDATE ledger.key_uses SET used_at = used_at - interval '6 minutes'")
        await found(world, one.key)
        ((_, used_at),) = owner.execute(uses).fetchall()
    assert used_at >= before[0][1]
