"""Sales and refunds through their handlers, on a real ledger."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from commands import accounts, privacy, products, transactions
from domain import refusals
from domain import transactions as domain_transactions
from ledger import errors, ids
from tests.world import World, caller

MUG = products.ListProduct(sku="MUG", name="Mug", price=Decimal("9.00"), currency="EUR")
THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def sale(**changes: object) -> transactions.Record:
    given: dict[str, object] = {"lines": [transactions.LineOrdered(sku="MUG", quantity=3)], "sets_prices": False}
    return transactions.Record(**{**given, **changes})  # type: ignore[arg-type]  # each test names the right types


async def list_mug(world: World, tenant_id: UUID) -> UUID:
    return (await products.list_product(MUG, caller(tenant_id), world.ledger)).aggregate.id


def unmatched(**changes: object) -> transactions.RecordRefund:
    line = transactions.LineOrdered(sku="MUG", quantity=2, unit_price=Decimal("8.50"))
    given: dict[str, object] = {"lines": [line], "currency": "EUR"}
    return transactions.RecordRefund(**{**given, **changes})  # type: ignore[arg-type]  # as above


async def register(world: World, tenant_id: UUID, name: str = "ann") -> UUID:
    command = accounts.Register(email=f"{name}@example.com", name=name, password="correct horse battery")
    return (await accounts.register(command, caller(tenant_id), world.ledger, world.passwords)).aggregate.id


async def another_tenant(world: World) -> UUID:
    other = ids.new_id()
    await world.ledger.open_stream(other)
    return other


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


async def test_who_may_not_set_prices_cannot_choose_what_the_price_is_in(world: World, tenant_id: UUID) -> None:
    """9 yen are less than 9 euros."""
    await list_mug(world, tenant_id)
    in_yen = [transactions.LineOrdered(sku="MUG", quantity=1, unit_price=Decimal("9"))]
    for lines in (in_yen, [transactions.LineOrdered(sku="MUG", quantity=1)]):
        with pytest.raises(domain_transactions.CurrencyMixed):
            await transactions.record(sale(lines=lines, currency="JPY"), caller(tenant_id), world.ledger)


async def test_another_currency_takes_a_price_in_it(world: World, tenant_id: UUID) -> None:
    await list_mug(world, tenant_id)
    dollars = [transactions.LineOrdered(sku="MUG", quantity=1, unit_price=Decimal("9.99"))]
    command = sale(lines=dollars, currency="USD", sets_prices=True)
    sold = (await transactions.record(command, caller(tenant_id), world.ledger)).aggregate
    assert (sold.currency, sold.amount_minor) == ("USD", 999)
    with pytest.raises(domain_transactions.CurrencyMixed):
        await transactions.record(sale(currency="USD", sets_prices=True), caller(tenant_id), world.ledger)


async def test_a_sale_is_recorded_with_all_that_was_said(world: World, tenant_id: UUID) -> None:
    product_id = await list_mug(world, tenant_id)
    ann, bob = [await register(world, tenant_id, name) for name in ("ann", "bob")]
    command = sale(
        lines=[transactions.LineOrdered(product_id=product_id, sku="IGNORED", quantity=1)],
        buyer_id=ann,
        buyer_ref=" 17850 ",
        affiliate_id=bob,
        source="shop",
        external_id="1",
        occurred_at=THEN,
        metadata={"till": 3},
    )
    made = (await transactions.record(command, caller(tenant_id), world.ledger)).aggregate
    sold = await world.ledger.load(domain_transactions.Transaction, tenant_id, made.id)
    assert (sold.tenant_id, sold.buyer_id, sold.buyer_ref, sold.affiliate_id) == (tenant_id, ann, "17850", bob)
    assert (sold.source, sold.external_id, sold.occurred_at, sold.metadata) == ("shop", "1", THEN, {"till": 3})
    assert sold.lines[0].sku == "MUG"


async def test_a_buyer_is_the_same_however_the_reference_is_written(world: World, tenant_id: UUID) -> None:
    """Else erasing the buyer would leave half of the sales in clear."""
    await list_mug(world, tenant_id)
    subjects = {
        (await transactions.record(sale(buyer_ref=ref), caller(tenant_id), world.ledger)).aggregate.buyer_subject_id
        for ref in ("17850", " 17850 ")
    }
    refunded = await transactions.record_refund(unmatched(buyer_ref="17850 "), caller(tenant_id), world.ledger)
    assert subjects == {refunded.aggregate.buyer_subject_id}


async def test_a_repeated_refund_of_somebody_who_was_erased_makes_nobody_known(world: World, tenant_id: UUID) -> None:
    """Who was forgotten would be known again, without anything that anybody would ask to have erased."""
    asks = caller(tenant_id, fingerprint=b"of the request")
    command = unmatched(buyer_ref="17850")
    first = await transactions.record_refund(command, asks, world.ledger)
    await privacy.erase(privacy.Erase(buyer_ref="17850"), caller(tenant_id), world.ledger, privacy.noted_nowhere)
    again = await transactions.record_refund(command, asks, world.ledger)
    assert (again.replayed, again.aggregate.id, again.position) == (True, first.aggregate.id, first.position)
    assert await world.ledger.known_subject(tenant_id, transactions.BUYER, "17850") is None


async def test_a_sku_is_found_with_blanks_around_it(world: World, tenant_id: UUID) -> None:
    product_id = await list_mug(world, tenant_id)
    blank = [transactions.LineOrdered(sku=" MUG ", quantity=1, unit_price=Decimal("9.00"))]
    sold = await transactions.record(sale(lines=blank), caller(tenant_id), world.ledger)
    refunded = await transactions.record_refund(unmatched(lines=blank), caller(tenant_id), world.ledger)
    assert [each.aggregate.lines[0].product_id for each in (sold, refunded)] == [product_id, product_id]


async def test_a_sale_of_nothing_is_refused(world: World, tenant_id: UUID) -> None:
    with pytest.raises(domain_transactions.LineCountOutOfRange):
        await transactions.record(sale(lines=[]), caller(tenant_id), world.ledger)


async def test_a_line_that_names_no_product_is_refused(world: World, tenant_id: UUID) -> None:
    nameless = [transactions.LineOrdered(quantity=1, unit_price=Decimal(1))]
    with pytest.raises(transactions.ProductNotNamed):
        await transactions.record(sale(lines=nameless), caller(tenant_id), world.ledger)
    with pytest.raises(transactions.ProductNotNamed):
        await transactions.record_refund(unmatched(lines=nameless), caller(tenant_id), world.ledger)


async def test_nothing_of_another_tenant_can_be_sold_or_refunded(world: World, tenant_id: UUID) -> None:
    product_id = await list_mug(world, tenant_id)
    sold = (await transactions.record(sale(), caller(tenant_id), world.ledger)).aggregate
    other = await another_tenant(world)
    for named in ({"sku": "MUG"}, {"product_id": product_id}):
        lines = [transactions.LineOrdered(quantity=1, **named)]
        with pytest.raises(transactions.ProductUnknown):
            await transactions.record(sale(lines=lines), caller(other), world.ledger)
    with pytest.raises(errors.NotFound):
        await transactions.refund(transactions.Refund(transaction_id=sold.id), caller(other), world.ledger)
    assert (await world.ledger.head(other)).position == 0


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


async def test_the_same_external_refund_is_recorded_once(world: World, tenant_id: UUID) -> None:
    """Of a known sale or not: an import that is run again must not give money back twice."""
    await list_mug(world, tenant_id)
    sold = (await transactions.record(sale(), caller(tenant_id), world.ledger)).aggregate
    one = [transactions.RefundLineOrdered(line_id=1, quantity=1)]
    matched = transactions.Refund(transaction_id=sold.id, lines=one, source="shop", external_id="C1")
    made = (await transactions.refund(matched, caller(tenant_id), world.ledger)).aggregate
    with pytest.raises(transactions.ExternalIdTaken) as refused:
        await transactions.refund(matched, caller(tenant_id), world.ledger)
    assert refused.value.owner == next(iter(made.refunds))
    alone = unmatched(source="shop", external_id="C2")
    first = (await transactions.record_refund(alone, caller(tenant_id), world.ledger)).aggregate
    with pytest.raises(transactions.ExternalIdTaken) as refused:
        await transactions.record_refund(alone, caller(tenant_id), world.ledger)
    assert refused.value.owner == first.id
    assert (await world.ledger.head(tenant_id)).position == 4


async def test_a_refund_is_recorded_with_all_that_was_said(world: World, tenant_id: UUID) -> None:
    await list_mug(world, tenant_id)
    sold = (await transactions.record(sale(), caller(tenant_id), world.ledger)).aggregate
    command = transactions.Refund(
        transaction_id=sold.id, reason="cracked", source="shop", external_id="C1", occurred_at=THEN
    )
    await transactions.refund(command, caller(tenant_id), world.ledger)
    found = await world.ledger.load(domain_transactions.Transaction, tenant_id, sold.id)
    (made,) = found.refunds.values()
    assert (made.reason, made.source, made.external_id, made.occurred_at) == ("cracked", "shop", "C1", THEN)
    assert found.left(1) == 0


async def test_a_repeated_sale_gets_its_first_answer_although_the_product_is_gone(
    world: World, tenant_id: UUID
) -> None:
    product_id, asks = await list_mug(world, tenant_id), caller(tenant_id)
    first = await transactions.record(sale(), asks, world.ledger)
    await products.retire(products.Retire(product_id=product_id), caller(tenant_id), world.ledger)
    again = await transactions.record(sale(), asks, world.ledger)
    assert (again.replayed, again.aggregate.id) == (True, first.aggregate.id)


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


async def test_a_refund_without_its_sale_stands_on_its_own(world: World, tenant_id: UUID) -> None:
    product_id = await list_mug(world, tenant_id)
    command = unmatched(
        currency="USD", buyer_ref="17850", source="shop", external_id="C536379", reason="cracked", occurred_at=THEN
    )
    made = (await transactions.record_refund(command, caller(tenant_id), world.ledger)).aggregate
    found = await world.ledger.load(domain_transactions.Refund, tenant_id, made.id)
    (line,) = found.lines
    assert (line.product_id, line.amount_minor, found.buyer_ref) == (product_id, 1700, "17850")
    assert (found.tenant_id, found.currency, found.reason, found.occurred_at) == (tenant_id, "USD", "cracked", THEN)
    assert (found.source, found.external_id) == ("shop", "C536379")


async def test_what_is_refunded_without_its_sale_may_be_retired_or_unknown_here(world: World, tenant_id: UUID) -> None:
    """Without a price it takes the catalogue's, if the product is there."""
    product_id = await list_mug(world, tenant_id)
    await products.retire(products.Retire(product_id=product_id), caller(tenant_id), world.ledger)
    lines = [
        transactions.LineOrdered(product_id=product_id, quantity=1),
        transactions.LineOrdered(sku="OLD", quantity=1, unit_price=Decimal(0)),
    ]
    made = (await transactions.record_refund(unmatched(lines=lines), caller(tenant_id), world.ledger)).aggregate
    found = [(line.product_id, line.sku, line.amount_minor) for line in made.lines]
    assert found == [(product_id, "MUG", 900), (None, "OLD", 0)]
    priceless = unmatched(lines=[transactions.LineOrdered(sku="OLD", quantity=1)])
    with pytest.raises(transactions.ProductUnknown):
        await transactions.record_refund(priceless, caller(tenant_id), world.ledger)


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
    """Nor to somebody of another tenant, nor to a product."""
    product_id, other = await list_mug(world, tenant_id), await another_tenant(world)
    for nobody in (ids.new_id(), await register(world, other), product_id):
        with pytest.raises(transactions.AccountUnknown) as refused:
            await transactions.record(sale(**{field: nobody}), caller(tenant_id), world.ledger)
        assert list(refused.value.fields) == [field]


@pytest.mark.parametrize("field", ["buyer_id", "affiliate_id"])
async def test_nothing_more_is_recorded_about_somebody_who_was_erased(
    world: World, tenant_id: UUID, field: str
) -> None:
    await list_mug(world, tenant_id)
    account_id = await register(world, tenant_id)
    await transactions.record(sale(**{field: account_id}), caller(tenant_id), world.ledger)
    erase = privacy.Erase(account_id=account_id)
    await privacy.erase(erase, caller(tenant_id), world.ledger, privacy.noted_nowhere)
    with pytest.raises(transactions.AccountUnknown):
        await transactions.record(sale(**{field: account_id}), caller(tenant_id), world.ledger)


@pytest.mark.parametrize("price", ["NaN", "sNaN", "Infinity", "-1", "1E-7"])
async def test_what_is_no_price_is_refused_whoever_asks(world: World, tenant_id: UUID, price: str) -> None:
    await list_mug(world, tenant_id)
    wrong = [transactions.LineOrdered(sku="MUG", quantity=1, unit_price=Decimal(price))]
    for sets_prices in (False, True):
        with pytest.raises(refusals.Invalid):
            await transactions.record(sale(lines=wrong, sets_prices=sets_prices), caller(tenant_id), world.ledger)
