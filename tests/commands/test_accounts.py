"""Registering, logging in, refreshing: what is kept, and what is refused."""

import asyncio
import base64
import dataclasses
from uuid import UUID

import msgspec
import psycopg
import pytest

from commands import accounts, sessions
from commands.accounts import registering
from commands.passwords import Passwords
from domain import accounts as domain_accounts
from ledger import ids
from tests.conftest import CHEAP_ARGON2
from tests.world import World, caller

ANN = accounts.Register(email="Ann@Example.com", name="Ann", password="correct horse battery")


async def register(world: World, tenant_id: UUID) -> domain_accounts.Account:
    return (await accounts.register(ANN, caller(tenant_id), world.ledger, world.passwords)).aggregate


async def log_in(world: World, tenant_id: UUID, email: str, password: str) -> sessions.LoggedIn:
    command = accounts.LogIn(email=email, password=password)
    return await accounts.log_in(command, caller(tenant_id), world.ledger, world.passwords)


async def test_who_registered_logs_in_however_the_address_is_written(world: World, tenant_id: UUID) -> None:
    account = await register(world, tenant_id)
    logged_in = await log_in(world, tenant_id, " ANN@example.COM ", ANN.password)
    assert (logged_in.account.id, logged_in.session.aggregate.account_id) == (account.id, account.id)


async def test_a_wrong_password_and_an_unknown_address_are_refused_alike(world: World, tenant_id: UUID) -> None:
    await register(world, tenant_id)
    with pytest.raises(accounts.CredentialsWrong):
        await log_in(world, tenant_id, ANN.email, "wrong horse battery")
    with pytest.raises(accounts.CredentialsWrong):
        await log_in(world, tenant_id, "bob@example.com", ANN.password)


@pytest.mark.parametrize(("email", "password"), [("no address", ANN.password), (ANN.email, "\ud800" * 10)])
async def test_what_can_be_no_account_is_refused_like_a_wrong_password(
    world: World, tenant_id: UUID, email: str, password: str
) -> None:
    await register(world, tenant_id)
    with pytest.raises(accounts.CredentialsWrong):
        await log_in(world, tenant_id, email, password)


async def test_a_password_that_is_too_short_opens_no_account(world: World, tenant_id: UUID) -> None:
    short = msgspec.structs.replace(ANN, password="short")
    with pytest.raises(domain_accounts.PasswordLengthWrong):
        await accounts.register(short, caller(tenant_id), world.ledger, world.passwords)
    assert (await world.ledger.head(tenant_id)).position == 0


async def test_the_same_address_in_another_tenant_is_another_account(world: World, tenant_id: UUID) -> None:
    """Whoever belongs to one tenant must not get into another by it."""
    other = ids.new_id()
    await world.ledger.open_stream(other)
    here = await register(world, tenant_id)
    elsewhere = msgspec.structs.replace(ANN, password="another password")
    there = (await accounts.register(elsewhere, caller(other), world.ledger, world.passwords)).aggregate
    assert (here.tenant_id, there.tenant_id) == (tenant_id, other)
    assert here.id != there.id
    with pytest.raises(accounts.CredentialsWrong):
        await log_in(world, other, ANN.email, ANN.password)
    token = (await log_in(world, tenant_id, ANN.email, ANN.password)).refresh_token
    with pytest.raises(sessions.RefreshTokenInvalid):
        await sessions.refresh(token, sessions.Device(), caller(other), world.ledger)


async def test_logging_in_strengthens_a_hash_that_was_made_with_less(world: World, tenant_id: UUID) -> None:
    """What was right years ago must not stay in the database for ever."""
    account = await register(world, tenant_id)
    before = await world.ledger.secret(tenant_id, account.id, accounts.PASSWORD)
    dearer = Passwords(dataclasses.replace(CHEAP_ARGON2, time_cost=2))
    for _ in range(2):
        await accounts.log_in(
            accounts.LogIn(email=ANN.email, password=ANN.password), caller(tenant_id), world.ledger, dearer
        )
    dearer.close()
    after = await world.ledger.secret(tenant_id, account.id, accounts.PASSWORD)
    assert before is not None
    assert after is not None
    assert (b"t=1" in before, b"t=2" in after) == (True, True)
    await log_in(world, tenant_id, ANN.email, ANN.password)
    assert await world.ledger.secret(tenant_id, account.id, accounts.PASSWORD) == after


async def test_strengthening_never_brings_an_old_password_back(world: World, tenant_id: UUID) -> None:
    """It may be changed between the check and the new hash."""
    account = await register(world, tenant_id)
    seen = await world.ledger.secret(tenant_id, account.id, accounts.PASSWORD)
    assert seen is not None
    changed = await world.passwords.hash("another password")
    assert await world.ledger.replace_secret(tenant_id, account.id, accounts.PASSWORD, seen, changed)
    dearer = Passwords(dataclasses.replace(CHEAP_ARGON2, time_cost=2))
    await registering.strengthen(account.id, ANN.password, seen, tenant_id, world.ledger, dearer)
    dearer.close()
    assert await world.ledger.secret(tenant_id, account.id, accounts.PASSWORD) == changed


async def test_an_address_that_is_taken_costs_no_hash(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 ms of a core for each try would be a way to stop everybody else."""
    await register(world, tenant_id)
    monkeypatch.setattr(world.passwords, "hash", None)
    with pytest.raises(accounts.EmailTaken):
        await register(world, tenant_id)


async def test_of_two_registrations_at_once_one_wins(world: World, tenant_id: UUID) -> None:
    outcomes = await asyncio.gather(register(world, tenant_id), register(world, tenant_id), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, accounts.EmailTaken)]
    assert len(refused) == 1
    assert (await world.ledger.head(tenant_id)).position == 1


async def test_no_password_and_no_token_is_in_the_stream(world: World, tenant_id: UUID) -> None:
    await register(world, tenant_id)
    logged_in = await log_in(world, tenant_id, ANN.email, ANN.password)
    stored = b"".join(e.state + e.metadata for e in await world.ledger.entries(tenant_id, 0, 100))
    for secret in (ANN.password, "argon2", logged_in.refresh_token, "example.com"):
        assert secret.encode() not in stored


async def test_what_is_kept_of_passwords_and_tokens_opens_nothing(world: World, tenant_id: UUID) -> None:
    """Whoever reads a backup must not be able to log in with it."""
    await register(world, tenant_id)
    token = (await log_in(world, tenant_id, ANN.email, ANN.password)).refresh_token
    with psycopg.connect(world.database.owner_url) as owner:
        kept = [bytes(value) for (value,) in owner.execute("SELECT value FROM ledger.secrets")]
    assert len(kept) == 2
    for secret in (ANN.password.encode(), token.encode(), base64.urlsafe_b64decode(token + "==")[32:]):
        assert not any(secret in value for value in kept)
