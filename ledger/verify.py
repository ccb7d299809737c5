"""Recompute a tenant's chain from what is stored and say where it breaks first.

The rows are streamed: one pass, bounded memory. The database gives the columns as the bytes that a leaf holds, which is what it
is fast at; the time alone is converted here, as PostgreSQL counts from 2000 and a leaf from 1970. What links the leaves, and
the hashes, are computed here.
"""

import hashlib
import struct
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from uuid import UUID

import msgspec
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow

from ledger import chain

PROGRESS_EVERY = 20_000
"""Events between two calls of `progress`."""
ROWS_PER_CHUNK = 100
"""Fetched at a time: 50 KB of usual events, 6.5 MB of the largest. Longer chunks are not faster."""

# Whatever a role or the database has been set to: somebody's own octet_length or || could say what was, not what is stored.
SEARCH_PATH = "SET LOCAL search_path = pg_catalog, pg_temp"
HEAD = "SELECT position, hash, timestamptz_send(recorded_at) FROM ledger.heads WHERE tenant_id = %s"
# Position, hash, what a leaf holds before its time, the time, and what it holds after it. A part is NULL if one of its columns is.
# Each length is framed before its bytes, so no two rows give the same part. textsend: UTF-8 as it is stored, valid or not.
EVENTS = """
SELECT position,
       hash,
       int8send(position) || uuid_send(originator_id) || int4send(originator_version),
       timestamptz_send(recorded_at),
       int4send(octet_length(topic)) || textsend(topic)
           || int4send(octet_length(state)) || state
           || int4send(octet_length(metadata)) || metadata
FROM ledger.events WHERE tenant_id = %s ORDER BY position
"""
TENANTS = "SELECT tenant_id, position FROM ledger.heads ORDER BY tenant_id"  # cross-tenant: the platform's or projector's role

_TIME = struct.Struct(">q")
_INT8_MAX = 2**63 - 1
_POSTGRES_EPOCH_US = 946_684_800_000_000


class Broken(msgspec.Struct, frozen=True):
    """The first position at which stream and chain part, and why."""

    position: int
    why: str


class Verdict(msgspec.Struct, frozen=True):
    """`events` were found good, up to `hash`; `broken` is None if that is all there should be."""

    tenant_id: UUID
    events: int
    hash: bytes
    broken: Broken | None


class _Walked(msgspec.Struct, frozen=True):
    """Events up to `position` are good, the last one's hash is `hash`; `broken` says why the next one is not."""

    position: int
    hash: bytes
    recorded_us: int
    broken: Broken | None


Progress = Callable[[int], None]


def tenants(connection: Connection[TupleRow]) -> list[tuple[UUID, int]]:
    """All tenants with the position of their heads."""
    return [(tenant_id, position) for tenant_id, position in connection.execute(TENANTS)]


def verify(connection: Connection[TupleRow], tenant_id: UUID, progress: Progress = lambda events: None) -> Verdict:
    """Every event of the tenant against the chain, and the last one against the head, in one snapshot.

    `connection` sees the tenant (the projector's role) and is not in a transaction.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(SEARCH_PATH)
        head = connection.execute(HEAD, (tenant_id,)).fetchone()
        with connection.cursor() as cursor, closing(_rows(cursor, tenant_id)) as rows:
            walked = _walk(rows, tenant_id, progress)
            for _ in rows:  # what follows a break: closing early would cancel, and a late cancel can hit the commit
                pass
    progress(walked.position)
    broken = walked.broken or _against_head(walked, head)
    return Verdict(tenant_id, walked.position, walked.hash, broken)


def _rows(cursor: Cursor[TupleRow], tenant_id: UUID) -> Generator[TupleRow, None, None]:
    """The tenant's events in order, as EVENTS has them. The connection is locked until the generator ends or is closed."""
    yield from cursor.stream(EVENTS, (tenant_id,), binary=True, size=ROWS_PER_CHUNK)


def _walk(rows: Iterable[TupleRow], tenant_id: UUID, progress: Progress) -> _Walked:
    """Hash row after row onto the chain, up to the first that does not fit.

    One loop without calls of our own: a row takes about a microsecond.
    """
    tenant = tenant_id.bytes
    good, hash, last_us, broken = 0, chain.genesis(tenant_id), -(2**63), None
    for position, stored, before, sent, after in rows:
        if position != good + 1:
            broken = Broken(good + 1, f"the event is missing: the next one stands at {position}")
            break
        if stored is None or before is None or sent is None or after is None:
            broken = Broken(position, "one of its columns is NULL")
            break
        recorded_us = _TIME.unpack(sent)[0] + _POSTGRES_EPOCH_US
        if recorded_us > _INT8_MAX:
            broken = Broken(position, "its time is none that a leaf can hold")
            break
        leaf = b"".join((b"\x00\x01", hash, tenant, before, _TIME.pack(recorded_us), after))
        computed = hashlib.sha256(leaf).digest()
        if computed != stored:
            broken = Broken(position, f"the stored hash is {stored.hex()}, the event hashes to {computed.hex()}")
            break
        if recorded_us < last_us:
            broken = Broken(position, "it was recorded before the event that it follows")
            break
        good, hash, last_us = position, computed, recorded_us
        if good % PROGRESS_EVERY == 0:
            progress(good)
    return _Walked(good, hash, last_us, broken)


def _against_head(walked: _Walked, head: TupleRow | None) -> Broken | None:
    if head is None:
        return Broken(walked.position, "the tenant has no head") if walked.position else None
    position, stored, sent = head
    if position > walked.position:
        return Broken(walked.position + 1, f"the event is missing: the head stands at {position}")
    if position < walked.position:
        return Broken(position + 1, f"the event is past the head, which stands at {position}")
    if bytes(stored) != walked.hash:
        return Broken(position, f"the head's hash is {bytes(stored).hex()}, the last event's is {walked.hash.hex()}")
    if position and int.from_bytes(sent, "big", signed=True) + _POSTGRES_EPOCH_US != walked.recorded_us:
        return Broken(position, "the head's time is not that of the last event")
    return None
