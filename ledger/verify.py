"""Recompute a tenant's chain from what is stored and say where it breaks first.

The rows come by COPY in binary, one pass, bounded memory. COPY frames a field as i32 length and bytes, big-endian, which is
how a leaf frames topic, state and metadata: that part of a row is hashed as it arrives, without being taken apart.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import LiteralString
from uuid import UUID

import msgspec
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from ledger import chain

PROGRESS_EVERY = 20_000
"""Events between two calls of `progress`."""

HEAD = "SELECT position, hash, timestamptz_send(recorded_at) FROM ledger.heads WHERE tenant_id = %s"
EVENTS: LiteralString = """
COPY (SELECT position, hash, originator_id, originator_version, recorded_at, topic, state, metadata
      FROM ledger.events WHERE tenant_id = {tenant} ORDER BY position) TO STDOUT (FORMAT binary)
"""
TENANTS = "SELECT tenant_id, position FROM ledger.heads ORDER BY tenant_id"  # cross-tenant: the platform's or projector's role

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_SIGNATURE_BYTES = 19
"""The signature, then i32 flags and i32 length of an extension that is empty."""
# i16 fields, then each field's i32 length and value: i64 position, hash, uuid, i32 version, i64 µs since 2000-01-01
_ROW = struct.Struct(">hiqi32si16siiiq")
_NUMBERS = struct.Struct(">q16siq")
_FIELDS = 8
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
        head = connection.execute(HEAD, (tenant_id,)).fetchone()
        walk = _Walk(tenant_id)
        with connection.cursor() as cursor, cursor.copy(sql.SQL(EVENTS).format(tenant=tenant_id)) as copy:
            for row in _rows(iter(copy)):
                if walk.broken is None:
                    walk.step(row)
                    if walk.position % PROGRESS_EVERY == 0:
                        progress(walk.position)
    progress(walk.position)
    broken = walk.broken or _against_head(walk, head)
    return Verdict(tenant_id, walk.position, walk.hash, broken)


def _rows(blocks: Iterator[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    """The rows of a binary COPY; PostgreSQL sends each in a message of its own."""
    first = bytes(next(blocks))
    if not first.startswith(_SIGNATURE):
        raise RuntimeError(
            f"COPY began with {first[:11]!r}, not with its signature. The server is none that this release knows."
        )
    rest = first[_SIGNATURE_BYTES:]
    if rest and rest != b"\xff\xff":
        yield rest
    for block in blocks:
        row = bytes(block)
        if row != b"\xff\xff":  # the trailer
            yield row


class _Walk:
    """Where the recomputation stands: `position` events are good, the last one's hash is `hash`."""

    def __init__(self, tenant_id: UUID) -> None:
        self.position = 0
        self.hash = chain.genesis(tenant_id)
        self.broken: Broken | None = None
        self._tenant = tenant_id.bytes
        self.recorded_us = -(2**63)

    def step(self, row: bytes) -> None:
        """Hash the next row onto the chain, or say why it does not fit."""
        fields, _, position, _, stored, _, originator, _, version, _, since_2000_us = _ROW.unpack_from(row)
        assert fields == _FIELDS
        expected = self.position + 1
        if position != expected:
            self.broken = Broken(expected, f"the event is missing: the next one stands at {position}")
            return
        recorded_us = since_2000_us + _POSTGRES_EPOCH_US
        if recorded_us > _INT8_MAX:
            self.broken = Broken(position, "its time is none that a leaf can hold")
            return
        numbers = _NUMBERS.pack(position, originator, version, recorded_us)
        leaf = b"".join((b"\x00\x01", self.hash, self._tenant, numbers, row[_ROW.size :]))
        computed = hashlib.sha256(leaf).digest()
        if computed != stored:
            self.broken = Broken(position, f"the stored hash is {stored.hex()}, the event hashes to {computed.hex()}")
        elif recorded_us < self.recorded_us:
            self.broken = Broken(position, "it was recorded before the event that it follows")
        else:
            self.position, self.hash, self.recorded_us = position, computed, recorded_us


def _against_head(walk: _Walk, head: TupleRow | None) -> Broken | None:
    if head is None:
        return Broken(walk.position, "the tenant has no head") if walk.position else None
    position, stored, sent = head
    if position > walk.position:
        return Broken(walk.position + 1, f"the event is missing: the head stands at {position}")
    if position < walk.position:
        return Broken(position + 1, f"the event is past the head, which stands at {position}")
    if bytes(stored) != walk.hash:
        return Broken(position, f"the head's hash is {bytes(stored).hex()}, the last event's is {walk.hash.hex()}")
    if position and int.from_bytes(sent, "big", signed=True) + _POSTGRES_EPOCH_US != walk.recorded_us:
        return Broken(position, "the head's time is not that of the last event")
    return None
