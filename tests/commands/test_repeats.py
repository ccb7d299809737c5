"""A command that is refused is refused again, whatever happened since; what says who asks, or that the moment was wrong, is not kept."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pyotp
import pytest

from commands import accounts as account_commands
from commands import limits, products, service_accounts, tenant_settings, transactions
from commands import tenants as tenant_commands
from commands.accounts import second_factor
from domain import refusals, tenants
from domain.service_accounts import TooManyKeys
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Ledger
from tests.ledger.test_outcomes import another_process, asking
from tests.world import World, caller

MUG = products.ListProduct(sku="MUG", name="Mug", price=Decimal("9.00"), currency="EUR")
SALE = transactions.Record(lines=[transactions.LineOrdered(quantity=1, sku="MUG")], sets_prices=False)


async def test_a_refused_sale_stays_refused_under_its_key(world: World, tenant_id: UUID) -> None:
    """And under another key, or without one, it is decided as things are."""
    asks, without = asking(tenant_id), caller(tenant_id)
    with pytest.raises(transactions.ProductUnknown) as first:
        await transactions.record(SALE, asks, world.ledger)
    with pytest.raises(transactions.ProductUnknown):
        await transactions.record(SALE, without, world.ledger)
    await products.list_product(MUG, caller(tenant_id), world.ledger)
    for _ in range(2):
        with pytest.raises(errors.RefusedBefore) as again:
            await transactions.record(SALE, asks, world.ledger)
        assert str(again.value) == str(first.value)
        assert (again.value.kept_as, again.value.fields) == ("invalid", first.value.fields)
    assert not (await transactions.record(SALE, without, world.ledger)).replayed
    other = msgspec.structs.replace(asks, command_id=ids.new_id())
    assert not (await transactions.record(SALE, other, world.ledger)).replayed


async def test_a_repeat_that_is_refused_for_another_reason_is_told_the_first_one(world: World, tenant_id: UUID) -> None:
    asks = asking(tenant_id)
    with pytest.raises(transactions.ProductUnknown) as first:
        await transactions.record(SALE, asks, world.ledger)
    mug = await products.list_product(MUG, caller(tenant_id), world.ledger)
    await products.retire(products.Retire(product_id=mug.aggregate.id), caller(tenant_id), world.ledger)
    with pytest.raises(errors.RefusedBefore) as again:
        await transactions.record(SALE, asks, world.ledger)
    assert str(again.value) == str(first.value)


async def sells(asks: Caller, ledger: Ledger) -> UUID | str:
    """The sale, or why it was refused."""
    try:
        return (await transactions.record(SALE, asks, ledger)).aggregate.id
    except (refusals.Refusal, errors.RefusedBefore) as refused:
        return str(refused)


def before(ledger: Ledger, name: str, do: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, when `ledger` is about to store what was decided."""
    as_it_is = getattr(ledger, name)

    async def waits(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(ledger, name, as_it_is)
        await do()
        return await as_it_is(*arguments, **named)

    monkeypatch.setattr(ledger, name, waits)


async def test_who_refuses_what_another_process_has_done_meanwhile_answers_as_that_one(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product is listed, and sold under the key, after the first process found none."""
    asks, told = asking(tenant_id), []
    async with another_process(world) as other:

        async def the_other() -> None:
            await products.list_product(MUG, caller(tenant_id), other)
            told.append(await sells(asks, other))

        before(world.ledger, "refuse", the_other, monkeypatch)
        told.append(await sells(asks, world.ledger))
    assert isinstance(told[0], UUID)
    assert told[1] == told[0]


async def test_who_does_what_another_process_has_refused_meanwhile_answers_as_that_one(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product is retired, and refused under the key, after the first process found it for sale."""
    asks, told = asking(tenant_id), []
    mug = await products.list_product(MUG, caller(tenant_id), world.ledger)
    async with another_process(world) as other:

        async def the_other() -> None:
            await products.retire(products.Retire(product_id=mug.aggregate.id), caller(tenant_id), other)
            told.append(await sells(asks, other))

        before(world.ledger, "append", the_other, monkeypatch)
        told.append(await sells(asks, world.ledger))
    assert "retired" in str(told[0])
    assert told[1] == told[0]


async def test_what_only_met_another_command_is_not_kept(world: World, tenant_id: UUID) -> None:
    """A version that is gone: the same key is good for the present one."""
    mug = (await products.list_product(MUG, caller(tenant_id), world.ledger)).aggregate
    asks = asking(tenant_id)
    stale = products.Reprice(product_id=mug.id, price=Decimal(8), version=7)
    with pytest.raises(errors.VersionConflict):
        await products.reprice(stale, asks, world.ledger)
    done = await products.reprice(msgspec.structs.replace(stale, version=1), asks, world.ledger)
    assert (done.aggregate.price, done.replayed) == (Decimal(8), False)


async def test_what_cannot_be_kept_is_not_told(world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told that something was refused and asks again would otherwise find it done. Of a tenant that there is not, nothing
    can be kept, and nothing will be."""

    async def is_full(*_: object) -> None:
        raise errors.Overloaded(1)

    asks = asking(tenant_id)
    with monkeypatch.context() as patch:
        patch.setattr(world.appender, "submit", is_full)
        with pytest.raises(errors.Overloaded):
            await transactions.record(SALE, asks, world.ledger)
    await products.list_product(MUG, caller(tenant_id), world.ledger)
    assert not (await transactions.record(SALE, asks, world.ledger)).replayed
    with pytest.raises(errors.NotFound):
        await tenant_settings.resume(tenant_settings.Resume(), asking(ids.new_id()), world.ledger)


async def test_a_tenants_limit_is_not_kept(world: World, shop: UUID) -> None:
    """It is answered 403; when the platform allows more, the same key is good."""
    asks, limit = asking(shop), tenant_settings.Limit(limits=tenants.Limits(users=1))
    await tenant_settings.limit(limit, caller(shop), world.ledger)
    register = account_commands.Register(email="b@shop.test", name="Bob", password="correct horse battery", role="user")
    with pytest.raises(limits.LimitReached):
        await account_commands.register(register, asks, world.ledger, world.passwords)
    await tenant_settings.limit(tenant_settings.Limit(limits=tenants.Limits(users=2)), caller(shop), world.ledger)
    assert not (await account_commands.register(register, asks, world.ledger, world.passwords)).replayed


async def test_a_slug_that_was_taken_stays_so_under_its_key(world: World, shop: UUID) -> None:
    asks = asking(tenants.PLATFORM_ID)
    create = tenant_commands.Create(
        slug="shop",
        name="Shop",
        currency="EUR",
        admin_email="a@b.test",
        admin_name="A",
        admin_password="correct horse b",
    )
    with pytest.raises(tenant_commands.SlugTaken) as first:
        await tenant_commands.create(create, asks, world.ledger, world.passwords)
    with pytest.raises(errors.RefusedBefore) as again:
        await world.ledger.recall(tenants.Registration, asks)
    assert (str(again.value), again.value.kept_as) == (str(first.value), "conflict")


async def test_a_key_too_many_stays_so_under_its_key(world: World, shop: UUID) -> None:
    """And what made the second one is answered as then, though there are two now."""
    create = service_accounts.Create(name="Till", scopes=["products:read"], may_give=["products:read"])
    account = (await service_accounts.make(create, caller(shop), world.ledger)).receipt.aggregate
    second = asking(shop)
    made = await service_accounts.issue_key(account.id, second, world.ledger)
    assert made.key is not None
    asks = msgspec.structs.replace(second, command_id=ids.new_id())
    with pytest.raises(TooManyKeys):
        await service_accounts.issue_key(account.id, asks, world.ledger)
    again = await service_accounts.issue_key(account.id, second, world.ledger)
    assert (again.receipt.replayed, again.key_id, again.key) == (True, made.key_id, None)
    revoke = service_accounts.RevokeKey(account_id=account.id, key_id=made.key_id)
    await service_accounts.revoke_key(revoke, caller(shop), world.ledger)
    with pytest.raises(errors.RefusedBefore):
        await service_accounts.issue_key(account.id, asks, world.ledger)
    assert (await service_accounts.issue_key(account.id, caller(shop), world.ledger)).key is not None


async def test_a_second_factor_that_was_not_begun_stays_so_under_its_key(world: World, shop: UUID) -> None:
    email = "admin@shop.test"
    account_id = (await world.ledger.find(shop, account_commands.EMAIL, [email]))[email]
    asks = asking(shop)
    with pytest.raises(second_factor.NotBegun):
        await second_factor.confirm(account_id, "123456", asks, world.ledger)
    enrol = second_factor.Enrol(account_id=account_id, current_password="correct horse battery")
    enrolment = await second_factor.enrol(enrol, "Shop", caller(shop), world.ledger, world.passwords)
    code = pyotp.TOTP(enrolment.secret).now()
    with pytest.raises(errors.RefusedBefore):
        await second_factor.confirm(account_id, code, asks, world.ledger)
    assert (await second_factor.confirm(account_id, code, caller(shop), world.ledger)).recovery_codes


async def test_a_command_asks_no_more_of_the_database_for_being_remembered(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is done is appended, one that is refused is stored: neither is looked up."""

    async def asked(*_: object) -> None:
        raise AssertionError

    for name in ("recall", "is_stored"):
        monkeypatch.setattr(world.ledger, name, asked)
    with pytest.raises(transactions.ProductUnknown):
        await transactions.record(SALE, asking(tenant_id), world.ledger)
    monkeypatch.setattr(world.ledger, "refuse", asked)
    await products.list_product(MUG, msgspec.structs.replace(asking(tenant_id), command_id=ids.new_id()), world.ledger)
