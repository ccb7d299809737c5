"""The lines of a sale and of a refund: what is asked for, what is recorded, and the bounds of both."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec

from domain import money, products, refusals
from domain.meaning import meaning

# A leaf of the ledger holds 65,535 bytes; docs/money.md shows that this many of the widest lines fit.
LINES_MAX = 250


class LineCountOutOfRange(refusals.Invalid):
    def __init__(self, count: int) -> None:
        super().__init__(
            "The number of lines is out of range",
            count,
            f"Give 1 to {LINES_MAX} lines, or several transactions",
            field="lines",
        )


class CurrencyMixed(refusals.Invalid):
    def __init__(self, currency: str, of_transaction: str, field: str) -> None:
        super().__init__(
            f"A line's price is in another currency than the transaction, which is in {of_transaction}",
            currency,
            "Record one transaction for each currency",
            field=field,
        )


class TotalTooHigh(refusals.Invalid):
    def __init__(self, amount_minor: int) -> None:
        super().__init__(
            "The total of the lines is too high",
            f"{amount_minor} minor units",
            f"Stay within {money.AMOUNT_MINOR_MAX}, or record several transactions",
            field="lines",
        )


class LineWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A line as asked for. `currency` is the one in which `unit_price` was found, None if the caller said the price."""

    product_id: UUID
    sku: str
    quantity: int
    unit_price: Decimal
    currency: str | None = None


class UnmatchedLineWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a refund without its sale; `product_id` is None where the product is not known either."""

    product_id: UUID | None
    sku: str
    quantity: int
    unit_price: Decimal


class Line(msgspec.Struct, frozen=True):
    """Line `id`, counted from 1, of a sale."""

    id: Annotated[int, meaning("The line's number in the transaction, counted from 1")]
    product_id: Annotated[products.ProductId, meaning("The product sold")]
    sku: Annotated[products.Sku, meaning("The product's SKU when it was sold")]
    quantity: Annotated[money.Quantity, meaning("How many were sold")]
    unit_price: Annotated[money.UnitPrice, meaning("The price of one unit at which it was sold, exact")]
    amount_minor: Annotated[money.Minor, meaning("Quantity × unit price, rounded half to even")]


class RefundLine(msgspec.Struct, frozen=True):
    """What a refund gives back of one line of its sale; `refunded_quantity` is the line's after this refund."""

    line_id: Annotated[int, meaning("The line of the sale, counted from 1")]
    sku: Annotated[products.Sku, meaning("The product's SKU when it was sold")]
    quantity: Annotated[money.Quantity, meaning("How many are given back by this refund")]
    amount_minor: Annotated[money.Minor, meaning("What this refund gives back for the line")]
    refunded_quantity: Annotated[money.Quantity, meaning("How many of the line are given back by now, these included")]


class UnmatchedLine(msgspec.Struct, frozen=True):
    """What a refund gives back when its sale is not known."""

    line_id: Annotated[int, meaning("The line's number in the refund, counted from 1")]
    sku: Annotated[products.Sku, meaning("The SKU as the refund names it, which may be of no product here")]
    product_id: Annotated[products.ProductId, meaning("The product, null if it is not known either")] | None
    quantity: Annotated[money.Quantity, meaning("How many are given back")]
    unit_price: Annotated[money.UnitPrice, meaning("What one unit gives back, exact")]
    amount_minor: Annotated[money.Minor, meaning("Quantity × unit price, rounded half to even")]


def check_count(wanted: Sequence[object]) -> None:
    """Raises LineCountOutOfRange."""
    if not 1 <= len(wanted) <= LINES_MAX:
        raise LineCountOutOfRange(len(wanted))


def check_total(amount_minor: int) -> None:
    """Raises TotalTooHigh."""
    if amount_minor > money.AMOUNT_MINOR_MAX:
        raise TotalTooHigh(amount_minor)


def priced(wanted: LineWanted | UnmatchedLineWanted, index: int, currency: str) -> tuple[str, Decimal, int]:
    """SKU, unit price in its one written form, and the amount in minor units of the line at `index`, from 0.

    Raises QuantityOutOfRange, PriceNotANumber, PriceNegative, PriceTooHigh, PriceTooFine, CurrencyUnknown, TextBlank,
    TextTooLong, TextTooWide, TextForbidden.
    """
    money.check_quantity(wanted.quantity, f"lines.{index}.quantity")
    unit_price = money.unit_price(wanted.unit_price, currency, f"lines.{index}.unit_price")
    sku = products.checked_sku(wanted.sku, f"lines.{index}.sku")
    return sku, unit_price, money.line_amount(wanted.quantity, unit_price, currency)
