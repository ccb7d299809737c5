"""The stream as it is stored, for who may read it whole."""

import base64
import re
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from api import answers, errors, past
from api.asked import Reader
from api.rights import may
from api.routes import get
from api.sent import Found
from ledger import chain, read, replay

ENTRIES_DEFAULT = 100
ENTRIES_MAX = 1_000
"""An entry has up to 64 KiB; usual ones make a page of half a megabyte."""
POSITION_MAX = 2**63 - 1
EVENTS_REPLAYED_MAX = 10_000
"""Of one aggregate and request: some 220 ms, in stretches of 15 between which others have their turn. The longest aggregates of ours
are sessions: one that is refreshed every 15 minutes comes to it after 104 days."""
AGGREGATE_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,10})")
"""The position that the first page was asked for, and the version of the last event shown."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the tenant's stream. `hash` in hexadecimal."""

    tenant_id: UUID
    position: int
    hash: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event as it is stored. `state` and `metadata` hold the stored bytes exactly: as text, or in base64 if `encoding`
    says so. `hash` and `previous_hash` in hexadecimal."""

    position: int
    topic: str
    originator_id: UUID
    originator_version: int
    recorded_at: datetime
    state: str
    metadata: str
    hash: str
    previous_hash: str
    encoding: str | None = None


class EntriesMeta(msgspec.Struct, frozen=True, kw_only=True):
    """`next_cursor` is what to pass as `from` for the next page, null at the end of the stream."""

    next_cursor: str | None
    head: int


class Entries(msgspec.Struct, frozen=True, kw_only=True):
    data: list[Entry]
    meta: EntriesMeta


class AggregateEntry(Entry, frozen=True, kw_only=True, omit_defaults=True):
    """An event as it is stored, and `fields`, which is what `state` says: persons' data in clear, or `[erased]`."""

    fields: dict[str, Any]


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate as it was when the stream ended at `position`: `state` is what its first `version` events make it, of which
    `events` shows a page."""

    id: UUID
    kind: str
    position: int
    version: int
    state: dict[str, Any]
    events: list[AggregateEntry]


class AggregateMeta(msgspec.Struct, frozen=True, kw_only=True):
    """`next_cursor` leads to the next events, of the same position; null at the end."""

    next_cursor: str | None


class AggregatePage(msgspec.Struct, frozen=True, kw_only=True):
    data: Aggregate
    meta: AggregateMeta


class LedgerController(Controller):
    path = "/ledger"
    tags = ("ledger",)

    @get("/head", operation_id="showLedgerHead", operation_class=answers.Query, guards=[may("ledger:read")])
    async def head(self, reader: NamedDependency[Reader]) -> Response[answers.Data[Head]]:
        """Position and hash of the tenant's last event."""
        await reader.head()
        head = await reader.parts.ledger.head(reader.tenant_id)
        resource = Head(tenant_id=head.tenant_id, position=head.position, hash=head.hash.hex())
        return answers.one(resource, head.position)

    @get("/entries", operation_id="listLedgerEntries", operation_class=answers.Query, guards=[may("ledger:read")])
    async def entries(
        self,
        reader: NamedDependency[Reader],
        first: Annotated[int, QueryParameter(name="from", ge=1, le=POSITION_MAX)] = 1,
        limit: Annotated[int, QueryParameter(ge=1, le=ENTRIES_MAX)] = ENTRIES_DEFAULT,
    ) -> Response[Entries]:
        """Events in order of position, from the position `from` on."""
        head = await reader.head()
        found = await _with_the_one_before(reader, first, limit)
        previous = found[0].hash if first > 1 and found else chain.genesis(reader.tenant_id)
        data: list[Entry] = []
        for entry in found[1:] if first > 1 else found:
            data.append(_entry(entry, previous))
            previous = entry.hash
        following = data[-1].position + 1 if data else first
        meta = EntriesMeta(next_cursor=str(following) if following <= head else None, head=head)
        return Found(Entries(data=data, meta=meta), head)

    @get(
        "/aggregates/{aggregate_id:uuid}",
        operation_id="showLedgerAggregate",
        operation_class=answers.Query,
        guards=[may("ledger:read")],
    )
    async def aggregate(
        self,
        aggregate_id: FromPath[UUID],
        reader: NamedDependency[Reader],
        at: FromQuery[str | None] = None,
        cursor: FromQuery[str | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=ENTRIES_MAX)] = ENTRIES_DEFAULT,
    ) -> Response[AggregatePage]:
        """An aggregate's events, and what they made it, as of `at`: a position, or an instant (RFC 3339), which means the last
        position that was recorded by then. Without it, now. A cursor remembers it. Of at most 10,000 events.
        """
        to, after = (await past.position(reader, at), 0) if cursor is None else await _continued(reader, cursor)
        shown: list[replay.Happened] = []

        def happened(each: replay.Happened) -> None:
            if after < each.entry.originator_version <= after + limit:
                shown.append(each)

        ledger = reader.parts.ledger
        async with reader.parts.pool.connection() as connection:
            found = await replay.aggregate(
                *(connection, ledger.codec, ledger.keyring, reader.tenant_id, aggregate_id, to),
                events_max=EVENTS_REPLAYED_MAX,
                happened=happened,
            )
        events = [_aggregate_entry(each) for each in shown]
        resource = Aggregate(
            id=found.id, kind=found.kind, position=to, version=found.version, state=found.state, events=events
        )
        following = f"{to}.{after + len(events)}" if after + len(events) < found.version else None
        answer = AggregatePage(data=resource, meta=AggregateMeta(next_cursor=following))
        return Found(answer, to)


async def _continued(reader: Reader, cursor: str) -> tuple[int, int]:
    """The position and the version at which the page before ended. Raises RequestRefused."""
    found = AGGREGATE_CURSOR.fullmatch(cursor)
    if found is None or int(found[1]) > await reader.head():
        text = f"The cursor {cursor[:40]!r} is none of ours. Use next_cursor of the page before, or none."
        raise errors.RequestRefused(errors.INVALID, text, {"cursor": [text]})
    return int(found[1]), int(found[2])


async def _with_the_one_before(reader: Reader, first: int, limit: int) -> list[read.Entry]:
    """The entry before `first`, if there is one: its hash is the first entry's previous hash."""
    if first == 1:
        return await reader.parts.ledger.entries(reader.tenant_id, 0, limit)
    return await reader.parts.ledger.entries(reader.tenant_id, first - 2, limit + 1)


def _entry(entry: read.Entry, previous: bytes) -> Entry:
    state, metadata, encoding = _texts(entry)
    return Entry(
        position=entry.position,
        topic=entry.topic,
        originator_id=entry.originator_id,
        originator_version=entry.originator_version,
        recorded_at=entry.recorded_at,
        state=state,
        metadata=metadata,
        hash=entry.hash.hex(),
        previous_hash=previous.hex(),
        encoding=encoding,
    )


def _aggregate_entry(happened: replay.Happened) -> AggregateEntry:
    return AggregateEntry(
        **msgspec.structs.asdict(_entry(happened.entry, happened.previous_hash)), fields=happened.fields
    )


def _texts(entry: read.Entry) -> tuple[str, str, str | None]:
    """State and metadata, and how they are encoded."""
    try:
        return entry.state.decode(), entry.metadata.decode(), None
    except UnicodeDecodeError:
        state, metadata = (base64.b64encode(each).decode() for each in (entry.state, entry.metadata))
        return state, metadata, "base64"
