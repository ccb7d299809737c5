"""The plan of an import: which sales, refunds and products come of which rows."""

import importlib.resources
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from bitnexus.retail import plan as retail_plan
from bitnexus.retail import rows as retail_rows
from bitnexus.retail.plan import Line, Plan, Product, Refund, Sale
from bitnexus.retail.rows import Reason, Row
from tests.bitnexus import independent_summary

MORNING = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


def row(
    invoice_no: str = "536365",
    code: str = "71053",
    quantity: int = 6,
    price: str = "3.39",
    *,
    customer: str | None = "17850",
    description: str = "WHITE METAL LANTERN",
    minute: int = 0,
) -> Row:
    date = MORNING + timedelta(minutes=minute)
    return Row(0, invoice_no, code, description, quantity, date, Decimal(price), customer, "United Kingdom")


def planned(*rows: Row) -> Plan:
    return retail_plan.plan(rows)


def matches(plan: Plan) -> list[tuple[int | None, int | None]]:
    """The sale and the line of each refund."""
    return [(refund.sale, refund.line_id) for refund in plan.refunds]


def external_ids(plan: Plan) -> tuple[list[str], list[str]]:
    return [sale.external_id for sale in plan.sales], [refund.external_id for refund in plan.refunds]


@pytest.fixture
def sample() -> Iterator[Path]:
    with importlib.resources.as_file(importlib.resources.files("bitnexus.data")) as data:
        yield data / "online-retail-5000.csv.gz"


# Sales


def test_the_positive_rows_of_an_invoice_are_one_sale() -> None:
    plan = planned(row(code="71053", quantity=6), row(code="84029E", quantity=2, price="2.55", minute=1))
    assert plan.sales == [
        Sale(
            "536365",
            "17850",
            MORNING,
            [Line(0, 1, "71053", 6, Decimal("3.39"), 2034), Line(0, 2, "84029E", 2, Decimal("2.55"), 510)],
        )
    ]


def test_rows_of_an_invoice_that_stand_apart_are_still_one_sale() -> None:
    plan = planned(row("A", "1"), row("B", "2"), row("A", "3"), row("B", "4"))
    assert [(sale.external_id, [(line.sale, line.id, line.sku) for line in sale.lines]) for sale in plan.sales] == [
        ("A", [(0, 1, "1"), (0, 2, "3")]),
        ("B", [(1, 1, "2"), (1, 2, "4")]),
    ]


def test_a_sale_is_dated_and_owned_by_its_first_accepted_row() -> None:
    plan = planned(
        row(price="0", customer="1", minute=1), row(customer="2", minute=2), row(customer="3", minute=3), row(minute=4)
    )
    assert [(sale.customer_id, sale.occurred_at) for sale in plan.sales] == [("2", MORNING + timedelta(minutes=2))]


@pytest.mark.parametrize(
    ("quantity", "price", "amount_minor"),
    [(1, "0.005", 0), (3, "0.005", 2), (1, "0.015", 2), (1, "0.001", 0), (5, "0.005", 2)],
)
def test_a_line_is_rounded_half_to_even_to_pennies(quantity: int, price: str, amount_minor: int) -> None:
    plan = planned(row(quantity=quantity, price=price))
    assert plan.sales[0].lines[0].amount_minor == amount_minor


def test_an_invoice_of_more_than_250_lines_is_split_into_parts() -> None:
    """Every part is of the invoice's customer and time, and its lines count from 1."""
    plan = planned(*(row(code=str(number), minute=number) for number in range(501)))
    assert [(s.external_id, s.customer_id, s.occurred_at, len(s.lines)) for s in plan.sales] == [
        ("536365", "17850", MORNING, 250),
        ("536365#2", "17850", MORNING, 250),
        ("536365#3", "17850", MORNING, 1),
    ]
    assert plan.sales[2].lines == [Line(2, 1, "500", 6, Decimal("3.39"), 2034)]


# Products


def test_a_product_comes_of_the_first_accepted_row_of_its_code() -> None:
    plan = planned(
        row(code="2", price="0", description="NOT ACCEPTED"),
        row(code="1", price="3.39", description=" FIRST "),
        row(code="2", price="1.25", quantity=-1, description="REFUNDED FIRST"),
        row(code="1", price="2.99", description="SECOND"),
    )
    assert plan.products == [
        Product("1", "FIRST", Decimal("3.39")),
        Product("2", "REFUNDED FIRST", Decimal("1.25")),
    ]


def test_a_product_is_named_by_the_first_description_that_is_not_blank_else_by_its_code() -> None:
    plan = planned(
        row(code="1", description=""),
        row(code="2", description=""),
        row(code="1", description="LANTERN"),
        row(code="1", description="LAMP"),
    )
    assert [(product.sku, product.name) for product in plan.products] == [("1", "LANTERN"), ("2", "2")]


def test_codes_that_differ_in_case_are_two_products() -> None:
    plan = planned(row(code="85123a"), row(code="85123A"))
    assert [product.sku for product in plan.products] == ["85123a", "85123A"]


def test_a_description_that_is_no_name_does_not_turn_its_sale_away() -> None:
    plan = planned(
        row(code="1", description="TWO\nLINES\x00"),
        row(code="2", description="x" * 300),
        row(code="3", description="\x07"),
    )
    assert [product.name for product in plan.products] == ["TWO LINES", "x" * 200, "3"]
    assert len(plan.sales[0].lines) == 3


# Refunds


def test_a_refund_is_matched_with_the_line_it_gives_back() -> None:
    plan = planned(row("1", "10"), row("1", "84029E"), row("C2", "84029E", quantity=-2, minute=5))
    assert plan.refunds == [
        Refund(
            external_id="C2",
            customer_id="17850",
            occurred_at=MORNING + timedelta(minutes=5),
            sku="84029E",
            quantity=2,
            unit_price=Decimal("3.39"),
            amount_minor=678,
            sale=0,
            line_id=2,
            turn=1,
        )
    ]


def test_every_negative_row_is_a_refund_of_its_own() -> None:
    plan = planned(row("C2", "1", quantity=-1), row("C2", "2", quantity=-1), row("C2", "3", quantity=-1))
    assert [(refund.external_id, refund.sku) for refund in plan.refunds] == [("C2", "1"), ("C2#2", "2"), ("C2#3", "3")]


def test_a_refund_that_finds_no_line_is_unmatched() -> None:
    plan = planned(row("C1", quantity=-3, price="0.005"))
    assert plan.refunds == [Refund("C1", "17850", MORNING, "71053", 3, Decimal("0.005"), 2, None, None, 0)]
    assert plan.matched == 0


@pytest.mark.parametrize(
    "refund",
    [
        row("C2", quantity=-1, customer="17851"),
        row("C2", quantity=-1, code="71053a"),
        row("C2", quantity=-1, price="3.40"),
        row("C2", quantity=-7),
    ],
    ids=["customer", "case of the code", "price", "more than left"],
)
def test_a_line_of_another_customer_code_or_price_or_with_less_left_is_not_given_back(refund: Row) -> None:
    assert matches(planned(row("1", code="71053A"), row("1"), refund)) == [(None, None)]


def test_a_price_written_with_more_zeros_is_the_same_price() -> None:
    assert matches(planned(row("1", price="3.4"), row("C2", quantity=-1, price="3.400"))) == [(0, 1)]


def test_a_guests_refund_is_never_matched() -> None:
    """All guests share a blank number; one of them must not get another's money."""
    assert matches(planned(row("1", customer=None), row("C2", quantity=-1, customer=None))) == [(None, None)]


def test_only_a_line_earlier_in_the_file_is_given_back() -> None:
    """The dates do not count: the later row is dated earlier."""
    assert matches(planned(row("C2", quantity=-1, minute=9), row("1", minute=1))) == [(None, None)]
    assert matches(planned(row("1", minute=9), row("C2", quantity=-1, minute=1))) == [(0, 1)]


def test_the_latest_line_that_has_enough_left_is_given_back_and_refunds_are_not_split() -> None:
    plan = planned(
        row("1", quantity=10),
        row("2", quantity=3),
        row("C3", quantity=-2),  # line 2 has 3
        row("C4", quantity=-2),  # line 2 has only 1 left
        row("C5", quantity=-1),  # the last of line 2
        row("C6", quantity=-8),  # the rest of line 1
        row("C7", quantity=-1),  # nothing is left
    )
    assert matches(plan) == [(1, 1), (0, 1), (1, 1), (0, 1), (None, None)]
    assert [refund.turn for refund in plan.refunds] == [1, 1, 2, 2, 0]


def test_no_more_is_given_back_than_was_sold() -> None:
    plan = planned(row("1", quantity=3), *(row(f"C{number}", quantity=-1) for number in range(4)))
    assert matches(plan) == [(0, 1), (0, 1), (0, 1), (None, None)]


def test_latest_means_latest_in_the_file_not_in_the_order_of_sales() -> None:
    plan = planned(row("1"), row("2"), row("1"), row("C3", quantity=-1))
    assert matches(plan) == [(0, 2)]


def test_a_line_in_a_later_part_of_a_long_invoice_is_found() -> None:
    plan = planned(*(row(code=str(number)) for number in range(260)), row("C2", code="255", quantity=-1))
    assert matches(plan) == [(1, 6)]


def test_refunds_in_parts_give_back_exactly_what_the_line_cost() -> None:
    """3 × 0.005 is 2 pennies; three refunds of one must not come to 0 or 3."""
    plan = planned(row("1", quantity=3, price="0.005"), *(row(f"C{n}", quantity=-1, price="0.005") for n in range(3)))
    assert [refund.amount_minor for refund in plan.refunds] == [0, 1, 1]
    assert plan.gross_minor == plan.refunded_minor == 2


# External ids


def test_sales_and_refunds_of_one_invoice_do_not_share_ids() -> None:
    """The second of two documents with one id would be taken for a repetition and left out."""
    refunds = [row("A", quantity=-1), row("A", quantity=-1)]
    parts = [row("A", str(number)) for number in range(251)]
    sold_first = planned(*parts, *refunds)
    refunded_first = planned(*refunds, *parts)
    assert external_ids(sold_first) == (["A", "A#2"], ["A#R1", "A#R2"])
    assert external_ids(refunded_first) == (["A#S1", "A#S2"], ["A", "A#2"])


def test_an_invoice_that_is_called_like_a_part_of_another_has_its_own_id() -> None:
    plan = planned(*(row("A", str(number)) for number in range(251)), row("A#2"), row("A##2"), row("A#R1"))
    assert [sale.external_id for sale in plan.sales] == ["A", "A#2", "A##2", "A####2", "A##R1"]


# The whole


def test_rejected_rows_are_counted_by_reason_and_kept() -> None:
    free, nothing = row(price="0"), row(quantity=0)
    plan = planned(free, row(), nothing, row(code=""), free)
    assert (plan.rows_total, plan.accepted) == (5, 1)
    assert plan.rejected == Counter({Reason.PRICE_NOT_POSITIVE: 2, Reason.QUANTITY_ZERO: 1, Reason.CODE_NOT_USABLE: 1})
    assert [reject.row for reject in plan.rejects] == [free, nothing, row(code=""), free]


def test_no_rows_make_an_empty_plan() -> None:
    assert planned() == Plan([], [], [], 0, 0, Counter(), [])


def test_the_beginning_of_a_file_is_planned_the_same_whatever_follows(sample: Path) -> None:
    """Importing a longer file later must add to what is there, not contradict it. Cut where an invoice ends."""
    rows = list(retail_rows.read(sample))
    cut = next(n for n in range(2500, len(rows)) if rows[n].invoice_no != rows[n - 1].invoice_no)
    whole, beginning = retail_plan.plan(rows), retail_plan.plan(rows[:cut])
    assert whole.sales[: len(beginning.sales)] == beginning.sales
    assert whole.refunds[: len(beginning.refunds)] == beginning.refunds


def test_the_plan_of_the_sample_is_what_an_independent_computation_gives(sample: Path) -> None:
    plan = retail_plan.plan(retail_rows.read(sample))
    assert summary_of(plan) == independent_summary.summarise(sample)


def test_the_sample_shows_everything_that_an_import_can_meet(sample: Path) -> None:
    """The demo would be poorer without one of these; the numbers stand in the sample's README."""
    plan = retail_plan.plan(retail_rows.read(sample))
    assert (len(plan.products), len(plan.sales), len(plan.refunds), plan.matched) == (1721, 1386, 85, 2)
    assert plan.rejected == Counter({Reason.PRICE_NOT_POSITIVE: 21})
    assert sum(len(sale.lines) for sale in plan.sales) == 4894
    assert any(sale.customer_id is None for sale in plan.sales)


def summary_of(plan: Plan) -> independent_summary.Summary:
    days: dict[tuple[str, str], independent_summary.Day] = {}
    for sale in plan.sales:
        day = days.setdefault((f"{sale.occurred_at:%Y-%m-%d}", retail_rows.CURRENCY), independent_summary.Day())
        day.count += 1
        day.gross += sum(line.amount_minor for line in sale.lines)
    for refund in plan.refunds:
        day = days.setdefault((f"{refund.occurred_at:%Y-%m-%d}", retail_rows.CURRENCY), independent_summary.Day())
        day.refunded += refund.amount_minor
    return independent_summary.Summary(
        rows=plan.rows_total,
        accepted=plan.accepted,
        rejected=Counter({str(reason): count for reason, count in plan.rejected.items()}),
        products=len(plan.products),
        transactions=len(plan.sales),
        refunds_matched=plan.matched,
        refunds_unmatched=len(plan.refunds) - plan.matched,
        days=days,
        total=independent_summary.Day(len(plan.sales), plan.gross_minor, plan.refunded_minor),
    )
