"""The catalogue through its handlers, on a real ledger."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from uuid import UUID

import pytest

from commands import products, repeats
from domain import money, tenants
from domain import products as domain_products
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Ledger, Receipt
from tests.world import World, caller

MUG = products.ListProduct(sku="MUG", name="Mug", price=Decimal("9.00"), currency="EUR")

Change = Callable[[UUID, int | None, Caller, Ledger], Awaitable[Receipt[domain_products.Product]]]


def rename(
    product_id: UUID, version: int | None, who: Caller, ledger: Ledger
) -> Awaitable[Receipt[domain_products.Product]]:
    return products.rename(products.Rename(product_id=product_id, name="Cup"), who, ledger)


def reprice(
    product_id: UUID, version: int | None, who: Caller, ledger: Ledger
) -> Awaitable[Receipt[domain_products.Product]]:
    return products.reprice(products.Reprice(product_id=product_id, price=Decimal(8), version=version), who, ledger)


def revise(
    product_id: UUID, version: int | None, who: Caller, ledger: Ledger
) -> Awaitable[Receipt[domain_products.Product]]:
    return products.revise(products.Revise(product_id=product_id, price=Decimal(8), version=version), who, ledger)


def retire(
    product_id: UUID, version: int | None, who: Caller, ledger: Ledger
) -> Awaitable[Receipt[domain_products.Product]]:
    return products.retire(products.Retire(product_id=product_id, version=version), who, ledger)


async def list_mug(world: World, tenant_id: UUID) -> domain_products.Product:
    return (await products.list_product(MUG, caller(tenant_id), world.ledger)).aggregate


async def load(world: World, tenant_id: UUID, product_id: UUID) -> domain_products.Product:
    return await world.ledger.load(domain_products.Product, tenant_id, product_id)


async def test_a_product_is_listed_with_all_that_was_said(world: World, tenant_id: UUID) -> None:
    command = products.ListProduct(
        sku="MUG",
        name="Mug",
        price=Decimal("9.00"),
        currency="USD",
        description="Holds tea.",
        category="kitchen",
        metadata={"w": 1},
    )
    made = (await products.list_product(command, caller(tenant_id), world.ledger)).aggregate
    found = await load(world, tenant_id, made.id)
    assert (found.tenant_id, found.sku, found.name, found.price) == (tenant_id, "MUG", "Mug", Decimal("9.00"))
    assert (found.currency, found.description, found.category) == ("USD", "Holds tea.", "kitchen")
    assert found.metadata == {"w": 1}


async def test_a_price_is_in_the_tenants_currency_unless_it_says_otherwise(world: World, tenant_id: UUID) -> None:
    tenant = tenants.create(id=tenant_id, slug="shop", name="Shop", currency="GBP")
    await world.ledger.append(caller(tenant_id), tenant)
    command = products.ListProduct(sku="MUG", name="Mug", price=Decimal(9))
    listed = (await products.list_product(command, caller(tenant_id), world.ledger)).aggregate
    assert listed.currency == "GBP"


async def test_a_taken_sku_says_whose_it_is_also_after_its_product_was_retired(world: World, tenant_id: UUID) -> None:
    """It names that product in what was sold."""
    mug = await list_mug(world, tenant_id)
    for _ in range(2):
        with pytest.raises(products.SkuTaken) as refused:
            await list_mug(world, tenant_id)
        assert refused.value.product_id == mug.id
        await retire(mug.id, None, caller(tenant_id), world.ledger)


async def test_a_repeated_listing_is_not_told_that_its_own_sku_is_taken(world: World, tenant_id: UUID) -> None:
    command_id = ids.new_id()
    first = await products.list_product(MUG, caller(tenant_id, command_id), world.ledger)
    again = await products.list_product(MUG, caller(tenant_id, command_id), world.ledger)
    assert again.aggregate.id == first.aggregate.id


async def test_each_change_is_recorded(world: World, tenant_id: UUID) -> None:
    mug = await list_mug(world, tenant_id)
    await rename(mug.id, None, caller(tenant_id), world.ledger)
    await reprice(mug.id, None, caller(tenant_id), world.ledger)
    found = await load(world, tenant_id, mug.id)
    assert (found.name, found.price, found.status) == ("Cup", Decimal(8), "listed")
    await products.revise(
        products.Revise(product_id=mug.id, name="Beaker", price=Decimal(7)), caller(tenant_id), world.ledger
    )
    await retire(mug.id, None, caller(tenant_id), world.ledger)
    found = await load(world, tenant_id, mug.id)
    assert (found.name, found.price, found.status) == ("Beaker", Decimal(7), "retired")


async def test_what_a_revision_does_not_name_stays_as_it_is(world: World, tenant_id: UUID) -> None:
    mug = await list_mug(world, tenant_id)
    for command in (
        products.Revise(product_id=mug.id, name="Cup"),
        products.Revise(product_id=mug.id, price=Decimal(8)),
    ):
        await products.revise(command, caller(tenant_id), world.ledger)
    found = await load(world, tenant_id, mug.id)
    assert (found.name, found.price, found.version) == ("Cup", Decimal(8), 3)


async def test_a_revision_is_recorded_whole_or_not_at_all(world: World, tenant_id: UUID) -> None:
    mug = await list_mug(world, tenant_id)
    command = products.Revise(product_id=mug.id, name="Cup", price=Decimal(-1))
    with pytest.raises(money.PriceNegative):
        await products.revise(command, caller(tenant_id), world.ledger)
    assert (await load(world, tenant_id, mug.id)).name == "Mug"


@pytest.mark.parametrize("change", [reprice, revise, retire])
async def test_a_change_decided_on_an_old_version_is_refused(world: World, tenant_id: UUID, change: Change) -> None:
    """Two admins at once: the second must not overwrite what the first one did without having seen it."""
    mug = await list_mug(world, tenant_id)
    await rename(mug.id, None, caller(tenant_id), world.ledger)
    for version in (1, 3):
        with pytest.raises(errors.VersionConflict):
            await change(mug.id, version, caller(tenant_id), world.ledger)
    assert (await world.ledger.head(tenant_id)).position == 2
    await change(mug.id, 2, caller(tenant_id), world.ledger)
    assert (await world.ledger.head(tenant_id)).position == 3


@pytest.mark.parametrize("change", [rename, reprice, revise, retire])
async def test_a_repeated_change_gets_its_first_answer_although_others_went_on(
    world: World, tenant_id: UUID, change: Change
) -> None:
    """A client that lost the answer must not be told that the product is retired, or its version gone."""
    mug = await list_mug(world, tenant_id)
    command_id = ids.new_id()
    first = await change(mug.id, 1, caller(tenant_id, command_id), world.ledger)
    await retire(mug.id, None, caller(tenant_id), world.ledger)
    again = await change(mug.id, 1, caller(tenant_id, command_id), world.ledger)
    assert (again.replayed, again.position, again.aggregate.version) == (True, first.position, 2)


@pytest.mark.parametrize("change", [rename, reprice, revise, retire])
async def test_another_tenants_product_is_not_found(world: World, tenant_id: UUID, change: Change) -> None:
    mug = await list_mug(world, tenant_id)
    other = ids.new_id()
    await world.ledger.open_stream(other)
    with pytest.raises(errors.NotFound):
        await change(mug.id, None, caller(other), world.ledger)
    assert (await load(world, tenant_id, mug.id)).version == 1


async def test_commands_that_only_met_each_other_are_all_done(world: World, tenant_id: UUID) -> None:
    """Two clerks change one product at the same moment, neither says which version they saw: nobody is told to try again."""
    product = (await products.list_product(MUG, caller(tenant_id), world.ledger)).aggregate
    names = [f"Mug {n}" for n in range(4)]
    changes = [products.Rename(product_id=product.id, name=name) for name in names]
    receipts = await asyncio.gather(*(products.rename(each, caller(tenant_id), world.ledger) for each in changes))
    assert sorted(receipt.aggregate.version for receipt in receipts) == [2, 3, 4, 5]


async def test_a_command_that_names_a_version_is_not_decided_again(world: World, tenant_id: UUID) -> None:
    """The price was decided upon what the clerk saw."""
    product = (await products.list_product(MUG, caller(tenant_id), world.ledger)).aggregate
    changes = [products.Reprice(product_id=product.id, price=Decimal(n), version=1) for n in range(5, 9)]
    found = await asyncio.gather(
        *(products.reprice(each, caller(tenant_id), world.ledger) for each in changes), return_exceptions=True
    )
    assert sum(isinstance(each, errors.VersionConflict) for each in found) == 3
    assert (await world.ledger.load(domain_products.Product, tenant_id, product.id)).version == 2


async def test_deciding_again_has_a_bound(world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "DECIDED_MAX", 1)
    product = (await products.list_product(MUG, caller(tenant_id), world.ledger)).aggregate
    changes = [products.Rename(product_id=product.id, name=f"Mug {n}") for n in range(4)]
    found = await asyncio.gather(
        *(products.rename(each, caller(tenant_id), world.ledger) for each in changes), return_exceptions=True
    )
    assert sum(isinstance(each, errors.VersionConflict) for each in found) == 3
