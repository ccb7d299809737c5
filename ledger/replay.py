"""What a tenant, or one aggregate of it, was at a position: the events folded again, from the first one on."""

import hashlib
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from eventsourcing.domain import Aggregate
from eventsourcing.utils import get_topic
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import chain, errors, read, tenancy
from ledger.codec import Codec
from ledger.keyring import Keyring, Keys

EVENTS_PER_READ = 1_000
"""At 64 KiB an event this is 64 MiB at the most."""

# By originator, so that each aggregate is folded whole and then let go: memory is that of the largest one.
BY_ORIGINATOR: LiteralString = """
SELECT originator_id, originator_version, topic, recorded_at, state FROM ledger.events
WHERE tenant_id = %(tenant)s AND (originator_id, originator_version) > (%(id)s, %(version)s) AND position <= %(to)s
ORDER BY originator_id, originator_version LIMIT %(limit)s
"""
# One look-up by position for each event brings the hash that it is linked to.
OF_ONE: LiteralString = """
SELECT e.position, e.originator_version, e.topic, e.recorded_at, e.state, e.metadata, e.hash,
       (SELECT p.hash FROM ledger.events p WHERE p.tenant_id = e.tenant_id AND p.position = e.position - 1)
FROM ledger.events e
WHERE e.tenant_id = %(tenant)s AND e.originator_id = %(id)s AND e.originator_version > %(version)s AND e.position <= %(to)s
ORDER BY e.originator_version LIMIT %(limit)s
"""
# Between `low` (recorded by then; 0: none was) and `high` (not recorded by then; past the head: all were) the middle is looked
# at until nothing lies between them: 63 look-ups by position at the most.
AT: LiteralString = """
WITH RECURSIVE search (low, high) AS (
    SELECT 0::bigint, h.position + 1 FROM ledger.heads h WHERE h.tenant_id = %(tenant)s
    UNION ALL
    SELECT CASE WHEN m.recorded THEN m.middle ELSE m.low END, CASE WHEN m.recorded THEN m.high ELSE m.middle END
    FROM (
        SELECT s.low, s.high, (s.low + s.high) / 2 AS middle,
               (SELECT e.recorded_at <= %(instant)s FROM ledger.events e
                WHERE e.tenant_id = %(tenant)s AND e.position = (s.low + s.high) / 2) AS recorded
        FROM search s WHERE s.high - s.low > 1
    ) m
)
SELECT max(low) FROM search
"""
HASH_AT: LiteralString = (
    "SELECT hash, recorded_at FROM ledger.events WHERE tenant_id = %(tenant)s AND position = %(position)s"
)

_NOT_STATE = frozenset({"_id", "_version", "_created_on", "_modified_on", "_pending_events"})
_ENCODER = msgspec.json.Encoder(order="deterministic")
_NOBODY = UUID(int=0)
NO_KEYS: Keys = {}
"""Persons' data read as erased: a digest of them would change when they are."""

Connection = AsyncConnection[TupleRow]
Progress = Callable[[int], None]
"""Called with the number of events folded so far."""


class PositionBeyond(errors.LedgerError):
    def __init__(self, position: int, head: int) -> None:
        super().__init__(
            f"The stream does not reach the position: {position}. Give one from 1 to {head}, where it ends now."
        )


class AggregateUnknown(errors.LedgerError):
    def __init__(self, id: UUID, to: int) -> None:
        super().__init__(
            f"The tenant has no such aggregate up to position {to}: {id}. Check the id; ids of other tenants are not found."
        )


class AggregateTooLong(errors.LedgerError):
    def __init__(self, id: UUID, events_max: int) -> None:
        super().__init__(
            f"The aggregate {id} has more events than are replayed here: {events_max:,}. "
            "Ask for an earlier position, or run `bitnexus audit replay --aggregate`."
        )


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant at a position. `digest` (SHA-256, hex) is of the states of all aggregates in order of id, persons' data left
    out: two replays of the same events give the same one, before and after a person is erased."""

    position: int
    hash: str
    recorded_at: datetime | None
    events: int
    topics: dict[str, int]
    aggregates: dict[str, int]
    digest: str


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an aggregate: as it is stored, and the hash that it is linked to.

    `fields`: its own in JSON's types, persons' data in clear, or ERASED.
    """

    entry: read.Entry
    previous_hash: bytes
    fields: dict[str, Any]


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    """What an aggregate's events up to a position make it. `state` in JSON's types."""

    id: UUID
    kind: str
    version: int
    state: dict[str, Any]


async def position_at(connection: Connection, tenant_id: UUID, instant: datetime) -> int:
    """The last position recorded by then: 0 before the first event, the head's if the instant is not past.

    What was recorded never goes back in time, so an instant is one position. An event's time is taken just before its
    commit: what is under way at the instant itself may be missing for as long as a flush lasts. `connection` is in
    autocommit. Raises TenantUnknown.
    """
    (rows,) = await tenancy.query(connection, tenant_id, {"instant": instant}, AT)
    position: int | None = rows[0][0]
    if position is None:
        raise errors.TenantUnknown(tenant_id)
    return position


async def tenant(
    connection: Connection, codec: Codec, tenant_id: UUID, to: int, progress: Progress = lambda events: None
) -> Replayed:
    """The tenant at position `to`, 0 or more and not past the head. `connection` is the projector's.

    Raises TopicUnknown, EventUnreadable.
    """
    topics: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    digest = hashlib.sha256()
    current: Any = None
    events, id, version = 0, _NOBODY, 0
    while True:
        page = {"tenant": tenant_id, "id": id, "version": version, "to": to, "limit": EVENTS_PER_READ}
        rows = await (await connection.execute(BY_ORIGINATOR, page, binary=True)).fetchall()
        for row in rows:
            if row[0] != id:
                _add(digest, kinds, current)
                current = None
            id, version, topic, recorded_at, state = row
            _check_next(current, topic, id, version)
            parsed = codec.parse(topic, id, version, state)
            current = codec.finish(tenant_id, id, version, recorded_at, parsed, NO_KEYS).mutate(current)
            topics[topic] += 1
        events += len(rows)
        progress(events)
        if len(rows) < EVENTS_PER_READ:
            break
    _add(digest, kinds, current)
    at = await (await connection.execute(HASH_AT, {"tenant": tenant_id, "position": to}, binary=True)).fetchone()
    return Replayed(
        position=to,
        hash="" if at is None else at[0].hex(),
        recorded_at=None if at is None else at[1],
        events=events,
        topics=dict(sorted(topics.items())),
        aggregates=dict(sorted(kinds.items())),
        digest=digest.hexdigest(),
    )


async def aggregate(
    connection: Connection,
    codec: Codec,
    keyring: Keyring,
    tenant_id: UUID,
    id: UUID,
    to: int,
    *,
    events_max: int | None = None,
    happened: Callable[[Happened], None] = lambda each: None,
) -> Folded:
    """The aggregate at position `to`; `happened` is called with each of its events, in order, before that.

    `connection` is the app role's, in autocommit. Raises AggregateUnknown, AggregateTooLong, TopicUnknown, EventUnreadable.
    """
    current: Any = None
    version = 0
    while True:
        page = {"id": id, "version": version, "to": to, "limit": EVENTS_PER_READ}
        (rows,) = await tenancy.query(connection, tenant_id, page, OF_ONE)
        parsed = [codec.parse(topic, id, version, state) for _, version, topic, _, state, _, _, _ in rows]
        subjects = {half.subject_id for half in parsed if half.subject_id is not None}
        keys = await keyring.find_as_tenant(connection, tenant_id, subjects) if subjects else NO_KEYS
        for (position, version, topic, recorded_at, state, metadata, hash, before), half in zip(
            rows, parsed, strict=True
        ):
            if events_max is not None and version > events_max:
                raise AggregateTooLong(id, events_max)
            _check_next(current, topic, id, version)
            event = codec.finish(tenant_id, id, version, recorded_at, half, keys)
            current = event.mutate(current)
            entry = read.Entry(tenant_id, position, id, version, topic, recorded_at, state, metadata, hash)
            fields = _plain({name: getattr(event, name) for name in half.known.names})
            previous = chain.genesis(tenant_id) if before is None else before
            happened(Happened(entry=entry, previous_hash=previous, fields=fields))
        if len(rows) < EVENTS_PER_READ:
            break
    if current is None:
        raise AggregateUnknown(id, to)
    return Folded(id=id, kind=get_topic(type(current)), version=current.version, state=_state(current))


def _check_next(current: Any, topic: str, id: UUID, version: int) -> None:
    """Raises EventUnreadable if events of the aggregate are missing before this one."""
    after = 0 if current is None else current.version
    if version != after + 1:
        raise errors.EventUnreadable(topic, id, version, f"the aggregate's event before it has version {after}")


def _add(digest: "hashlib._Hash", kinds: Counter[str], aggregate: Aggregate | None) -> None:
    if aggregate is None:
        return
    kind = get_topic(type(aggregate))
    kinds[kind] += 1
    encoded = _ENCODER.encode([str(aggregate.id), kind, aggregate.version, _state(aggregate)])
    digest.update(len(encoded).to_bytes(4, "big") + encoded)


def _state(aggregate: Aggregate) -> dict[str, Any]:
    """What its events made it, in JSON's types, without the bookkeeping of the package."""
    return _plain({name: value for name, value in vars(aggregate).items() if name not in _NOT_STATE})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(values, str_keys=True)
    return plain
