"""Refunds: how much, of what, how often."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from domain import external, instants, money, refusals, text, transactions
from tests.domain.given import (
    AFFILIATE_ID,
    BUYER_ID,
    NOON,
    OTHER_REFUND_ID,
    PRODUCT_ID,
    REFUND_ID,
    SALE_ID,
    SUBJECT_ID,
    TENANT_ID,
    given,
    line,
    recorded,
    sale,
    unmatched,
)

# The worked example of docs/money.md: 1.00 for three.
THREE_FOR_A_POUND = line(3, "0.335", sku="PEN")


def test_a_part_gives_back_what_the_page_says() -> None:
    pens = given(
        transactions.record(
            id=SALE_ID,
            tenant_id=TENANT_ID,
            lines=[THREE_FOR_A_POUND],
            currency="GBP",
            occurred_at=NOON,
            buyer_id=BUYER_ID,
            affiliate_id=AFFILIATE_ID,
        )
    )
    made = pens.refund(
        REFUND_ID, [(1, 2)], reason=" dried out ", occurred_at=NOON, source="retail", external_id="C536379"
    )
    expected = {
        "refund_id": REFUND_ID,
        "lines": [transactions.RefundLine(1, "PEN", 2, 67, 2)],
        "amount_minor": 67,
        "refunded_minor": 67,
        "status": "partly_refunded",
        "currency": "GBP",
        "reason": "dried out",
        "source": "retail",
        "external_id": "C536379",
        "occurred_at": NOON,
        "buyer_id": BUYER_ID,
        "affiliate_id": AFFILIATE_ID,
    }
    assert recorded(pens) == [("transaction.refunded", expected)]
    assert (pens.left(1), pens.refunded_minor, pens.status) == (1, 67, "partly_refunded")
    assert made == pens.refunds[REFUND_ID]
    assert (made.amount_minor, made.lines) == (67, expected["lines"])


def test_a_refund_that_names_no_lines_takes_all_that_is_left() -> None:
    pens = sale(THREE_FOR_A_POUND, line(2, "5.00"), line(1, "1.00"), currency="GBP")
    pens.refund(REFUND_ID, [(1, 2), (2, 2)], occurred_at=NOON)
    made = pens.refund(OTHER_REFUND_ID, None, occurred_at=NOON)
    assert made.lines == [
        transactions.RefundLine(1, "PEN", 1, 33, 3),
        transactions.RefundLine(3, "MUG-1", 1, 100, 1),
    ]
    assert (pens.status, pens.refunded_minor, pens.amount_minor) == ("refunded", 1200, 1200)


@for_all(data=st.data())
def test_refunding_all_in_any_parts_gives_back_exactly_the_amount(data: st.DataObject) -> None:
    """Whatever is sent back in whatever order, the buyer gets what the lines cost, line by line."""
    wanted = data.draw(
        st.lists(
            st.builds(
                lambda quantity, price: line(quantity, str(price)),
                st.integers(1, 9),
                st.decimals(0, 1000, places=6),
            ),
            min_size=1,
            max_size=4,
        )
    )
    sold = sale(*wanted, currency=data.draw(st.sampled_from(["JPY", "EUR", "KWD", "CLF"])))
    units = data.draw(st.permutations([made.id for made in sold.lines for _ in range(made.quantity)]))
    back: dict[int, int] = {}
    while units:
        size = data.draw(st.integers(1, len(units)))
        part, units = units[:size], units[size:]
        refund_id = UUID(int=len(sold.refunds))
        for refunded in sold.refund(refund_id, [(line_id, 1) for line_id in part], occurred_at=NOON).lines:
            back[refunded.line_id] = back.get(refunded.line_id, 0) + refunded.amount_minor
        assert sold.status == ("partly_refunded" if units else "refunded")
    assert back == {made.id: made.amount_minor for made in sold.lines}
    assert sold.refunded_minor == sold.amount_minor


def test_a_line_named_twice_counts_with_the_sum() -> None:
    """Else naming a line twice would give back more than was bought."""
    pens = sale(THREE_FOR_A_POUND, currency="GBP")
    with pytest.raises(transactions.RefundExceeds):
        pens.refund(REFUND_ID, [(1, 2), (1, 2)], occurred_at=NOON)
    made = pens.refund(REFUND_ID, [(1, 1), (1, 1)], occurred_at=NOON)
    assert made.lines == [transactions.RefundLine(1, "PEN", 2, 67, 2)]


def test_more_than_what_is_left_is_refused_and_names_the_line() -> None:
    pens = sale(line(1), THREE_FOR_A_POUND, currency="GBP")
    pens.refund(REFUND_ID, [(2, 2)], occurred_at=NOON)
    with pytest.raises(transactions.RefundExceeds, match="left of line 2, which is 1: 2") as refused:
        pens.refund(OTHER_REFUND_ID, [(1, 1), (2, 2)], occurred_at=NOON)
    assert list(refused.value.fields) == ["lines"]
    assert (pens.left(1), pens.left(2), pens.version) == (1, 1, 2)


@pytest.mark.parametrize("wanted", [None, [(1, 1)], []])
def test_nothing_left_is_refused(wanted: list[tuple[int, int]] | None) -> None:
    pens = sale(THREE_FOR_A_POUND)
    pens.refund(REFUND_ID, None, occurred_at=NOON)
    with pytest.raises(transactions.NothingLeft) as refused:
        pens.refund(OTHER_REFUND_ID, wanted, occurred_at=NOON)
    assert refused.value.fields == {}


@pytest.mark.parametrize(
    ("wanted", "refusal", "field"),
    [
        ([], transactions.LineCountOutOfRange, "lines"),
        ([(1, 1)] * 251, transactions.LineCountOutOfRange, "lines"),
        ([(0, 1)], transactions.LineUnknown, "lines"),
        ([(2, 1)], transactions.LineUnknown, "lines"),
        ([(1, 1), (1, 0)], money.QuantityOutOfRange, "lines.1.quantity"),
        ([(1, 2), (1, -1)], money.QuantityOutOfRange, "lines.1.quantity"),
    ],
)
def test_a_refund_of_what_was_not_sold_is_refused(
    wanted: list[tuple[int, int]], refusal: type[refusals.Refusal], field: str
) -> None:
    """An empty list is not "all that is left": a form that sends no lines must not give all the money back."""
    pens = sale(line(300))
    with pytest.raises(refusal) as refused:
        pens.refund(REFUND_ID, wanted, occurred_at=NOON)
    assert list(refused.value.fields) == [field]
    assert recorded(pens) == []


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"occurred_at": NOON.replace(tzinfo=None)}, instants.TimeWithoutZone),
        ({"reason": "x" * 501}, text.TextTooLong),
        ({"reason": "a\x00"}, text.TextForbidden),
        ({"source": "retail"}, external.ExternalIdIncomplete),
    ],
)
def test_a_refund_that_breaks_a_rule_is_refused(changes: dict[str, Any], refusal: type[refusals.Refusal]) -> None:
    pens = sale(THREE_FOR_A_POUND)
    with pytest.raises(refusal):
        pens.refund(REFUND_ID, None, **({"occurred_at": NOON} | changes))
    assert recorded(pens) == []


def test_the_same_refund_twice_records_once() -> None:
    """A retry must not give the money back a second time."""
    pens = sale(THREE_FOR_A_POUND)
    first = pens.refund(REFUND_ID, [(1, 1)], occurred_at=NOON)
    assert pens.refund(REFUND_ID, [(1, 1)], occurred_at=NOON) == first
    assert (len(recorded(pens)), pens.left(1)) == (1, 2)


def test_a_gift_is_refunded_by_its_units() -> None:
    """By money alone a sale of price 0 would count as refunded from the start."""
    gift = sale(line(2, "0"))
    gift.refund(REFUND_ID, [(1, 1)], occurred_at=NOON)
    assert (gift.status, gift.refunded_minor) == ("partly_refunded", 0)
    gift.refund(OTHER_REFUND_ID, None, occurred_at=NOON)
    assert gift.status == "refunded"


def test_refunds_come_back_by_replay() -> None:
    """The next command must know what earlier ones gave back."""
    sold = transactions.record(
        id=SALE_ID, tenant_id=TENANT_ID, lines=[THREE_FOR_A_POUND, line(2)], currency="GBP", occurred_at=NOON
    )
    sold.refund(REFUND_ID, [(1, 2), (2, 1)], occurred_at=NOON)
    sold.refund(OTHER_REFUND_ID, [(1, 1)], occurred_at=NOON)
    replayed = given(sold)
    sold.collect_events()
    assert replayed == sold
    assert (replayed.left(1), replayed.left(2), replayed.status) == (0, 1, "partly_refunded")


def unmatched_refund(*lines: transactions.UnmatchedLineWanted, **changes: Any) -> transactions.Refund:
    wanted: dict[str, Any] = {"currency": "GBP", "occurred_at": NOON}
    return transactions.record_refund(id=REFUND_ID, tenant_id=TENANT_ID, lines=lines, **(wanted | changes))


def test_a_refund_without_its_sale_is_recorded_by_itself() -> None:
    refund = unmatched_refund(
        unmatched(3, "0.335", sku="PEN"),
        transactions.UnmatchedLineWanted(product_id=PRODUCT_ID, sku="MUG-1", quantity=1, unit_price=Decimal("9")),
        source="retail",
        external_id="C536379",
        buyer_subject_id=SUBJECT_ID,
        buyer_ref="17850",
    )
    expected = {
        "tenant_id": TENANT_ID,
        "lines": [
            transactions.UnmatchedLine(1, "PEN", None, 3, Decimal("0.335"), 100),
            transactions.UnmatchedLine(2, "MUG-1", PRODUCT_ID, 1, Decimal("9.00"), 900),
        ],
        "amount_minor": 1000,
        "currency": "GBP",
        "reason": None,
        "source": "retail",
        "external_id": "C536379",
        "occurred_at": NOON,
        "buyer_subject_id": SUBJECT_ID,
        "buyer_ref": "17850",
    }
    assert recorded(refund) == [("refund.recorded", expected)]
    assert given(refund).amount_minor == 1000


@pytest.mark.parametrize(
    ("lines", "changes", "refusal"),
    [
        ([], {}, transactions.LineCountOutOfRange),
        ([unmatched()] * 251, {}, transactions.LineCountOutOfRange),
        ([unmatched(0)], {}, money.QuantityOutOfRange),
        ([unmatched(10**9, "1000000000")], {}, transactions.TotalTooHigh),
        ([unmatched()], {"currency": "XXX"}, money.CurrencyUnknown),
        ([unmatched()], {"reason": "\x00"}, text.TextForbidden),
    ],
)
def test_an_unmatched_refund_obeys_the_rules_of_a_sale(
    lines: list[transactions.UnmatchedLineWanted], changes: dict[str, Any], refusal: type[refusals.Refusal]
) -> None:
    with pytest.raises(refusal):
        unmatched_refund(*lines, **changes)
