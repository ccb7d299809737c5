"""From stored events to messages: which event is told under which name, with which row, on which topics.

A message's data is the row as the views have it by now: never older than the event, perhaps newer. Its `position` is the
event's, so that whoever goes on after it misses nothing.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import msgspec
from eventsourcing.utils import get_topic

from api import products, refunds
from api.feed import topics
from api.parts import Parts
from api.transactions import resources
from domain.products import Product
from domain.repairs import Repair
from domain.transactions import Refund, Transaction
from ledger import errors as ledger_errors
from ledger import read
from projections import products as product_view
from projections import refunds as refund_view
from projections import transactions as transaction_view

_ENCODER = msgspec.json.Encoder()


class Slice(msgspec.Struct, frozen=True):
    """What the feed tells of one slice. The row of an event is the one with its originator's id."""

    view: str
    names: Mapping[str, str]  # by the event's topic
    row: Callable[..., Any]  # of the view's COLUMNS
    resource: Callable[[Any, str], msgspec.Struct]  # of a row and the event's position's token: HTTP's `data`
    topics: Callable[[UUID, Any], tuple[str, ...]]  # of the tenant and a row


def _to_members(tenant_id: UUID, row: product_view.ProductRow) -> tuple[str, ...]:
    return topics.of_all_members(tenant_id)


def _to_parties(tenant_id: UUID, row: transaction_view.TransactionRow | refund_view.RefundRow) -> tuple[str, ...]:
    return topics.of_parties(row.buyer_id, row.affiliate_id)


SLICES = (
    Slice(
        product_view.NAME,
        {
            get_topic(Product.Listed): "product_listed",
            get_topic(Product.Renamed): "product_renamed",
            get_topic(Product.Repriced): "product_repriced",
            get_topic(Product.Retired): "product_retired",
        },
        product_view.row,
        products.of_row,
        _to_members,
    ),
    Slice(
        transaction_view.NAME,
        {
            get_topic(Transaction.Recorded): "new_transaction",
            get_topic(Transaction.Refunded): "transaction_refunded",
        },
        transaction_view.row,
        resources.of_row,
        _to_parties,
    ),
    Slice(
        refund_view.NAME,
        {get_topic(Refund.Recorded): "refund_recorded"},
        refund_view.row,
        refunds.of_row,
        _to_parties,
    ),
)
_BY_TOPIC = {topic: each for each in SLICES for topic in each.names}
REPAIRED = get_topic(Repair.ViewRepaired)
"""The topic of what tells of events that were parked, under their own names."""


NOWHERE = 0
"""The position of a message that is of no event: nobody can go on after it."""


class Frame(NamedTuple):
    """A message as one encoding writes it. Shared by all who get it."""

    position: int
    data: bytes


Encoding: TypeAlias = "Callable[[Message, str], Frame]"
"""Of a message and the topic on which it is told."""


class Message:
    """One event, ready to be told on its topics. Touched by the event loop's thread only."""

    __slots__ = ("_frames", "data", "name", "position", "token", "topics")

    def __init__(self, position: int, token: str, name: str, topics: tuple[str, ...], data: bytes) -> None:
        self.position = position
        self.token = token  # the position as outsiders see it
        self.name = name
        self.topics = topics
        self.data = data  # JSON, an object
        self._frames: dict[tuple[Encoding, str], Frame] = {}

    def frame(self, encode: Encoding, topic: str) -> Frame:
        """Encoded at the first asking."""
        found = self._frames.get((encode, topic))
        if found is None:
            found = self._frames[encode, topic] = encode(self, topic)
        return found


class _Told(NamedTuple):
    """What an event tells: of the row with that id, which shows what there was at `since`, or nothing is told."""

    entry: read.Entry
    of: Slice
    name: str
    id: UUID
    since: int


async def of(parts: Parts, tenant_id: UUID, entries: Sequence[read.Entry]) -> list[Message]:
    """The messages of these events, in order. Waits until the views have reached them.

    Raises ViewBehind, TooManyWaiters and what psycopg raises.
    """
    told: list[_Told] = []
    for entry in entries:
        if entry.topic in _BY_TOPIC:
            told.append(_told(entry, entry, _BY_TOPIC[entry.topic]))
        elif entry.topic == REPAIRED:
            told += await _of_repair(parts, entry)
    slices = {each.of.view: each.of for each in told}
    last = {each.of.view: each.entry.position for each in told}
    for view in slices:
        await parts.reached.wait(tenant_id, [view], last[view])
    found: dict[tuple[str, UUID], Any] = {}
    for view, each in slices.items():
        ids = list({one.id for one in told if one.of is each})
        asked = await asyncio.gather(*(parts.rows.find(view, tenant_id, id) for id in ids))
        parts.reached.check(tenant_id, [view], min(one.position for one in asked), last[view])
        found |= {(view, id): each.row(*one.row.columns) for id, one in zip(ids, asked, strict=True) if one.row}
    found_rows = [(each, found.get((each.of.view, each.id))) for each in told]
    return [
        _message(tenant_id, each, row, parts.tokens.token)
        for each, row in found_rows
        if row is not None and row.position >= each.since  # not of an event that its view has parked
    ]


def _told(entry: read.Entry, about: read.Entry, of: Slice) -> _Told:
    return _Told(entry, of, of.names[about.topic], about.originator_id, about.position)


async def _of_repair(parts: Parts, entry: read.Entry) -> list[_Told]:
    """What was not told when it was parked, under the name of the first event that was: nobody has heard of it."""
    codec = parts.ledger.codec
    about = (entry.originator_id, entry.originator_version)
    try:
        half = codec.parse(entry.topic, *about, entry.state)
    except ledger_errors.EventUnreadable:  # a newer release's
        return []
    repair = codec.finish(entry.tenant_id, *about, entry.recorded_at, half, {})
    if repair.parked_from is None:
        return []
    first = (await parts.ledger.entries(entry.tenant_id, repair.parked_from - 1, 1))[0]
    of = _BY_TOPIC.get(first.topic)
    return [] if of is None or of.view != repair.view else [_told(entry, first, of)]


def _message(tenant_id: UUID, told: _Told, row: Any, token: Callable[[UUID, int], str]) -> Message:
    position = token(tenant_id, told.entry.position)
    data = _ENCODER.encode(told.of.resource(row, position))
    return Message(told.entry.position, position, told.name, told.of.topics(tenant_id, row), data)
