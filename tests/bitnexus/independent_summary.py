"""What an import of a retail file has to come to, computed a second time and naively.

Written from the rules in words, with csv and decimal only, so that a mistake in the product cannot hide in its test: this
module imports nothing of ours, and nothing of ours may be made to agree with it by sharing code.

- A row is accepted if UnitPrice > 0 and Quantity is not 0.
- Positive rows of an invoice are the lines of a sale on the UTC day of its first accepted row; every 250 lines are one.
- A line's amount is quantity times unit price, rounded half to even to pennies.
- A negative row is a refund on its own day: of the same customer's latest earlier line of that code at that unit price
  that has enough left, and then worth what the line's rounded amount shrinks by; else it is unmatched and worth its own
  rounded amount. A guest's refund is unmatched.
"""

import csv
import gzip
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

LINES_PER_SALE = 250


@dataclass
class Day:
    """Amounts are pennies."""

    count: int = 0
    gross: int = 0
    refunded: int = 0

    @property
    def net(self) -> int:
        return self.gross - self.refunded


@dataclass
class Summary:
    rows: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    products: int = 0
    transactions: int = 0
    refunds_matched: int = 0
    refunds_unmatched: int = 0
    days: dict[tuple[str, str], Day] = field(default_factory=dict)  # (day, currency), in order of the day
    total: Day = field(default_factory=Day)


@dataclass
class SoldLine:
    code: str
    price: Decimal
    quantity: int
    refunded: int = 0


def pennies(quantity: int, price: Decimal) -> int:
    return int((quantity * price * 100).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def summarise(path: Path) -> Summary:
    summary = Summary()
    days: dict[str, Day] = defaultdict(Day)
    codes = set()
    sold: dict[str, list[SoldLine]] = defaultdict(list)
    day_of_invoice: dict[str, str] = {}
    lines_of_invoice: Counter[str] = Counter()
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            summary.rows += 1
            quantity, price = int(row["Quantity"]), Decimal(row["UnitPrice"])
            if not price > 0:
                summary.rejected["price_not_positive"] += 1
                continue
            if quantity == 0:
                summary.rejected["quantity_zero"] += 1
                continue
            summary.accepted += 1
            code, customer, invoice = row["StockCode"], row["CustomerID"].strip(), row["InvoiceNo"]
            codes.add(code)
            if quantity > 0:
                day = days[day_of_invoice.setdefault(invoice, row["InvoiceDate"][:10])]
                if lines_of_invoice[invoice] % LINES_PER_SALE == 0:
                    day.count += 1
                lines_of_invoice[invoice] += 1
                day.gross += pennies(quantity, price)
                sold[customer].append(SoldLine(code, price, quantity))
                continue
            wanted = -quantity
            candidates = [] if customer == "" else reversed(sold[customer])
            for line in candidates:
                if line.code == code and line.price == price and line.quantity - line.refunded >= wanted:
                    amount = pennies(line.refunded + wanted, price) - pennies(line.refunded, price)
                    line.refunded += wanted
                    summary.refunds_matched += 1
                    break
            else:
                amount = pennies(wanted, price)
                summary.refunds_unmatched += 1
            days[row["InvoiceDate"][:10]].refunded += amount
    summary.products = len(codes)
    summary.days = {(day, "GBP"): days[day] for day in sorted(days)}
    summary.transactions = sum(day.count for day in days.values())
    summary.total = Day(
        summary.transactions, sum(day.gross for day in days.values()), sum(day.refunded for day in days.values())
    )
    return summary
