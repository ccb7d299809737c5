"""Registering, logging in, refreshing: what is kept, and what is refused."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from commands import accounts, tenants
from domain import accounts as domain_accounts
from domain import tenants as domain_tenants
from ledger.caller import Caller
from tests.world import World, caller

ANN = accounts.Register(email="Ann@Example.com", name="Ann", password="correct horse battery")


async def register(world: World, tenant_id: UUID) -> domain_accounts.Account:
    return (await accounts.register(ANN, caller(tenant_id), world.ledger, world.passwords)).aggregate


async def log_in(world: World, tenant_id: UUID, email: str, password: str) -> accounts.LoggedIn:
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


async def test_a_refresh_token_is_good_once(world: World, tenant_id: UUID) -> None:
    await register(world, tenant_id)
    logged_in = await log_in(world, tenant_id, ANN.email, ANN.password)
    assert accounts.tenant_of(logged_in.refresh_token) == tenant_id
    renewed = await accounts.refresh(logged_in.refresh_token, caller(tenant_id), world.ledger)
    assert renewed.session.aggregate.id == logged_in.session.aggregate.id
    with pytest.raises(accounts.RefreshTokenInvalid):
        await accounts.refresh(logged_in.refresh_token, caller(tenant_id), world.ledger)
    await accounts.refresh(renewed.refresh_token, caller(tenant_id), world.ledger)


async def test_logging_out_ends_the_refresh_token(world: World, tenant_id: UUID) -> None:
    await register(world, tenant_id)
    logged_in = await log_in(world, tenant_id, ANN.email, ANN.password)
    await accounts.log_out(logged_in.session.aggregate.id, caller(tenant_id), world.ledger)
    with pytest.raises(accounts.RefreshTokenInvalid):
        await accounts.refresh(logged_in.refresh_token, caller(tenant_id), world.ledger)


@pytest.mark.parametrize("token", ["", "x", "ä", "A" * 86, "=" * 86, "A" * 100_000])
async def test_what_is_no_refresh_token_is_refused(world: World, tenant_id: UUID, token: str) -> None:
    with pytest.raises(accounts.RefreshTokenInvalid):
        await accounts.refresh(token, caller(tenant_id), world.ledger)


SHOP = tenants.Create(
    slug="shop", name="Shop", currency="EUR", admin_email="a@shop.example", admin_name="A", admin_password="long enough"
)


async def test_a_tenant_is_created_with_its_admin_and_found_by_its_slug(world: World) -> None:
    await tenants.ensure_platform(world.ledger)
    await tenants.ensure_platform(world.ledger)
    receipt = await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)
    assert await tenants.find("shop", world.ledger) == receipt.aggregate.id
    logged_in = await log_in(world, receipt.aggregate.id, "a@shop.example", "long enough")
    assert logged_in.account.role == "admin"
    with pytest.raises(tenants.SlugTaken):
        await tenants.create(SHOP, _platform_caller(), world.ledger, world.passwords)
    with pytest.raises(tenants.SlugUnknown):
        await tenants.find("nobody", world.ledger)


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


def _platform_caller() -> Caller:
    return caller(domain_tenants.PLATFORM_ID)
