"""The rules of docs/money.md, computed from its own tables, and what holds for all amounts."""

from decimal import Decimal, localcontext
from pathlib import Path

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from domain import currencies, money, refusals

PAGE = (Path(__file__).parents[2] / "docs" / "money.md").read_text("utf-8")


def tables(heading: str) -> list[list[list[str]]]:
    """The cells of each table under a heading of the page, without the tables' own headings."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    blocks = [block for block in section.split("\n\n") if block.startswith("|")]
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()[2:]] for block in blocks
    ]


UNIT_PRICES = st.decimals(min_value=0, max_value=money.UNIT_PRICE_MAX, places=6)
CURRENCIES = st.sampled_from(["JPY", "EUR", "KWD", "CLF"])


@pytest.mark.parametrize(("price", "currency", "kept"), tables("A unit price")[0])
def test_a_price_is_kept_in_one_written_form(price: str, currency: str, kept: str) -> None:
    """The same price must look the same in every answer, however it was sent."""
    assert str(money.unit_price(Decimal(price), currency)) == kept


@pytest.mark.parametrize(
    ("quantity", "unit_price", "currency", "exact", "minor", "text"), tables("The amount of a line")[0]
)
def test_a_line_costs_what_the_page_says(
    quantity: str, unit_price: str, currency: str, exact: str, minor: str, text: str
) -> None:
    assert int(quantity) * Decimal(unit_price) == Decimal(exact)
    assert money.line_amount(int(quantity), Decimal(unit_price), currency) == int(minor)
    assert money.to_text(int(minor), currency) == text


@pytest.mark.parametrize("rows", tables("A refund"))
def test_parts_of_a_line_give_back_what_the_page_says(rows: list[list[str]]) -> None:
    so_far = 0
    for already, quantity, amount, after in rows:
        so_far += money.refund_amount(int(already), int(quantity), Decimal("0.335"), "GBP")
        assert money.refund_amount(int(already), int(quantity), Decimal("0.335"), "GBP") == int(amount)
        assert so_far == int(after)
    assert so_far == money.line_amount(3, Decimal("0.335"), "GBP")


@for_all(
    parts=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=20), unit_price=UNIT_PRICES, currency=CURRENCIES
)
def test_refunding_all_in_any_parts_gives_back_exactly_the_amount(
    parts: list[int], unit_price: Decimal, currency: str
) -> None:
    """A buyer must neither lose nor win a penny by sending things back one by one."""
    amounts = [
        money.refund_amount(sum(parts[:index]), quantity, unit_price, currency) for index, quantity in enumerate(parts)
    ]
    assert sum(amounts) == money.line_amount(sum(parts), unit_price, currency)
    assert min(amounts) >= 0


@for_all(quantity=st.integers(1, money.QUANTITY_MAX), unit_price=UNIT_PRICES, currency=CURRENCIES)
def test_an_amount_is_the_nearest_one_even_at_the_bounds(quantity: int, unit_price: Decimal, currency: str) -> None:
    """Computed again in integers: micro-units divided by hand."""
    micro = quantity * int(unit_price.scaleb(6)) * 10 ** money.minor_digits(currency)
    below, rest = divmod(micro, 10**6)
    nearest = below + (rest > 500_000 or (rest == 500_000 and below % 2 == 1))
    assert money.line_amount(quantity, unit_price, currency) == nearest


def test_other_code_with_a_narrow_decimal_context_changes_no_amount() -> None:
    with localcontext() as narrow:
        narrow.prec = 3
        assert money.line_amount(123_456, Decimal("1.234567"), "EUR") == 15_241_470
        assert str(money.unit_price(Decimal("123456.70"), "EUR")) == "123456.70"


@pytest.mark.parametrize(("minor", "text"), [(-5, "-0.05"), (0, "0.00"), (5, "0.05"), (-1234, "-12.34")])
def test_amounts_below_one_and_below_zero_are_written_out(minor: int, text: str) -> None:
    assert money.to_text(minor, "EUR") == text


@for_all(minor=st.integers(-money.AMOUNT_MINOR_MAX, money.AMOUNT_MINOR_MAX), currency=CURRENCIES)
def test_an_amounts_text_says_exactly_the_amount(minor: int, currency: str) -> None:
    assert Decimal(money.to_text(minor, currency)) == Decimal(minor).scaleb(-money.minor_digits(currency))


@pytest.mark.parametrize(
    ("price", "refusal"),
    [
        ("NaN", money.PriceNotANumber),
        ("sNaN", money.PriceNotANumber),
        ("Infinity", money.PriceNotANumber),
        ("-0.01", money.PriceNegative),
        ("1000000000.01", money.PriceTooHigh),
        ("1E+999999", money.PriceTooHigh),
        ("0.0000001", money.PriceTooFine),
        ("1E-999999", money.PriceTooFine),
    ],
)
def test_a_price_that_breaks_a_rule_is_refused(price: str, refusal: type[refusals.Refusal]) -> None:
    with pytest.raises(refusal) as refused:
        money.check_unit_price(Decimal(price), "lines.0.unit_price")
    assert refused.value.fields == {"lines.0.unit_price": [str(refused.value)]}


@pytest.mark.parametrize("price", ["0", "-0", "0.000001", "1.1000000000", "1000000000", "0E-999999"])
def test_a_price_within_the_rules_is_accepted(price: str) -> None:
    money.check_unit_price(Decimal(price))


@pytest.mark.parametrize("quantity", [0, -1, money.QUANTITY_MAX + 1, pytest.param(10**6000, id="6000-digits")])
def test_a_quantity_out_of_range_is_refused(quantity: int) -> None:
    with pytest.raises(money.QuantityOutOfRange) as refused:
        money.check_quantity(quantity)
    assert list(refused.value.fields) == ["quantity"]


@pytest.mark.parametrize("currency", ["", "eur", "EURO", "XXX", "XAU", "DEM"])
def test_a_currency_without_minor_units_is_refused(currency: str) -> None:
    with pytest.raises(money.CurrencyUnknown) as refused:
        money.minor_digits(currency)
    assert list(refused.value.fields) == ["currency"]


def test_every_active_currency_has_its_digits() -> None:
    """A wrong digit makes every amount in that currency wrong by a factor of ten."""
    assert len(currencies.MINOR_DIGITS) == 165
    assert {code: money.minor_digits(code) for code in ("EUR", "JPY", "KWD", "CLF", "ISK", "UYW", "MGA", "HUF")} == {
        "EUR": 2, "JPY": 0, "KWD": 3, "CLF": 4, "ISK": 0, "UYW": 4, "MGA": 2, "HUF": 2,
    }  # fmt: skip
    assert all(len(code) == 3 and code.isupper() for code in currencies.MINOR_DIGITS)
