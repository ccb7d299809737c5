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

from ledger import errors
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
OF_ONE: LiteralString = """
SELECT position, originator_version, topic, recorded_at, state FROM ledger.events
WHERE tenant_id = %(tenant)s AND originator_id = %(id)s AND originator_version > %(version)s AND position <= %(to)s
ORDER BY originator_version LIMIT %(limit)s
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


class PositionBeyond(Exception):
    def __init__(self, position: int, head: int) -> None:
        super().__init__(
            f"The stream does not reach the position: {position}. Give one from 1 to {head}, where it ends now."
        )


class AggregateUnknown(Exception):
    def __init__(self, id: UUID, to: int) -> None:
        super().__init__(
            f"The tenant has no such aggregate up to position {to}: {id}. Check the id; ids of other tenants are not found."
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
    """One event of an aggregate. `fields`: its own, persons' data in clear."""

    position: int
    version: int
    topic: str
    recorded_at: datetime
    fields: dict[str, Any]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate's events up to a position, and what they make it."""

    id: UUID
    kind: str
    version: int
    events: list[Happened]
    state: dict[str, Any]


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
    connection: Connection, codec: Codec, keyring: Keyring, tenant_id: UUID, id: UUID, to: int
) -> History:
    """Raises AggregateUnknown, TopicUnknown, EventUnreadable."""
    happened: list[Happened] = []
    current: Any = None
    version = 0
    while True:
        page = {"tenant": tenant_id, "id": id, "version": version, "to": to, "limit": EVENTS_PER_READ}
        rows = await (await connection.execute(OF_ONE, page, binary=True)).fetchall()
        for position, version, topic, recorded_at, state in rows:
            _check_next(current, topic, id, version)
            parsed = codec.parse(topic, id, version, state)
            keys = await keyring.find(connection, tenant_id, [parsed.subject_id] if parsed.subject_id else [])
            event = codec.finish(tenant_id, id, version, recorded_at, parsed, keys)
            current = event.mutate(current)
            fields = {name: getattr(event, name) for name in parsed.known.names}
            happened.append(
                Happened(position=position, version=version, topic=topic, recorded_at=recorded_at, fields=fields)
            )
        if len(rows) < EVENTS_PER_READ:
            break
    if current is None:
        raise AggregateUnknown(id, to)
    return History(
        id=id, kind=get_topic(type(current)), version=current.version, events=happened, state=_state(current)
    )


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
    kept = {name: value for name, value in vars(aggregate).items() if name not in _NOT_STATE}
    state: dict[str, Any] = msgspec.to_builtins(kept, str_keys=True)
    return state
