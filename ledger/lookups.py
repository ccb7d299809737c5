"""Aggregates, by id or as holders of reservations: looked up together, and kept where they may be.

What commands ask for while an earlier look-up is in flight goes as one call of `ledger.look_up`, as appends do. What is kept
spares reading and folding, never asking: each call brings the events that came since, and the hash of the last event that is
known. That hash covers the whole stream before it, so a database that was restored to an earlier state, or another one, is
noticed.

Aggregates that hold something of a person are not kept: whoever is erased is then forgotten with the keys (keyring.py).
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from eventsourcing.domain import Aggregate
from psycopg import AsyncConnection
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from ledger import arrays, errors, lane
from ledger.codec import Codec, Parsed
from ledger.keyring import Keyring

A = TypeVar("A", bound=Aggregate)

CALLS_MAX = 2
"""In flight, as flushes are: while the database reads for one, the process folds what came of the other."""
SECOND_ASKS_MIN = 32
"""From here on those who wait are asked for by a second call; fewer go together when the first is answered, as of flushes."""
WANTED_PER_CALL_MAX = 1_000
KEPT_BYTES_MAX = 64 * 1024 * 1024
HOLDERS_KEPT_MAX = 50_000
"""Of 200 to 300 bytes each."""
AGGREGATE_BYTES, EVENT_BYTES, STATE_FACTOR = 1_500, 100, 4
"""What an aggregate weighs here: an object's own weight, and for each event its state's length times what Python makes of JSON.
More than it does in truth, for nearly all: the bound is meant to hold."""
RECOVERY_S_MAX = 5.0
"""How long a look-up waits for a database that went away: no longer than for a free connection."""

STATEMENTS = {"look_up": "AS SELECT * FROM ledger.look_up($1, $2, $3, $4, $5, $6)"}
NOBODY = bytes(16)
"""In the place of an owner that is not known."""
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_CONTAINERS = frozenset((list, dict, set))

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


class Wanted(NamedTuple):
    """An aggregate, by its id's 16 bytes (kind ""), or the holder of a reservation, by kind and reference. The tenant is its id's number:
    what is looked up in dictionaries here is no UUID, as those are hashed in Python."""

    tenant: int
    kind: str
    key: bytes


class _Event(NamedTuple):
    version: int
    recorded_at: datetime
    parsed: Parsed


class Known(NamedTuple):
    """The asker's own, its id, and the hash of its last event."""

    aggregate: Aggregate
    owner: bytes
    hash: bytes


class _Kept(NamedTuple):
    """Shared by all who ask: nobody changes it, everybody gets a copy."""

    aggregate: Aggregate
    hash: bytes  # of its last event
    size: int


class _Read:
    """What a call brought of one wanted thing."""

    def __init__(self, owner: bytes, base: _Kept | None) -> None:
        self.owner = owner
        self.is_checked = base is None  # the database has the event that is known as the last one
        self.events: list[_Event] = []
        self.hash = b"" if base is None else base.hash
        self.size = AGGREGATE_BYTES if base is None else base.size
        self.error: errors.LedgerError | None = None  # one of the events cannot be read: those who want this are told
        self.folded: Aggregate | None = None if base is None else base.aggregate  # by the first who asked


class _Stale(Exception):
    """What is kept is not what the database has: it was restored, or is another one."""


_Found = dict[Wanted, _Read]
_Ask = tuple[Sequence[Wanted], "asyncio.Future[_Found]"]


class Lookups:
    """Lives from `start` to `close`. All of it is touched by the event loop's thread only.

    `connect` gives connections of the app role in autocommit, as `pool` does. `kept_bytes_max`: 0 keeps nothing.
    """

    def __init__(
        self,
        connect: lane.Connect,
        pool: Pool,
        codec: Codec,
        keyring: Keyring,
        kept_bytes_max: int = KEPT_BYTES_MAX,
    ) -> None:
        self._lane = lane.Lane(
            connect, STATEMENTS, lock_timeout_ms=0, recovery_s_max=RECOVERY_S_MAX, recovered=self._recovered
        )
        self._checking: asyncio.Task[None] | None = None
        self._pool = pool
        self._codec = codec
        self.keyring = keyring
        self._asked: deque[_Ask] = deque()
        self._in_flight = 0
        self._scheduled = False
        self.calls = 0
        self._kept: OrderedDict[tuple[int, bytes], _Kept] = OrderedDict()  # least recently used first
        self._kept_bytes, self._kept_bytes_max = 0, kept_bytes_max
        self._holders: OrderedDict[Wanted, bytes] = OrderedDict()  # as they were; least recently used first

    async def start(self) -> None:
        """Connects; raises psycopg.OperationalError if the database is not there."""
        await self._lane.open()

    async def close(self) -> None:
        """Look-ups without an answer are cancelled."""
        await self._lane.close()
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)

    @property
    def kept_bytes(self) -> int:
        """What the aggregates that are kept weigh, at the most."""
        return self._kept_bytes

    async def find(self, wanted: Sequence[Wanted]) -> dict[Wanted, Known]:
        """Those that there are.

        Raises DatabaseAway, and what the codec raises for an event that it cannot read.
        """
        answer: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()
        self._asked.append((wanted, answer))
        self._schedule()
        found = await answer
        return {
            each: Known(copied(await self._fold(each.tenant, read)), read.owner, read.hash)
            for each, read in found.items()
            if each in wanted
        }

    def at_hand(self, wanted: Sequence[Wanted]) -> dict[Wanted, Known] | None:
        """Those that are kept, as each was when it was last asked for; None if one is not. Nothing is asked: whoever decides upon them
        has them validated by the append."""
        found: dict[Wanted, Known] = {}
        for each in wanted:
            owner, kept = self._base(each)
            if kept is None:
                return None
            found[each] = Known(copied(kept.aggregate), owner, kept.hash)
        return found

    def forget(self, tenant_id: UUID, id: UUID) -> None:
        """It was changed: what is kept of it would be found outdated."""
        self._forget((tenant_id.int, id.bytes))

    # Asking

    def _schedule(self) -> None:
        """Those who ask in this turn of the loop go together."""
        wanted = SECOND_ASKS_MIN if self._in_flight else 1
        if not self._scheduled and len(self._asked) >= wanted and self._in_flight < CALLS_MAX:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._call)

    def _call(self) -> None:
        self._scheduled = False
        asks: list[_Ask] = []
        wanted: dict[Wanted, None] = {}
        while self._asked and len(wanted) < WANTED_PER_CALL_MAX:
            asks.append(self._asked.popleft())
            wanted.update(dict.fromkeys(asks[-1][0]))
        ordered = sorted(wanted, key=attrgetter("tenant"))
        bases = [self._base(each) for each in ordered]
        self._in_flight += 1
        self.calls += 1
        answer = self._lane.call("look_up", _packed(ordered, bases))
        answer.add_done_callback(partial(self._answered, asks, ordered, bases))
        self._schedule()

    def _base(self, wanted: Wanted) -> tuple[bytes, _Kept | None]:
        """Whose events are wanted, as far as is known, and what is known of it."""
        owner = self._holders.get(wanted, NOBODY) if wanted.kind else wanted.key
        kept = self._kept.get((wanted.tenant, owner))
        if kept is not None:
            self._kept.move_to_end((wanted.tenant, owner))
        return owner, kept

    def _answered(
        self,
        asks: list[_Ask],
        ordered: list[Wanted],
        bases: list[tuple[bytes, _Kept | None]],
        found: "asyncio.Future[PGresult]",
    ) -> None:
        self._in_flight -= 1
        self._schedule()
        try:
            read = self._read(ordered, bases, found.result())
        except _Stale:
            for each, (owner, _) in zip(ordered, bases, strict=True):
                self._forget((each.tenant, owner))
            self._asked.extendleft(reversed(asks))
            self._schedule()
        except asyncio.CancelledError:
            _settle(asks, None, errors.DatabaseAway())
        except (lane.Lost, lane.Closed, psycopg.Error) as error:
            _settle(asks, None, error if isinstance(error, psycopg.Error) else errors.DatabaseAway())
        else:
            _settle(asks, read, None)

    def _read(self, ordered: list[Wanted], bases: list[tuple[bytes, _Kept | None]], result: PGresult) -> _Found:
        """Raises _Stale."""
        found: _Found = {}
        value = result.get_value
        for row in range(result.ntuples):
            index = _int(value(row, 0)) - 1
            owner, position = value(row, 1), value(row, 2)
            wanted, (guess, kept) = ordered[index], bases[index]
            if owner is None:
                self._holders.pop(wanted, None)
                continue
            base = kept if owner == guess else None
            if position is None:
                if base is not None:
                    raise _Stale
                continue
            read = found.get(wanted)
            if read is None:
                read = found[wanted] = _Read(owner, base)
            version, state, hash = _int(value(row, 3)), value(row, 6), value(row, 7)
            assert hash is not None
            if state is None:
                read.is_checked = base is not None and hash == base.hash
                continue
            try:
                parsed = self._codec.parse((value(row, 4) or b"").decode(), UUID(bytes=owner), version, state)
            except errors.LedgerError as error:
                read.error = error
                continue
            recorded_at = _EPOCH + timedelta(microseconds=_int(value(row, 5)))
            read.events.append(_Event(version, recorded_at, parsed))
            read.hash, read.size = hash, read.size + EVENT_BYTES + STATE_FACTOR * len(state)
        for wanted, read in found.items():
            if not read.is_checked:
                raise _Stale
            if wanted.kind:
                self._holders[wanted] = read.owner
                self._holders.move_to_end(wanted)
        while len(self._holders) > HOLDERS_KEPT_MAX:
            self._holders.popitem(last=False)
        return found

    def _recovered(self) -> None:
        """What took our connection took the pool's, too: they are replaced now, and not when each has failed somebody."""
        self._checking = asyncio.create_task(self._pool.check(), name="pool-check")

    # Folding and keeping

    async def _fold(self, tenant: int, read: _Read) -> Aggregate:
        if read.error is not None:
            raise read.error
        if read.events:
            tenant_id, owner = UUID(int=tenant), UUID(bytes=read.owner)
            subjects = {event.parsed.subject_id for event in read.events if event.parsed.subject_id is not None}
            keys = self.keyring.at_hand(tenant_id, subjects)
            if keys is None:
                async with self._pool.connection() as connection:
                    keys = await self.keyring.find_as_tenant(connection, tenant_id, subjects)
            if read.events:  # nobody else folded it while the keys were read
                folded: Any = None if read.folded is None else copied(read.folded)
                for version, recorded_at, parsed in read.events:
                    event = self._codec.finish(tenant_id, owner, version, recorded_at, parsed, keys)
                    folded = event.mutate(folded)
                read.folded, read.events = folded, []
                if subjects:
                    self._forget((tenant, read.owner))
                else:
                    self._keep((tenant, read.owner), _Kept(folded, read.hash, read.size))
        assert read.folded is not None
        return read.folded

    def _keep(self, key: tuple[int, bytes], kept: _Kept) -> None:
        self._forget(key)
        if kept.size > self._kept_bytes_max:
            return
        self._kept[key] = kept
        self._kept_bytes += kept.size
        while self._kept_bytes > self._kept_bytes_max:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.size

    def _forget(self, key: tuple[int, bytes]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._kept_bytes -= kept.size


@asynccontextmanager
async def running(
    connect: lane.Connect, pool: Pool, codec: Codec, keyring: Keyring, kept_bytes_max: int = KEPT_BYTES_MAX
) -> AsyncIterator[Lookups]:
    """Started, and closed at the end. Raises psycopg.OperationalError."""
    made = Lookups(connect, pool, codec, keyring, kept_bytes_max)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def copied(aggregate: A) -> A:
    """Another one of the same state: its lists, dictionaries and sets are its own, what is in them is shared.

    Enough because aggregates change those only by what they do themselves, and never what is inside (domain/aggregates.py).
    """
    made = object.__new__(type(aggregate))
    state = made.__dict__
    for name, value in aggregate.__dict__.items():
        state[name] = value.copy() if type(value) in _CONTAINERS else value
    return made


def _settle(asks: Sequence[_Ask], found: _Found | None, error: Exception | None) -> None:
    for _, answer in asks:
        if answer.done():
            continue
        if found is not None:
            answer.set_result(found)
        else:
            assert error is not None
            answer.set_exception(error)


def _packed(ordered: Sequence[Wanted], bases: Sequence[tuple[bytes, _Kept | None]]) -> list[bytes]:
    counts: dict[int, int] = {}
    for each in ordered:
        counts[each.tenant] = counts.get(each.tenant, 0) + 1
    packed: list[arrays.PackedArray] = [
        arrays.UuidArray.of([tenant.to_bytes(16) for tenant in counts]),
        arrays.Int4Array.of(list(counts.values())),
        arrays.TextArray.of([each.kind.encode() for each in ordered]),
        arrays.ByteaArray.of([each.key if each.kind else b"" for each in ordered]),
        arrays.UuidArray.of([owner for owner, _ in bases]),
        arrays.Int4Array.of([0 if kept is None else kept.aggregate.version for _, kept in bases]),
    ]
    return [each.data for each in packed]


def _int(value: bytes | None) -> int:
    assert value is not None
    return int.from_bytes(value, "big", signed=True)
