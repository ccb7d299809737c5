"""From stored events to messages: which event is told under which name, with which row, to whom.

A message's data is the row as the views have it by now: never older than the event, perhaps newer.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.utils import get_topic

from api import products, refunds
from api.parts import Parts
from api.rights import Who
from api.transactions import resources, visibility
from domain.products import Product
from domain.transactions import Refund, Transaction
from ledger import read
from projections import products as product_view
from projections import reading
from projections import refunds as refund_view
from projections import transactions as transaction_view

_ENCODER = msgspec.json.Encoder()


class Slice(msgspec.Struct, frozen=True):
    """What the feed tells of one slice. The row of an event is the one with its originator's id."""

    view: str
    names: Mapping[str, str]  # by the event's topic
    rows: Callable[[reading.Connection, UUID, Sequence[UUID]], Awaitable[reading.Many[Any]]]
    resource: Callable[[Any, str], msgspec.Struct]  # of a row and its position's token: HTTP's `data`
    sees: Callable[[Who, Any], bool]


def _members_see(who: Who, row: product_view.ProductRow) -> bool:
    return who.may("products:read")


def _parties_see(who: Who, row: transaction_view.TransactionRow | refund_view.RefundRow) -> bool:
    return visibility.sees(who, row.buyer_id, row.affiliate_id)


SLICES = (
    Slice(
        product_view.NAME,
        {
            get_topic(Product.Listed): "product_listed",
            get_topic(Product.Renamed): "product_renamed",
            get_topic(Product.Repriced): "product_repriced",
            get_topic(Product.Retired): "product_retired",
        },
        product_view.by_ids,
        products.of_row,
        _members_see,
    ),
    Slice(
        transaction_view.NAME,
        {
            get_topic(Transaction.Recorded): "new_transaction",
            get_topic(Transaction.Refunded): "transaction_refunded",
        },
        transaction_view.by_ids,
        resources.of_row,
        _parties_see,
    ),
    Slice(
        refund_view.NAME,
        {get_topic(Refund.Recorded): "refund_recorded"},
        refund_view.by_ids,
        refunds.of_row,
        _parties_see,
    ),
)
_BY_TOPIC = {topic: each for each in SLICES for topic in each.names}


class Message(msgspec.Struct, frozen=True):
    """One event, ready to be sent to all who see its row."""

    position: int
    frame: bytes
    slice: Slice
    row: Any

    def seen_by(self, who: Who) -> bool:
        return self.slice.sees(who, self.row)


async def of(parts: Parts, tenant_id: UUID, entries: Sequence[read.Entry]) -> list[Message]:
    """The messages of these events, in order. Waits until the views have reached them.

    Raises ViewBehind, TooManyWaiters and what psycopg raises.
    """
    told = [(entry, _BY_TOPIC[entry.topic]) for entry in entries if entry.topic in _BY_TOPIC]
    slices = {each.view: each for _, each in told}
    for view in slices:
        last = max(entry.position for entry, each in told if each.view == view)
        await parts.reached.wait(tenant_id, [view], last)
    rows: dict[tuple[str, UUID], Any] = {}
    if slices:
        async with parts.pool.connection() as connection:
            for view, each in slices.items():
                ids = list({entry.originator_id for entry, of_entry in told if of_entry is each})
                found = await each.rows(connection, tenant_id, ids)
                rows |= {(view, row.id): row for row in found.rows}
    return _encoded(parts, tenant_id, told, rows)


def _encoded(
    parts: Parts,
    tenant_id: UUID,
    told: Sequence[tuple[read.Entry, Slice]],
    rows: Mapping[tuple[str, UUID], Any],
) -> list[Message]:
    token = parts.tokens.token
    data = {
        (view, id): _ENCODER.encode(_of_view(view).resource(row, token(tenant_id, row.position)))
        for (view, id), row in rows.items()
    }
    return [
        Message(
            entry.position,
            frame(token(tenant_id, entry.position), each.names[entry.topic], data[each.view, entry.originator_id]),
            each,
            rows[each.view, entry.originator_id],
        )
        for entry, each in told
        if (each.view, entry.originator_id) in rows  # not of an event that its view has parked
    ]


def _of_view(view: str) -> Slice:
    return next(each for each in SLICES if each.view == view)


def frame(id: str, name: str, data: bytes) -> bytes:
    """A message of an event stream; JSON has no line breaks."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (id.encode(), name.encode(), data)


def ended(reason: str) -> bytes:
    """The last message of a stream. Without an id: it is no place to resume from."""
    return b"event: session_ended\ndata: %b\n\n" % _ENCODER.encode({"reason": reason})


def mark(id: str) -> bytes:
    """No message, but where to go on: keeps the connection alive, and a listener who sees little moves on."""
    return b"id: %b\n\n" % id.encode()
