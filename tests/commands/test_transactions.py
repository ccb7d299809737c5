"""Sales and refunds through their handlers, on a real ledger."""

from decimal import Decimal
from uuid import UUID

import pytest

from commands import products, transactions
from domain import refusals
from domain import transactions as domain_transactions
from ledger import errors, ids
from tests.world import World, caller

MUG = products.ListProduct(sku="MUG", name="Mug", price=Decimal("9.00"), currency="EUR")


def sale(**changes: object) -> transactions.Record:
    given: dict[str, object] = {"lines": [transactions.LineOrdered(sku="MUG", quantity=3)], "sets_prices": False}
    return transactions.Record(**{**given, **changes})  # type: ignore[arg-type]  # each test names the right types


async def list_mug(world: World, tenant_id: UUID) -> UUID:
    return (await products.list_product(MUG, caller(tenant_id), world.ledger)).aggregate.id


async def test_a_sale_takes_the_catalogues_price(world: World, tenant_id: UUID) -> None:
    product_id = await list_mug(world, tenant_id)
    receipt = await transactions.record(sale(), caller(tenant_id), world.ledger)
    (line,) = receipt.aggregate.lines
    assert (line.product_id, line.sku, line.unit_price, line.amount_minor) == (product_id, "MUG", Decimal("9.00"), 2700)
    assert (receipt.aggregate.currency, receipt.position) == ("EUR", 2)


async def test_who_may_not_set_prices_cannot_buy_cheaper(world: World, tenant_id: UUID) -> None:
    await list_mug(world, tenant_id)
    cheap = [transactions.LineOrdered(sku="MUG", quantity=1, unit_price=Decimal("0.01"))]
    with pytest.raises(transactions.PriceNotTheCatalogues):
        await transactions.record(sale(lines=cheap), caller(tenant_id), world.ledger)
    receipt = await transactions.record(sale(lines=cheap, sets_prices=True), caller(tenant_id), world.ledger)
    assert receipt.aggregate.amount_minor == 1


async def test_an_unknown_product_is_named(world: World, tenant_id: UUID) -> None:
    with pytest.raises(transactions.ProductUnknown) as refused:
        await transactions.record(sale(), caller(tenant_id), world.ledger)
    assert list(refused.value.fields) == ["lines.0"]


async def test_a_retired_product_is_not_sold(world: World, tenant_id: UUID) -> None:
    product_id = await list_mug(world, tenant_id)
    await products.retire(products.Retire(product_id=product_id), caller(tenant_id), world.ledger)
    with pytest.raises(transactions.ProductNotSold):
        await transactions.record(sale(), caller(tenant_id), world.ledger)


async def test_the_same_external_id_is_recorded_once(world: World, tenant_id: UUID) -> None:
    await list_mug(world, tenant_id)
    imported = sale(source="shop", external_id="536365")
    first = await transactions.record(imported, caller(tenant_id), world.ledger)
    with pytest.raises(transactions.ExternalIdTaken) as refused:
        await transactions.record(imported, caller(tenant_id), world.ledger)
    assert refused.value.owner == first.aggregate.id
    elsewhere = await transactions.record(sale(source="other", external_id="536365"), caller(tenant_id), world.ledger)
    assert elsewhere.aggregate.id != first.aggregate.id


async def test_a_repeated_refund_of_all_gets_its_first_answer(world: World, tenant_id: UUID) -> None:
    """The second sending finds nothing left, which is its own doing."""
    await list_mug(world, tenant_id)
    sold = (await transactions.record(sale(), caller(tenant_id), world.ledger)).aggregate
    refund, command_id = transactions.Refund(transaction_id=sold.id), ids.new_id()
    first = await transactions.refund(refund, caller(tenant_id, command_id, b"all"), world.ledger)
    again = await transactions.refund(refund, caller(tenant_id, command_id, b"all"), world.ledger)
    assert (again.replayed, again.position, again.aggregate.refunds) == (True, first.position, first.aggregate.refunds)
    with pytest.raises(domain_transactions.NothingLeft):
        await transactions.refund(refund, caller(tenant_id), world.ledger)
    with pytest.raises(errors.CommandIdReused):
        await transactions.refund(refund, caller(tenant_id, command_id, b"else"), world.ledger)


async def test_a_repeated_listing_is_not_told_that_its_own_sku_is_taken(world: World, tenant_id: UUID) -> None:
    command_id = ids.new_id()
    first = await products.list_product(MUG, caller(tenant_id, command_id), world.ledger)
    again = await products.list_product(MUG, caller(tenant_id, command_id), world.ledger)
    assert again.aggregate.id == first.aggregate.id
    with pytest.raises(products.SkuTaken):
        await products.list_product(MUG, caller(tenant_id), world.ledger)


async def test_a_refund_without_its_sale_stands_on_its_own(world: World, tenant_id: UUID) -> None:
    product_id = await list_mug(world, tenant_id)
    command = transactions.RecordRefund(
        lines=[transactions.LineOrdered(sku="MUG", quantity=2, unit_price=Decimal("8.50"))],
        currency="EUR",
        buyer_ref="17850",
        source="shop",
        external_id="C536379",
    )
    receipt = await transactions.record_refund(command, caller(tenant_id), world.ledger)
    (line,) = receipt.aggregate.lines
    assert (line.product_id, line.amount_minor, receipt.aggregate.buyer_ref) == (product_id, 1700, "17850")


async def test_a_refund_decided_on_an_old_version_is_refused(world: World, tenant_id: UUID) -> None:
    await list_mug(world, tenant_id)
    sold = (await transactions.record(sale(), caller(tenant_id), world.ledger)).aggregate
    one = [transactions.RefundLineOrdered(line_id=1, quantity=1)]
    decided = transactions.Refund(transaction_id=sold.id, lines=one, version=1)
    await transactions.refund(decided, caller(tenant_id), world.ledger)
    with pytest.raises(errors.VersionConflict):
        await transactions.refund(decided, caller(tenant_id), world.ledger)
    assert (await world.ledger.load(domain_transactions.Transaction, tenant_id, sold.id)).left(1) == 2


@pytest.mark.parametrize("field", ["buyer_id", "affiliate_id"])
async def test_a_commission_cannot_go_to_somebody_who_does_not_exist(world: World, tenant_id: UUID, field: str) -> None:
    """Nor to somebody of another tenant."""
    await list_mug(world, tenant_id)
    with pytest.raises(transactions.AccountUnknown) as refused:
        await transactions.record(sale(**{field: ids.new_id()}), caller(tenant_id), world.ledger)
    assert list(refused.value.fields) == [field]


@pytest.mark.parametrize("price", ["NaN", "sNaN", "Infinity", "-1", "1E-7"])
async def test_what_is_no_price_is_refused_whoever_asks(world: World, tenant_id: UUID, price: str) -> None:
    await list_mug(world, tenant_id)
    wrong = [transactions.LineOrdered(sku="MUG", quantity=1, unit_price=Decimal(price))]
    for sets_prices in (False, True):
        with pytest.raises(refusals.Invalid):
            await transactions.record(sale(lines=wrong, sets_prices=sets_prices), caller(tenant_id), world.ledger)
