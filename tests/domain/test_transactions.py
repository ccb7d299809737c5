"""Sales: what may be recorded, and for how much."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from domain import external, instants, metadata, money, refusals, text, transactions
from tests.domain.given import (
    AFFILIATE_ID,
    BUYER_ID,
    NOON,
    PRODUCT_ID,
    SALE_ID,
    SUBJECT_ID,
    TENANT_ID,
    given,
    line,
    recorded,
)


def record(*lines: transactions.LineWanted, **changes: Any) -> transactions.Transaction:
    wanted: dict[str, Any] = {"currency": "GBP", "occurred_at": NOON}
    return transactions.record(id=SALE_ID, tenant_id=TENANT_ID, lines=lines, **(wanted | changes))


def test_a_sale_records_its_lines_and_amounts() -> None:
    sale = record(
        line(6, "3.39", sku=" 71053 "),
        line(3, "0.335", sku="85123A"),
        buyer_id=BUYER_ID,
        buyer_subject_id=SUBJECT_ID,
        buyer_ref=" 17850 ",
        affiliate_id=AFFILIATE_ID,
        source="retail",
        external_id="536365",
        occurred_at=datetime(2026, 3, 1, 13, 0, tzinfo=timezone(timedelta(hours=1))),
        metadata={"till": 3},
    )
    expected = {
        "tenant_id": TENANT_ID,
        "lines": [
            transactions.Line(1, PRODUCT_ID, "71053", 6, Decimal("3.39"), 2034),
            transactions.Line(2, PRODUCT_ID, "85123A", 3, Decimal("0.335"), 100),
        ],
        "currency": "GBP",
        "amount_minor": 2134,
        "buyer_id": BUYER_ID,
        "buyer_subject_id": SUBJECT_ID,
        "buyer_ref": "17850",
        "affiliate_id": AFFILIATE_ID,
        "source": "retail",
        "external_id": "536365",
        "occurred_at": NOON,
        "metadata": {"till": 3},
    }
    assert recorded(sale) == [("transaction.recorded", expected)]


def test_a_new_sale_has_everything_left() -> None:
    sale = given(record(line(6), line(3)))
    assert (sale.status, sale.refunded_minor, sale.left(1), sale.left(2), sale.refunds) == ("recorded", 0, 6, 3, {})


def test_a_price_is_recorded_in_its_one_written_form() -> None:
    assert str(record(line(1, "3.3900")).lines[0].unit_price) == "3.39"


@pytest.mark.parametrize("count", [1, transactions.LINES_MAX])
def test_a_sale_may_have_as_many_lines_as_the_bound_says(count: int) -> None:
    sale = record(*[line(2, "1.50")] * count)
    assert [made.id for made in sale.lines] == list(range(1, count + 1))
    assert sale.amount_minor == 300 * count


@pytest.mark.parametrize("count", [0, transactions.LINES_MAX + 1])
def test_a_sale_without_lines_or_with_too_many_is_refused(count: int) -> None:
    with pytest.raises(transactions.LineCountOutOfRange) as refused:
        record(*[line()] * count)
    assert list(refused.value.fields) == ["lines"]


@pytest.mark.parametrize(
    ("bad", "refusal", "field"),
    [
        (line(0), money.QuantityOutOfRange, "lines.1.quantity"),
        (line(-1), money.QuantityOutOfRange, "lines.1.quantity"),
        (line(money.QUANTITY_MAX + 1, "0"), money.QuantityOutOfRange, "lines.1.quantity"),
        (line(1, "-0.01"), money.PriceNegative, "lines.1.unit_price"),
        (line(1, "0.0000001"), money.PriceTooFine, "lines.1.unit_price"),
        (line(1, "NaN"), money.PriceNotANumber, "lines.1.unit_price"),
        (line(sku=" "), text.TextBlank, "lines.1.sku"),
        (line(sku="x" * 65), text.TextTooLong, "lines.1.sku"),
    ],
)
def test_one_bad_line_refuses_the_sale_and_is_named(
    bad: transactions.LineWanted, refusal: type[refusals.Refusal], field: str
) -> None:
    with pytest.raises(refusal) as refused:
        record(line(), bad)
    assert list(refused.value.fields) == [field]


@pytest.mark.parametrize(
    ("changes", "refusal", "field"),
    [
        ({"currency": "gbp"}, money.CurrencyUnknown, "currency"),
        ({"occurred_at": NOON.replace(tzinfo=None)}, instants.TimeWithoutZone, "occurred_at"),
        ({"source": "retail"}, external.ExternalIdIncomplete, "external_id"),
        ({"external_id": "536365"}, external.ExternalIdIncomplete, "source"),
        ({"buyer_ref": "", "buyer_subject_id": SUBJECT_ID}, text.TextBlank, "buyer_ref"),
        ({"buyer_ref": "x" * 255, "buyer_subject_id": SUBJECT_ID}, text.TextTooLong, "buyer_ref"),
        ({"buyer_ref": "👩" * 129, "buyer_subject_id": SUBJECT_ID}, text.TextTooWide, "buyer_ref"),
        ({"metadata": {"x": [[[[]]]]}}, metadata.MetadataTooDeep, "metadata"),
    ],
)
def test_a_sale_that_breaks_a_rule_is_refused(
    changes: dict[str, Any], refusal: type[refusals.Refusal], field: str
) -> None:
    with pytest.raises(refusal) as refused:
        record(line(), **changes)
    assert list(refused.value.fields) == [field]


def test_a_sale_is_in_one_currency() -> None:
    """A product's price in EUR must not be added to pounds as if it were one."""
    in_pounds = transactions.LineWanted(
        product_id=PRODUCT_ID, sku="A", quantity=1, unit_price=Decimal(1), currency="GBP"
    )
    in_euros = transactions.LineWanted(
        product_id=PRODUCT_ID, sku="B", quantity=1, unit_price=Decimal(1), currency="EUR"
    )
    assert record(in_pounds, line()).currency == "GBP"
    with pytest.raises(transactions.CurrencyMixed) as refused:
        record(in_pounds, in_euros)
    assert list(refused.value.fields) == ["lines.1.unit_price"]


def test_a_total_that_not_every_reader_can_hold_is_refused() -> None:
    """Beyond 2^53 - 1 a browser shows another number than the ledger has; beyond bigint the views stop."""
    most = line(money.AMOUNT_MINOR_MAX // 10**9 + 1, "1000000000")  # in JPY: just over the bound
    with pytest.raises(transactions.TotalTooHigh) as refused:
        record(most, currency="JPY")
    assert list(refused.value.fields) == ["lines"]
    within = line(money.AMOUNT_MINOR_MAX // 10**9, "1000000000")
    assert record(within, currency="JPY").amount_minor <= money.AMOUNT_MINOR_MAX
    with pytest.raises(transactions.TotalTooHigh):
        record(within, within, currency="JPY")


def test_a_buyers_reference_without_a_subject_is_a_bug() -> None:
    """It could not be encrypted, and so never be erased."""
    with pytest.raises(ValueError, match="subject"):
        record(line(), buyer_ref="17850")


def test_a_line_that_is_not_there_is_refused() -> None:
    sale = record(line())
    for line_id in (0, 2, -1):
        with pytest.raises(transactions.LineUnknown):
            sale.left(line_id)
