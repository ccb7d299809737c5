"""What an import will record, worked out from the rows before anything is written.

Which sale a refund belongs to depends on the order of the rows, so it is decided here, in one pass over the file. What
is left can then be carried out concurrently and always comes to the same: products first, then each sale, and after it
its own refunds in their order. Pure: no clock, no randomness, no input but the rows.

External ids. An invoice's documents are numbered: its sales (parts of at most 250 lines) are `INV`, `INV#2`, `INV#3` …,
and so are the refunds of a cancellation, one for each of its rows. Should an invoice have rows of both signs, the kind
of its first accepted row has the plain numbers, and the other kind is marked: refunds `INV#R1`, `INV#R2` …, sales
`INV#S1` …. A `#` in an invoice number is doubled, so two documents never share an id, and no id depends on later rows.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from bitnexus.retail import rows as retail_rows
from bitnexus.retail.rows import CURRENCY, Reason, Reject, Row
from domain import money, products, text, transactions


class Product(msgspec.Struct, frozen=True, gc=False):
    sku: str  # the stock code, case-sensitive
    name: str
    price: Decimal  # unit price of the code's first accepted row


class Line(msgspec.Struct, frozen=True, gc=False):
    sale: int  # index in Plan.sales
    id: int  # 1, 2, 3 … within the sale
    sku: str
    quantity: int
    unit_price: Decimal
    amount_minor: int


class Sale(msgspec.Struct, frozen=True):
    external_id: str
    customer_id: str | None  # of the invoice's first accepted positive row, as is the time
    occurred_at: datetime
    lines: list[Line]  # 1 to transactions.LINES_MAX


class Refund(msgspec.Struct, frozen=True, gc=False):
    """One row of negative quantity. Unmatched: `sale` and `line_id` are None and `turn` is 0."""

    external_id: str
    customer_id: str | None
    occurred_at: datetime
    sku: str
    quantity: int  # positive
    unit_price: Decimal
    amount_minor: int  # of a matched one it holds only if the sale's refunds are recorded in the order of `turn`
    sale: int | None  # index in Plan.sales
    line_id: int | None
    turn: int  # 1, 2, 3 … among the refunds of its sale


class Plan(msgspec.Struct, frozen=True):
    products: list[Product]  # in the order of their first accepted rows
    sales: list[Sale]  # in the order of their first lines
    refunds: list[Refund]  # in the order of their rows, so a sale's refunds stand in the order of `turn`
    rows_total: int
    accepted: int
    rejected: Counter[Reason]
    rejects: list[Reject]

    @property
    def gross_minor(self) -> int:
        return sum(line.amount_minor for sale in self.sales for line in sale.lines)

    @property
    def refunded_minor(self) -> int:
        return sum(refund.amount_minor for refund in self.refunds)

    @property
    def matched(self) -> int:
        return sum(refund.sale is not None for refund in self.refunds)


def plan(rows: Iterable[Row]) -> Plan:
    """The plan of the rows, given in file order. Equal rows give an equal plan. Raises what `rows` raises."""
    catalogue = _Catalogue()
    journal = _Journal()
    rejects: list[Reject] = []
    accepted = 0
    for row in rows:
        reason = retail_rows.reason_of(row)
        if reason is not None:
            rejects.append(Reject(row, reason))
            continue
        accepted += 1
        sku = catalogue.see(row)
        if row.quantity > 0:
            journal.sell(row, sku)
        else:
            journal.refund(row, sku)
    return Plan(
        products=catalogue.products(),
        sales=journal.sales,
        refunds=journal.refunds,
        rows_total=accepted + len(rejects),
        accepted=accepted,
        rejected=Counter(reject.reason for reject in rejects),
        rejects=rejects,
    )


class _Listing(msgspec.Struct, gc=False):
    sku: str
    price: Decimal
    name: str  # "" as long as every description was blank


class _Catalogue:
    """The stock codes seen so far."""

    def __init__(self) -> None:
        self._listings: dict[str, _Listing] = {}

    def see(self, row: Row) -> str:
        """The row's code, as one string object per code however many rows have it."""
        listing = self._listings.get(row.stock_code)
        if listing is None:
            listing = self._listings[row.stock_code] = _Listing(row.stock_code, row.unit_price, "")
        if not listing.name and row.description:
            listing.name = _name(row.description)
        return listing.sku

    def products(self) -> list[Product]:
        return [Product(listing.sku, listing.name or listing.sku, listing.price) for listing in self._listings.values()]


def _name(description: str) -> str:
    """A name that the ledger takes, "" if nothing is left: no sale is turned away for its odd description."""
    while (forbidden := text.forbidden_character(description)) is not None:
        description = description.replace(forbidden, " ")
    return description.strip()[: products.NAME_LENGTH_MAX].rstrip()


class _Invoice(msgspec.Struct):
    """The documents of one invoice number so far."""

    sells: bool  # its first accepted row was a sale's
    sale: Sale | None = None  # the part that takes the next line
    parts: int = 0
    refunds: int = 0


class _Journal:
    """The sales and refunds so far, and what is left of each line."""

    def __init__(self) -> None:
        self.sales: list[Sale] = []
        self.refunds: list[Refund] = []
        self._invoices: dict[str, _Invoice] = {}
        # (customer, code, price) -> lines with something left, in file order. Guests' lines are not kept.
        self._open: dict[tuple[str, str, Decimal], list[Line]] = {}
        self._refunded: dict[tuple[int, int], int] = {}  # (sale, line id) -> quantity, of lines refunded in part
        self._turns: Counter[int] = Counter()  # sale -> refunds so far

    def sell(self, row: Row, sku: str) -> None:
        sale = self._part(row)
        line = Line(
            len(self.sales) - 1 if not sale.lines else sale.lines[0].sale,
            len(sale.lines) + 1,
            sku,
            row.quantity,
            row.unit_price,
            money.line_amount(row.quantity, row.unit_price, CURRENCY),
        )
        sale.lines.append(line)
        if sale.customer_id is not None:
            self._open.setdefault((sale.customer_id, sku, row.unit_price), []).append(line)

    def _part(self, row: Row) -> Sale:
        """The sale that takes the row as its next line: the invoice's last part, or a new one if that is full."""
        invoice = self._invoices.get(row.invoice_no)
        if invoice is None:
            invoice = self._invoices[row.invoice_no] = _Invoice(sells=True)
        last = invoice.sale
        if last is not None and len(last.lines) < transactions.LINES_MAX:
            return last
        invoice.parts += 1
        external_id = _external_id(row.invoice_no, invoice.parts, "" if invoice.sells else "S")
        if last is None:
            sale = Sale(external_id, row.customer_id, row.invoice_date, [])
        else:
            sale = Sale(external_id, last.customer_id, last.occurred_at, [])
        invoice.sale = sale
        self.sales.append(sale)
        return sale

    def refund(self, row: Row, sku: str) -> None:
        invoice = self._invoices.get(row.invoice_no)
        if invoice is None:
            invoice = self._invoices[row.invoice_no] = _Invoice(sells=False)
        invoice.refunds += 1
        external_id = _external_id(row.invoice_no, invoice.refunds, "R" if invoice.sells else "")
        quantity, price = -row.quantity, row.unit_price
        line = self._match(row.customer_id, sku, price, quantity)
        if line is None:
            sale, line_id, turn = None, None, 0
            amount_minor = money.line_amount(quantity, price, CURRENCY)
        else:
            sale, line_id = line.sale, line.id
            self._turns[sale] += 1
            turn = self._turns[sale]
            already = self._refunded.get((sale, line_id), 0)
            self._refunded[sale, line_id] = already + quantity
            amount_minor = money.refund_amount(already, quantity, price, CURRENCY)
        self.refunds.append(
            Refund(
                external_id,
                row.customer_id,
                row.invoice_date,
                sku,
                quantity,
                price,
                amount_minor,
                sale,
                line_id,
                turn,
            )
        )

    def _match(self, customer_id: str | None, sku: str, price: Decimal, quantity: int) -> Line | None:
        """The customer's latest line of the code at the price with as much left: a refund is not split over lines."""
        if customer_id is None:
            return None
        lines = self._open.get((customer_id, sku, price), [])
        for index in range(len(lines) - 1, -1, -1):
            line = lines[index]
            left = line.quantity - self._refunded.get((line.sale, line.id), 0)
            if left >= quantity:
                if left == quantity:
                    del lines[index]
                return line
        return None


def _external_id(invoice_no: str, number: int, mark: str) -> str:
    own = invoice_no.replace("#", "##")
    return own if number == 1 and not mark else f"{own}#{mark}{number}"
