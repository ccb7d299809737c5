"""The view `transactions`: a row for each sale, as its refunds left it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec

from domain.privacy import Erasure
from domain.transactions import Transaction
from ledger import read
from projections import failures, reading
from projections.columns import Int8s, Jsonbs, Jsons, Texts, Times, Uuids
from projections.view import Batch, Cursor, Table, View

NAME = "transactions"

ERASE: LiteralString = """
UPDATE views.transactions SET buyer_ref = %(marker)s
WHERE tenant_id = %(tenant)s AND buyer_subject_id = ANY (%(subjects)s) AND buyer_ref IS NOT NULL
"""

INSERT_RECORDED: LiteralString = """
INSERT INTO views.transactions (tenant_id, generation, transaction_id, lines, amount_minor, refunded_minor, currency, status, buyer_id,
                                buyer_subject_id, buyer_ref, affiliate_id, source, external_id, occurred_at, metadata,
                                inserted_at, updated_at, position, version)
SELECT %b, %b, x.id, x.lines, x.amount_minor, 0, x.currency, 'recorded', x.buyer_id, x.buyer_subject_id, x.buyer_ref,
       x.affiliate_id, x.source, x.external_id, x.occurred_at, x.metadata, x.at, x.at, x.position, x.version
FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
     AS x (id, lines, amount_minor, currency, buyer_id, buyer_subject_id, buyer_ref, affiliate_id, source, external_id,
           occurred_at, metadata, at, position, version)
ON CONFLICT (tenant_id, generation, transaction_id) DO NOTHING
"""

# Refunds carry what stands after them, so they are assigned, never added. The guard on position makes a repeat harmless. That
# the ids are named a second time keeps the server from reading the whole generation where it has no statistics of it yet.
UPDATE_REFUNDED: LiteralString = """
UPDATE views.transactions t
SET refunded_lines = t.refunded_lines || x.refunded_lines, refunded_minor = x.refunded_minor, status = x.status,
    updated_at = x.at, position = x.position, version = x.version
FROM unnest(%b, %b, %b, %b, %b, %b, %b) AS x (id, refunded_lines, refunded_minor, status, at, position, version)
WHERE t.tenant_id = %b AND t.generation = %b AND t.transaction_id = ANY (%b) AND t.transaction_id = x.id AND t.position < x.position
"""

COLUMNS: LiteralString = (
    "transaction_id, lines::text, refunded_lines::text, amount_minor, refunded_minor, currency, status, buyer_id, buyer_subject_id,"
    " buyer_ref, affiliate_id, source, external_id, occurred_at, metadata::text, inserted_at, updated_at, position"
)

# The values stand in the text, so what is not asked for is gone before an index is chosen. Each of these has its own.
FILTER: LiteralString = """
      AND (%(before)s::uuid IS NULL OR transaction_id < %(before)s::uuid)
      AND (%(status)s::text IS NULL OR status = %(status)s::text)
      AND (%(buyer)s::uuid IS NULL OR buyer_id = %(buyer)s::uuid)
      AND (%(affiliate)s::uuid IS NULL OR affiliate_id = %(affiliate)s::uuid)
"""

PAGE: LiteralString = f"""
SELECT {COLUMNS} FROM views.transactions
WHERE tenant_id = %(tenant)s AND generation = %(generation)s{FILTER}
ORDER BY transaction_id DESC LIMIT %(limit)s
"""

# Two walks along two indexes, each in the order of the page; one condition with OR would sort all of a person's rows.
PAGE_OF_PERSON: LiteralString = f"""
SELECT * FROM (
    (SELECT {COLUMNS} FROM views.transactions
     WHERE tenant_id = %(tenant)s AND generation = %(generation)s AND buyer_id = %(person)s{FILTER}
     ORDER BY transaction_id DESC LIMIT %(limit)s)
    UNION ALL
    (SELECT {COLUMNS} FROM views.transactions
     WHERE tenant_id = %(tenant)s AND generation = %(generation)s AND affiliate_id = %(person)s
       AND buyer_id IS DISTINCT FROM %(person)s{FILTER}
     ORDER BY transaction_id DESC LIMIT %(limit)s)
) AS visible ORDER BY transaction_id DESC LIMIT %(limit)s
"""

# Of whoever bought under a reference, without what PAGE_OF_PERSON has of the person: the two together have each sale once.
PAGE_OF_SUBJECT: LiteralString = f"""
SELECT {COLUMNS} FROM views.transactions
WHERE tenant_id = %(tenant)s AND generation = %(generation)s AND buyer_subject_id = %(subject)s
  AND buyer_id IS DISTINCT FROM %(person)s AND affiliate_id IS DISTINCT FROM %(person)s
  AND (%(before)s::uuid IS NULL OR transaction_id < %(before)s::uuid)
ORDER BY transaction_id DESC LIMIT %(limit)s
"""


# Places in COLUMNS.
BUYER_ID, BUYER_REF, AFFILIATE_ID = 7, 9, 10


class LineRow(msgspec.Struct):
    """A line as recorded, and how many units of it have come back. `product_id` and `unit_price` as they are written: whoever
    reads a page would make 60 of each, only to have them written again, which was a third of the page's time."""

    id: int
    product_id: str
    sku: str
    quantity: int
    unit_price: str
    amount_minor: int
    refunded_quantity: int = 0


class TransactionRow(msgspec.Struct, frozen=True):
    """Amounts are minor units of `currency`. `position` is that of the last event applied to the row."""

    id: UUID
    lines: list[LineRow]
    amount_minor: int
    refunded_minor: int
    currency: str
    status: str
    buyer_id: UUID | None
    buyer_subject_id: UUID | None
    buyer_ref: str | None
    affiliate_id: UUID | None
    source: str | None
    external_id: str | None
    occurred_at: datetime
    metadata: dict[str, Any]
    inserted_at: datetime
    updated_at: datetime
    position: int


_LINES = msgspec.json.Decoder(list[LineRow])
_REFUNDED_LINES = msgspec.json.Decoder(dict[int, int])


async def project(batch: Batch, cursor: Cursor) -> None:
    """New sales by one statement; refunds by another one, folded to one change a sale."""
    if recorded := batch.of(Transaction.Recorded):
        await cursor.execute(INSERT_RECORDED, _recorded_columns(batch, recorded), prepare=True)
    if refunded := batch.by_originator(Transaction.Refunded):
        await cursor.execute(UPDATE_REFUNDED, _refunded_columns(batch, refunded), prepare=True)


def _recorded_columns(batch: Batch, sales: Sequence[read.Recorded]) -> list[object]:
    events = [recorded.event for recorded in sales]
    return [
        batch.tenant_id,
        batch.generation,
        Uuids.of([event.originator_id for event in events]),
        Jsons.of([event.lines for event in events]),
        Int8s.of([event.amount_minor for event in events]),
        Texts.of([event.currency for event in events]),
        Uuids.of([event.buyer_id for event in events]),
        Uuids.of([event.buyer_subject_id for event in events]),
        Texts.of([event.buyer_ref for event in events]),
        Uuids.of([event.affiliate_id for event in events]),
        Texts.of([event.source for event in events]),
        Texts.of([event.external_id for event in events]),
        Times.of([event.occurred_at for event in events]),
        Jsons.of([event.metadata for event in events]),
        Times.of([recorded.recorded_at for recorded in sales]),
        Int8s.of([recorded.position for recorded in sales]),
        Int8s.of([event.originator_version for event in events]),
    ]


def _refunded_columns(batch: Batch, refunded: dict[UUID, list[read.Recorded]]) -> list[object]:
    last = [happened[-1] for happened in refunded.values()]
    ids = Uuids.of(list(refunded))
    return [
        ids,
        Jsonbs.of(
            [
                {line.line_id: line.refunded_quantity for recorded in happened for line in recorded.event.lines}
                for happened in refunded.values()
            ]
        ),
        Int8s.of([recorded.event.refunded_minor for recorded in last]),
        Texts.of([recorded.event.status for recorded in last]),
        Times.of([recorded.recorded_at for recorded in last]),
        Int8s.of([recorded.position for recorded in last]),
        Int8s.of([recorded.event.originator_version for recorded in last]),
        batch.tenant_id,
        batch.generation,
        ids,
    ]


def row(
    id: UUID,
    lines: str,
    refunded_lines: str,
    amount_minor: int,
    refunded_minor: int,
    currency: str,
    status: str,
    buyer_id: UUID | None,
    buyer_subject_id: UUID | None,
    buyer_ref: str | None,
    affiliate_id: UUID | None,
    source: str | None,
    external_id: str | None,
    occurred_at: datetime,
    metadata: str,
    inserted_at: datetime,
    updated_at: datetime,
    position: int,
) -> TransactionRow:
    """Of COLUMNS."""
    return TransactionRow(
        id,
        _lines(lines, refunded_lines),
        amount_minor,
        refunded_minor,
        currency,
        status,
        buyer_id,
        buyer_subject_id,
        buyer_ref,
        affiliate_id,
        source,
        external_id,
        occurred_at,
        {} if metadata == "{}" else msgspec.json.decode(metadata),
        inserted_at,
        updated_at,
        position,
    )


def _lines(lines: str, refunded_lines: str) -> list[LineRow]:
    found = _LINES.decode(lines)
    if refunded_lines != "{}":
        refunded = _REFUNDED_LINES.decode(refunded_lines)
        for line in found:
            line.refunded_quantity = refunded.get(line.id, 0)
    return found


async def page(
    connection: reading.Connection,
    tenant_id: UUID,
    before: UUID | None,
    limit: int,
    *,
    visible_to: UUID | None = None,
    status: str | None = None,
    buyer_id: UUID | None = None,
    affiliate_id: UUID | None = None,
) -> reading.Page[TransactionRow]:
    """At most `limit` (1–100) rows, newest first, those before `before`. Raises ValueError for another limit.

    `visible_to` leaves those of which that person is buyer or affiliate; None leaves all. So do the other filters.
    """
    statement = PAGE if visible_to is None else PAGE_OF_PERSON
    return await reading.page(
        *(connection, NAME, tenant_id, row, statement, limit),
        before=before,
        person=visible_to,
        status=status,
        buyer=buyer_id,
        affiliate=affiliate_id,
    )


async def page_of_subject(
    connection: reading.Connection,
    tenant_id: UUID,
    before: UUID | None,
    limit: int,
    *,
    subject_id: UUID,
    but_of: UUID,
) -> reading.Page[TransactionRow]:
    """As `page`, what was sold under a buyer's reference, by its subject, but to or through that person's account."""
    return await reading.page(
        *(connection, NAME, tenant_id, row, PAGE_OF_SUBJECT, limit), before=before, subject=subject_id, person=but_of
    )


VIEW = View(
    name=NAME,
    version=2,
    tables=(Table(name="transactions", key=("transaction_id",), personal=("buyer_ref",), since={"version": 2}),),
    topics=(Transaction.Recorded, Transaction.Refunded, Erasure.PersonErased),
    project=project,
    on_failure=failures.park_after(failures.ATTEMPTS),
    commutes=True,
    erase=ERASE,
)
