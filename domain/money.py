"""Money: whole minor units inside, decimal strings outside, and the one place where anything is rounded.

The rules with worked examples are in docs/money.md; tests compute those very examples.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, TypeAlias

from domain import currencies, refusals
from domain.meaning import meaning

UNIT_PRICE_PLACES_MAX = 6
# A billion of any currency for one unit; more is a slip of the decimal point.
UNIT_PRICE_MAX = Decimal(1_000_000_000)
QUANTITY_MAX = 1_000_000_000
# The largest whole number that every reader of JSON holds exactly; a thousand such totals still add up in a bigint.
AMOUNT_MINOR_MAX = 2**53 - 1

# The types of an event's fields.
Currency: TypeAlias = Annotated[str, meaning("What all money of the event is in", unit="ISO 4217 code, such as EUR")]
Minor: TypeAlias = Annotated[int, meaning("An amount of money", unit="minor units of the currency, such as cents")]
UnitPrice: TypeAlias = Annotated[
    Decimal,
    meaning("The price of one unit, exact", unit=f"the currency, with at most {UNIT_PRICE_PLACES_MAX} decimal places"),
]
Quantity: TypeAlias = Annotated[int, meaning("How many units of the product", unit="units of the product")]

# Wide enough that nothing within the bounds above is ever rounded before the last step; its own, so that what other
# code does to the thread's decimal context changes no amount.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_ONE = Decimal(1)
_QUANTA = tuple(_ONE.scaleb(-places) for places in range(UNIT_PRICE_PLACES_MAX + 1))


class CurrencyUnknown(refusals.Invalid):
    def __init__(self, currency: str, field: str = "currency") -> None:
        super().__init__(
            "The currency is not known", currency, "Give a code of ISO 4217 in capitals, such as EUR", field=field
        )


class PriceNotANumber(refusals.Invalid):
    def __init__(self, price: Decimal, field: str) -> None:
        super().__init__("The price is not a number", price, 'Give a decimal such as "9.50"', field=field)


class PriceNegative(refusals.Invalid):
    def __init__(self, price: Decimal, field: str) -> None:
        super().__init__("The price is negative", price, "Give 0 or more; money goes back by a refund", field=field)


class PriceTooHigh(refusals.Invalid):
    def __init__(self, price: Decimal, field: str) -> None:
        super().__init__("The price is too high", price, f"Give at most {UNIT_PRICE_MAX}", field=field)


class PriceTooFine(refusals.Invalid):
    def __init__(self, price: Decimal, field: str) -> None:
        super().__init__(
            "The price has too many decimal places", price, f"Give at most {UNIT_PRICE_PLACES_MAX} places", field=field
        )


class QuantityOutOfRange(refusals.Invalid):
    def __init__(self, quantity: int, field: str) -> None:
        super().__init__(
            "The quantity is out of range", quantity, f"Give a whole number from 1 to {QUANTITY_MAX}", field=field
        )


def minor_digits(currency: str) -> int:
    """0 to 4. Raises CurrencyUnknown."""
    digits = currencies.MINOR_DIGITS.get(currency)
    if digits is None:
        raise CurrencyUnknown(currency)
    return digits


def check_quantity(quantity: int, field: str = "quantity") -> None:
    """Raises QuantityOutOfRange."""
    if not 1 <= quantity <= QUANTITY_MAX:
        raise QuantityOutOfRange(quantity, field)


def check_unit_price(price: Decimal, field: str = "price") -> None:
    """Raises PriceNotANumber, PriceNegative, PriceTooHigh, PriceTooFine."""
    if not price.is_finite():
        raise PriceNotANumber(price, field)
    if price < 0:
        raise PriceNegative(price, field)
    if price > UNIT_PRICE_MAX:
        raise PriceTooHigh(price, field)
    if price != price.quantize(_QUANTA[UNIT_PRICE_PLACES_MAX], context=_EXACT):
        raise PriceTooFine(price, field)


def unit_price(price: Decimal, currency: str, field: str = "price") -> Decimal:
    """The same price in its one written form: the currency's places, more only where they are not 0 (9 EUR is 9.00,
    0.00150 EUR is 0.0015). So a price reads the same however it was sent, and never as 9E+2 or -0.

    Raises PriceNotANumber, PriceNegative, PriceTooHigh, PriceTooFine, CurrencyUnknown.
    """
    check_unit_price(price, field)
    for places in range(minor_digits(currency), UNIT_PRICE_PLACES_MAX):
        written = price.quantize(_QUANTA[places], context=_EXACT)
        if written == price:
            return written.copy_abs()  # not abs(), which rounds to the thread's context
    return price.quantize(_QUANTA[UNIT_PRICE_PLACES_MAX], context=_EXACT)


def line_amount(quantity: int, unit_price: Decimal, currency: str) -> int:
    """Minor units: quantity × unit price, rounded half to even. Every amount of the system comes from here.

    Both factors have been checked (0 or more). Raises CurrencyUnknown.
    """
    exact = _EXACT.multiply(unit_price, quantity)
    return int(exact.scaleb(minor_digits(currency), _EXACT).quantize(_ONE, context=_EXACT))


def refund_amount(already: int, quantity: int, unit_price: Decimal, currency: str) -> int:
    """Minor units that `quantity` more units give back when `already` units have been refunded.

    The line's amount up to here minus the line's amount before: whatever the parts, refunding all of a line gives
    back exactly its amount. Raises CurrencyUnknown.
    """
    return line_amount(already + quantity, unit_price, currency) - line_amount(already, unit_price, currency)


def to_text(minor: int, currency: str) -> str:
    """A decimal string with all the currency's places: 1234 EUR is "12.34", -5 EUR "-0.05", 7 JPY "7".

    Raises CurrencyUnknown.
    """
    digits = minor_digits(currency)
    if digits == 0:
        return str(minor)
    text = str(abs(minor)).zfill(digits + 1)  # half the time of divmod: a page of sales has hundreds of amounts
    return f"{'-' if minor < 0 else ''}{text[:-digits]}.{text[-digits:]}"
