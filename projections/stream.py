"""What the views of a process read of the tenants' streams: each stretch is read and decoded once, for all views that ask.

Views ask for the same events one after another, so the last stretches are kept: who asks for a position inside one gets
the rest of it, and has thereby come into step with the others. The next one is read while the views are at work on this one.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import LiteralString, TypeAlias
from uuid import UUID

import msgspec

from ledger import codec, errors, keyring, read
from projections import positions

EVENTS_MAX = 1_000
"""A stretch's length. Larger ones are hardly faster, and at 64 KiB an event this is 64 MiB already."""
DECODED_AT_ONCE = 250
"""Events; then the event loop may do something else for a moment: requests are answered by the same process."""
KEPT_MAX = 4
"""Stretches of one tenant: those that the fastest and the slowest of the views are at, when they catch up together."""
KEPT_TENANTS_MAX = 100
"""More are not busy at one time; the events of the others are read once a view."""
KEPT_BYTES_MAX = 8 * 1024 * 1024
"""Of all that is kept, as it is stored; decoded it is about three times that. A longer stretch is for those who wait for it."""

# The head, which is no event, and the events. They are of one snapshot: every event up to that head is there.
STRETCH: LiteralString = """
SELECT position, NULL::uuid, NULL::int, NULL::text, NULL::timestamptz, NULL::bytea FROM ledger.heads WHERE tenant_id = %(tenant)s
UNION ALL
(SELECT position, originator_id, originator_version, topic, recorded_at, state FROM ledger.events
 WHERE tenant_id = %(tenant)s AND position > %(after)s AND position <= %(to)s AND topic = ANY (%(topics)s) ORDER BY position)
"""
OF_ORIGINATOR: LiteralString = """
SELECT position, originator_id, originator_version, topic, recorded_at, state FROM ledger.events
WHERE tenant_id = %(tenant)s AND originator_id = %(originator)s AND position = ANY (%(positions)s) ORDER BY position
"""


class Source(msgspec.Struct, frozen=True):
    """What decodes events."""

    codec: codec.Codec
    keyring: keyring.Keyring


class Unreadable(msgspec.Struct, frozen=True):
    """An event that cannot be decoded. Whoever wants it raises the error."""

    position: int
    originator_id: UUID
    topic: str
    error: Exception


Event: TypeAlias = read.Recorded | Unreadable


class Stretch(msgspec.Struct, frozen=True):
    """The events after `after` up to `to`, as far as their topics were asked for. Nothing is behind `after` if they are equal."""

    after: int
    to: int
    events: list[Event]
    state_bytes: int = 0  # of the events as they are stored

    def of(self, topics: frozenset[str]) -> list[Event]:
        """Those of some of the topics."""
        return [event for event in self.events if event.topic in topics]

    def part(self, after: int, limit: int) -> "Stretch":
        """At most `limit` positions of it, after `after`, which lies in it."""
        to = min(self.to, after + limit)
        if after == self.after and to == self.to:
            return self
        return Stretch(after, to, [event for event in self.events if after < event.position <= to])


def originator(event: Event) -> UUID:
    """Whose event it is."""
    found: UUID = event.originator_id if isinstance(event, Unreadable) else event.event.originator_id
    return found


class Stream:
    """Touched by the event loop's thread only. Lives until `close`; `connect` gives a connection of the projector's role."""

    def __init__(self, source: Source, connect: positions.Connect, topics: frozenset[str]) -> None:
        self._source = source
        self._connect = connect
        self._topics = sorted(topics)
        self._reading: dict[tuple[UUID, int], asyncio.Task[Stretch]] = {}  # by tenant and the position that it is after
        self._running: set[asyncio.Task[Stretch]] = set()  # those, and what was forgotten while it was read
        self._kept: OrderedDict[UUID, deque[Stretch]] = (
            OrderedDict()
        )  # by tenant, the one read last is last; oldest first
        self._kept_bytes = 0
        self._connection: positions.Connection | None = None
        self._one_at_a_time = asyncio.Lock()
        self._unsubscribe: Callable[[], None] = source.keyring.subscribe(self._forget)

    async def after(self, tenant_id: UUID, after: int, limit: int, *, ahead: bool = False) -> Stretch:
        """At most `limit` positions after `after`. Raises what psycopg raises, MasterKeyMissing.

        `ahead`: whoever asks has nothing else to do, and will ask for the next stretch; it is begun meanwhile.
        """
        stretch = self._known(tenant_id, after)
        if stretch is None:
            stretch = await asyncio.shield(self._begin(tenant_id, after, limit))
        if ahead and stretch.to - stretch.after == limit and self._known(tenant_id, stretch.to) is None:
            self._begin(tenant_id, stretch.to, limit)
        return stretch.part(after, limit)

    async def close(self) -> None:
        """Whoever waits for a stretch is told by CancelledError."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._kept.clear()
        await self._disconnect()

    def _known(self, tenant_id: UUID, after: int) -> Stretch | None:
        """What is kept has no gaps, whatever came to the stream since: a position in it is followed by the rest of it."""
        for stretch in self._kept.get(tenant_id, ()):
            if stretch.after <= after < stretch.to:
                return stretch
        return None

    def _begin(self, tenant_id: UUID, after: int, limit: int) -> asyncio.Task[Stretch]:
        key = (tenant_id, after)
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._read(tenant_id, after, limit), name="stretch")
            self._running.add(task)
            task.add_done_callback(lambda done: self._settle(key, done))
        return task

    def _settle(self, key: tuple[UUID, int], task: asyncio.Task[Stretch]) -> None:
        """Whoever is erased from now on is forgotten; who was erased while it was read is not told, so then it is not kept."""
        self._running.discard(task)
        if self._reading.get(key) is not task:
            return  # forgotten
        del self._reading[key]
        if task.cancelled() or task.exception() is not None:
            return  # those that wait for it are told
        stretch = task.result()
        if stretch.to == stretch.after or stretch.state_bytes > KEPT_BYTES_MAX:
            return
        kept = self._kept.setdefault(key[0], deque())
        self._kept.move_to_end(key[0])
        kept.append(stretch)
        self._kept_bytes += stretch.state_bytes
        if len(kept) > KEPT_MAX:
            self._kept_bytes -= kept.popleft().state_bytes
        while self._kept_bytes > KEPT_BYTES_MAX or len(self._kept) > KEPT_TENANTS_MAX:
            self._drop(next(iter(self._kept)))

    def _drop(self, tenant_id: UUID) -> None:
        """The oldest of its stretches."""
        kept = self._kept[tenant_id]
        self._kept_bytes -= kept.popleft().state_bytes
        if not kept:
            del self._kept[tenant_id]

    def _forget(self, tenant_id: UUID, subject_id: UUID) -> None:
        """Somebody was erased: nothing decoded of that tenant is kept any longer, nor what is being decoded."""
        while tenant_id in self._kept:
            self._drop(tenant_id)
        for key in [key for key in self._reading if key[0] == tenant_id]:
            del self._reading[key]

    async def _read(self, tenant_id: UUID, after: int, limit: int) -> Stretch:
        async with self._one_at_a_time:
            if self._connection is None or self._connection.closed:
                self._connection = await self._connect()
            try:
                return await read_stretch(self._connection, self._source, self._topics, tenant_id, after, limit)
            except BaseException:
                await self._disconnect()  # cancelled or failed in the middle: its state is not known
                raise

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def read_stretch(
    connection: positions.Connection,
    source: Source,
    topics: Sequence[str],
    tenant_id: UUID,
    after: int,
    limit: int,
) -> Stretch:
    """At most `limit` positions after `after`, decoded to be stored."""
    values = {"tenant": tenant_id, "after": after, "to": after + limit, "topics": list(topics)}
    rows = await (await connection.execute(STRETCH, values, prepare=True, binary=True)).fetchall()
    head = next((position for position, originator_id, *_ in rows if originator_id is None), 0)
    to = max(after, min(head, after + limit))
    entries = [_entry(tenant_id, *row) for row in rows if row[1] is not None]
    events = await _decoded(connection, source, tenant_id, entries)
    return Stretch(after, to, events, sum(len(entry.state) for entry in entries))


async def of_originator(
    connection: positions.Connection, source: Source, tenant_id: UUID, originator_id: UUID, at: Sequence[int]
) -> list[Event]:
    """The originator's events at these positions."""
    values = {"tenant": tenant_id, "originator": originator_id, "positions": list(at)}
    rows = await (await connection.execute(OF_ORIGINATOR, values, binary=True)).fetchall()
    return await _decoded(connection, source, tenant_id, [_entry(tenant_id, *row) for row in rows])


def _entry(
    tenant_id: UUID, position: int, originator_id: UUID, version: int, topic: str, recorded_at: datetime, state: bytes
) -> read.Entry:
    return read.Entry(tenant_id, position, originator_id, version, topic, recorded_at, state, b"", b"")


async def _decoded(
    connection: positions.Connection, source: Source, tenant_id: UUID, entries: Sequence[read.Entry]
) -> list[Event]:
    """As `ledger.read.decode`, to be stored; but one that cannot be decoded is in the way of none of the others, and the event
    loop has its turn now and then."""
    halves: list[codec.Parsed | Unreadable] = []
    for number, entry in enumerate(entries, start=1):
        halves.append(_parsed(source, entry))
        if number % DECODED_AT_ONCE == 0:
            await asyncio.sleep(0)
    subjects = (half.subject_id for half in halves if isinstance(half, codec.Parsed) and half.subject_id is not None)
    keys = await source.keyring.find_now(connection, tenant_id, subjects)
    events: list[Event] = []
    for number, (entry, half) in enumerate(zip(entries, halves, strict=True), start=1):
        events.append(half if isinstance(half, Unreadable) else _finished(source, entry, half, keys))
        if number % DECODED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return events


def _parsed(source: Source, entry: read.Entry) -> codec.Parsed | Unreadable:
    try:
        return source.codec.parse(entry.topic, entry.originator_id, entry.originator_version, entry.state)
    except (errors.EventUnreadable, errors.TopicUnknown) as error:
        return Unreadable(entry.position, entry.originator_id, entry.topic, error)


def _finished(source: Source, entry: read.Entry, half: codec.Parsed, keys: keyring.Keys) -> read.Recorded:
    originator_id, version = entry.originator_id, entry.originator_version
    event = source.codec.finish(entry.tenant_id, originator_id, version, entry.recorded_at, half, keys)
    return read.Recorded(entry.tenant_id, entry.position, entry.recorded_at, entry.topic, event)
