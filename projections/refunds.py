"""The view `refunds`: a row for each refund, of a known sale or of none."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec

from domain.privacy import Erasure
from domain.transactions import Refund, Transaction
from ledger import read
from projections import failures, reading
from projections.columns import Int8s, Jsons, Texts, Times, Uuids
from projections.view import Batch, Cursor, Table, View

NAME = "refunds"

ERASE: LiteralString = """
UPDATE views.refunds SET buyer_ref = %(marker)s
WHERE tenant_id = %(tenant)s AND buyer_subject_id = ANY (%(subjects)s) AND buyer_ref IS NOT NULL
"""

# A refund is one event and never changes.
INSERT: LiteralString = """
INSERT INTO views.refunds (tenant_id, generation, refund_id, transaction_id, lines, amount_minor, currency, reason, source, external_id,
                           occurred_at, buyer_id, affiliate_id, buyer_subject_id, buyer_ref, inserted_at, position, version)
SELECT %b, %b, x.*
FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
     AS x (refund_id, transaction_id, lines, amount_minor, currency, reason, source, external_id,
           occurred_at, buyer_id, affiliate_id, buyer_subject_id, buyer_ref, inserted_at, position, version)
ON CONFLICT (tenant_id, generation, refund_id) DO NOTHING
"""

COLUMNS: LiteralString = (
    "refund_id, transaction_id, lines::text, amount_minor, currency, reason, source, external_id, occurred_at, buyer_id, affiliate_id,"
    " buyer_subject_id, buyer_ref, inserted_at, position"
)

PAGE: LiteralString = f"""
SELECT {COLUMNS} FROM views.refunds
WHERE tenant_id = %(tenant)s AND generation = %(generation)s
  AND (%(before)s::uuid IS NULL OR refund_id < %(before)s::uuid)
ORDER BY refund_id DESC LIMIT %(limit)s
"""

PAGE_OF_TRANSACTION: LiteralString = f"""
SELECT {COLUMNS} FROM views.refunds
WHERE tenant_id = %(tenant)s AND generation = %(generation)s AND transaction_id = %(transaction)s
  AND (%(person)s::uuid IS NULL OR buyer_id = %(person)s::uuid OR affiliate_id = %(person)s::uuid)
  AND (%(before)s::uuid IS NULL OR refund_id < %(before)s::uuid)
ORDER BY refund_id DESC LIMIT %(limit)s
"""

# Two walks along two indexes, as in `transactions`.
PAGE_OF_PERSON: LiteralString = f"""
SELECT * FROM (
    (SELECT {COLUMNS} FROM views.refunds
     WHERE tenant_id = %(tenant)s AND generation = %(generation)s AND buyer_id = %(person)s
       AND (%(before)s::uuid IS NULL OR refund_id < %(before)s::uuid)
     ORDER BY refund_id DESC LIMIT %(limit)s)
    UNION ALL
    (SELECT {COLUMNS} FROM views.refunds
     WHERE tenant_id = %(tenant)s AND generation = %(generation)s AND affiliate_id = %(person)s
       AND buyer_id IS DISTINCT FROM %(person)s
       AND (%(before)s::uuid IS NULL OR refund_id < %(before)s::uuid)
     ORDER BY refund_id DESC LIMIT %(limit)s)
) AS visible ORDER BY refund_id DESC LIMIT %(limit)s
"""

# Those without a sale: only they have a buyer's reference of their own.
PAGE_OF_SUBJECT: LiteralString = f"""
SELECT {COLUMNS} FROM views.refunds
WHERE tenant_id = %(tenant)s AND generation = %(generation)s AND buyer_subject_id = %(subject)s
  AND (%(before)s::uuid IS NULL OR refund_id < %(before)s::uuid)
ORDER BY refund_id DESC LIMIT %(limit)s
"""


# Places in COLUMNS.
BUYER_ID, AFFILIATE_ID = 9, 10


class RefundLineRow(msgspec.Struct, frozen=True):
    """What came back of one line of the sale, or line `line_id` of a refund without its sale."""

    line_id: int
    sku: str
    quantity: int
    amount_minor: int


class RefundRow(msgspec.Struct, frozen=True):
    """`transaction_id` is None if the sale is not known; then buyer_id and affiliate_id are None as well."""

    id: UUID
    transaction_id: UUID | None
    lines: list[RefundLineRow]
    amount_minor: int
    currency: str
    reason: str | None
    source: str | None
    external_id: str | None
    occurred_at: datetime
    buyer_id: UUID | None
    affiliate_id: UUID | None
    buyer_subject_id: UUID | None
    buyer_ref: str | None
    inserted_at: datetime
    position: int


_LINES = msgspec.json.Decoder(list[RefundLineRow])


class _Refund(msgspec.Struct, frozen=True):
    """What is different between the two kinds of refund."""

    id: UUID
    transaction_id: UUID | None
    buyer_id: UUID | None
    affiliate_id: UUID | None
    buyer_subject_id: UUID | None
    buyer_ref: str | None


async def project(batch: Batch, cursor: Cursor) -> None:
    """One statement for refunds of both kinds."""
    if made := batch.of(Transaction.Refunded, Refund.Recorded):
        await cursor.execute(INSERT, _columns(batch, made), prepare=True)


def _columns(batch: Batch, made: Sequence[read.Recorded]) -> list[object]:
    events = [recorded.event for recorded in made]
    refunds = [_refund(event) for event in events]
    return [
        batch.tenant_id,
        batch.generation,
        Uuids.of([refund.id for refund in refunds]),
        Uuids.of([refund.transaction_id for refund in refunds]),
        Jsons.of([event.lines for event in events]),
        Int8s.of([event.amount_minor for event in events]),
        Texts.of([event.currency for event in events]),
        Texts.of([event.reason for event in events]),
        Texts.of([event.source for event in events]),
        Texts.of([event.external_id for event in events]),
        Times.of([event.occurred_at for event in events]),
        Uuids.of([refund.buyer_id for refund in refunds]),
        Uuids.of([refund.affiliate_id for refund in refunds]),
        Uuids.of([refund.buyer_subject_id for refund in refunds]),
        Texts.of([refund.buyer_ref for refund in refunds]),
        Times.of([recorded.recorded_at for recorded in made]),
        Int8s.of([recorded.position for recorded in made]),
        Int8s.of([event.originator_version for event in events]),
    ]


def _refund(event: Any) -> _Refund:
    if isinstance(event, Transaction.Refunded):
        return _Refund(event.refund_id, event.originator_id, event.buyer_id, event.affiliate_id, None, None)
    return _Refund(event.originator_id, None, None, None, event.buyer_subject_id, event.buyer_ref)


def row(
    id: UUID,
    transaction_id: UUID | None,
    lines: str,
    amount_minor: int,
    currency: str,
    reason: str | None,
    source: str | None,
    external_id: str | None,
    occurred_at: datetime,
    buyer_id: UUID | None,
    affiliate_id: UUID | None,
    buyer_subject_id: UUID | None,
    buyer_ref: str | None,
    inserted_at: datetime,
    position: int,
) -> RefundRow:
    """Of COLUMNS."""
    return RefundRow(
        id,
        transaction_id,
        _LINES.decode(lines),
        amount_minor,
        currency,
        reason,
        source,
        external_id,
        occurred_at,
        buyer_id,
        affiliate_id,
        buyer_subject_id,
        buyer_ref,
        inserted_at,
        position,
    )


async def page(
    connection: reading.Connection,
    tenant_id: UUID,
    before: UUID | None,
    limit: int,
    *,
    visible_to: UUID | None = None,
) -> reading.Page[RefundRow]:
    """At most `limit` (1–100) rows, newest first, those before `before`. Raises ValueError for another limit.

    `visible_to` leaves those of sales of which that person is buyer or affiliate; None leaves all.
    """
    statement = PAGE if visible_to is None else PAGE_OF_PERSON
    return await reading.page(connection, NAME, tenant_id, row, statement, limit, before=before, person=visible_to)


async def page_of_transaction(
    connection: reading.Connection,
    tenant_id: UUID,
    transaction_id: UUID,
    before: UUID | None,
    limit: int,
    *,
    visible_to: UUID | None = None,
) -> reading.Page[RefundRow]:
    """The refunds of one sale, as `page`."""
    return await reading.page(
        *(connection, NAME, tenant_id, row, PAGE_OF_TRANSACTION, limit),
        before=before,
        transaction=transaction_id,
        person=visible_to,
    )


async def page_of_subject(
    connection: reading.Connection, tenant_id: UUID, before: UUID | None, limit: int, *, subject_id: UUID
) -> reading.Page[RefundRow]:
    """As `page`, the refunds without a sale under a buyer's reference, by its subject."""
    return await reading.page(
        *(connection, NAME, tenant_id, row, PAGE_OF_SUBJECT, limit), before=before, subject=subject_id
    )


VIEW = View(
    name=NAME,
    version=2,
    tables=(Table(name="refunds", key=("refund_id",), personal=("buyer_ref",), since={"version": 2}),),
    topics=(Transaction.Refunded, Refund.Recorded, Erasure.PersonErased),
    project=project,
    on_failure=failures.park_after(failures.ATTEMPTS),
    commutes=True,
    erase=ERASE,
)
