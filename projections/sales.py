"""The view `sales`: what was sold and given back, by day and currency."""

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

import msgspec

from domain.transactions import Refund, Transaction
from ledger import read
from projections import failures, reading, travel
from projections.columns import Int8s, Texts, Times
from projections.view import Batch, Cursor, Table, View

NAME = "sales"

ROWS_MAX = 10_000
"""27 years of days in one currency, or a year in 27 of them; an answer is about a megabyte."""

# The only view that adds. A row says up to which position it has counted, and older events are not counted again. That the
# days are named keeps the server from reading all days of the generation where it has no statistics of it yet.
ADD: LiteralString = """
INSERT INTO views.sales_by_day AS s (tenant_id, generation, day, currency, count, gross_minor, refunded_minor, position)
SELECT %(tenant)b, %(generation)b, x.day, x.currency, sum(x.count), sum(x.gross_minor), sum(x.refunded_minor), max(x.position)
FROM (SELECT (e.occurred_at AT TIME ZONE 'UTC')::date AS day, e.currency, e.count, e.gross_minor, e.refunded_minor, e.position
      FROM unnest(%(occurred_at)b, %(currency)b, %(count)b, %(gross_minor)b, %(refunded_minor)b, %(position)b)
           AS e (occurred_at, currency, count, gross_minor, refunded_minor, position)) AS x
LEFT JOIN views.sales_by_day c ON c.tenant_id = %(tenant)b AND c.generation = %(generation)b AND c.day = x.day AND c.currency = x.currency
  AND c.day = ANY (ARRAY(SELECT DISTINCT (at AT TIME ZONE 'UTC')::date FROM unnest(%(occurred_at)b) AS at))
WHERE c.position IS NULL OR x.position > c.position
GROUP BY x.day, x.currency
ON CONFLICT (tenant_id, generation, day, currency) DO UPDATE
SET count = s.count + excluded.count, gross_minor = s.gross_minor + excluded.gross_minor,
    refunded_minor = s.refunded_minor + excluded.refunded_minor, position = excluded.position
"""

SUMMARY: LiteralString = """
SELECT day, currency, count, gross_minor, refunded_minor FROM views.sales_by_day
WHERE tenant_id = %(tenant)s AND generation = %(generation)s
  AND (%(from_day)s::date IS NULL OR day >= %(from_day)s::date)
  AND (%(to_day)s::date IS NULL OR day <= %(to_day)s::date)
ORDER BY day, currency LIMIT %(limit)s
"""


class SummaryTooLong(Exception):
    """More rows than one answer may have."""

    def __init__(self, from_day: date | None, to_day: date | None) -> None:
        super().__init__(
            f"The summary from {from_day or 'the first day'} to {to_day or 'the last day'} has more than {ROWS_MAX} rows. "
            "Ask for fewer days."
        )


class SalesRow(msgspec.Struct, frozen=True):
    """A day's sales in one currency, in its minor units. `count` counts sales, not refunds."""

    day: date
    currency: str
    count: int
    gross_minor: int
    refunded_minor: int

    @property
    def net_minor(self) -> int:
        return self.gross_minor - self.refunded_minor


class SalesTotal(msgspec.Struct, frozen=True):
    """The same over all the days of a summary."""

    currency: str
    count: int
    gross_minor: int
    refunded_minor: int

    @property
    def net_minor(self) -> int:
        return self.gross_minor - self.refunded_minor


class Summary(msgspec.Struct, frozen=True):
    """`rows` in order of day and currency, `totals` in order of currency. `position` is the view's, in the same snapshot."""

    rows: list[SalesRow]
    totals: list[SalesTotal]
    position: int


async def project(batch: Batch, cursor: Cursor) -> None:
    """One statement: sums by day and currency."""
    if sold := batch.of(Transaction.Recorded, Transaction.Refunded, Refund.Recorded):
        await cursor.execute(ADD, _columns(batch, sold), prepare=True)


def _columns(batch: Batch, sold: Sequence[read.Recorded]) -> dict[str, Any]:
    events = [recorded.event for recorded in sold]
    sales = [isinstance(event, Transaction.Recorded) for event in events]
    return {
        "tenant": batch.tenant_id,
        "generation": batch.generation,
        "occurred_at": Times.of([event.occurred_at for event in events]),
        "currency": Texts.of([event.currency for event in events]),
        "count": Int8s.of([1 if sale else 0 for sale in sales]),
        "gross_minor": Int8s.of([e.amount_minor if sale else 0 for e, sale in zip(events, sales, strict=True)]),
        "refunded_minor": Int8s.of([0 if sale else e.amount_minor for e, sale in zip(events, sales, strict=True)]),
        "position": Int8s.of([recorded.position for recorded in sold]),
    }


def _row(day: date, currency: str, count: int, gross_minor: Decimal, refunded_minor: Decimal) -> SalesRow:
    return SalesRow(day, currency, count, int(gross_minor), int(refunded_minor))


async def summary(
    connection: reading.Connection, tenant_id: UUID, from_day: date | None, to_day: date | None
) -> Summary:
    """The days from `from_day` to `to_day`, both included; None is the first and the last day there is.

    Raises SummaryTooLong.
    """
    found = await reading.many(
        connection, NAME, tenant_id, _row, SUMMARY, from_day=from_day, to_day=to_day, limit=ROWS_MAX + 1
    )
    return _summed(found.rows, found.position, from_day, to_day)


async def summary_of(past: travel.Past, from_day: date | None, to_day: date | None) -> Summary:
    """As `summary`, of this view as it stood. Raises SummaryTooLong."""
    rows = await past.many(_row, SUMMARY, from_day=from_day, to_day=to_day, limit=ROWS_MAX + 1)
    return _summed(rows, past.position, from_day, to_day)


def _summed(rows: list[SalesRow], position: int, from_day: date | None, to_day: date | None) -> Summary:
    if len(rows) > ROWS_MAX:
        raise SummaryTooLong(from_day, to_day)
    return Summary(rows, totals(rows), position)


def totals(rows: Iterable[SalesRow]) -> list[SalesTotal]:
    """Sums by currency, in order of currency."""
    sums: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        count, gross, refunded = sums.get(row.currency, (0, 0, 0))
        sums[row.currency] = (count + row.count, gross + row.gross_minor, refunded + row.refunded_minor)
    return [SalesTotal(currency, *sums[currency]) for currency in sorted(sums)]


VIEW = View(
    name=NAME,
    version=1,
    tables=(Table(name="sales_by_day", key=("day", "currency")),),
    topics=(Transaction.Recorded, Transaction.Refunded, Refund.Recorded),
    project=project,
    on_failure=failures.stop_after(failures.ATTEMPTS),  # a sum without some of its sales is no sum
)
