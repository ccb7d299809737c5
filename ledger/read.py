"""Reading a tenant's stream by position, and what is read."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import errors
from ledger.codec import Codec
from ledger.keyring import Keyring

ENTRIES_PER_READ_MAX = 5_000
"""Past a few thousand a read is no faster and memory grows with it."""

READ_STREAM = "SELECT * FROM ledger.read_stream(%s, %s, %s)"
READ_HEAD = "SELECT * FROM ledger.read_head(%s)"


class Head(msgspec.Struct, frozen=True):
    """The end of a tenant's stream. `hash`: 32 bytes."""

    tenant_id: UUID
    position: int
    hash: bytes
    recorded_at: datetime


class Entry(msgspec.Struct, frozen=True):
    """An event as it is stored."""

    tenant_id: UUID
    position: int
    originator_id: UUID
    originator_version: int
    topic: str
    recorded_at: datetime
    state: bytes
    metadata: bytes
    hash: bytes


class Recorded(msgspec.Struct, frozen=True):
    """An event decoded, where it stands. `event.timestamp` is `recorded_at`."""

    tenant_id: UUID
    position: int
    recorded_at: datetime
    topic: str
    event: Any


async def head(connection: AsyncConnection[TupleRow], tenant_id: UUID) -> Head:
    """Raises TenantUnknown."""
    row = await (await connection.execute(READ_HEAD, (tenant_id,), binary=True)).fetchone()
    if row is None:
        raise errors.TenantUnknown(tenant_id)
    return Head(tenant_id, *row)


async def entries(connection: AsyncConnection[TupleRow], tenant_id: UUID, after: int, limit: int) -> list[Entry]:
    """At most `limit` (1–5,000) events after that position, in order."""
    if not 1 <= limit <= ENTRIES_PER_READ_MAX:
        raise ValueError(f"limit {limit} is not in 1 … {ENTRIES_PER_READ_MAX}")
    rows = await (await connection.execute(READ_STREAM, (tenant_id, after, limit), binary=True)).fetchall()
    return [Entry(tenant_id, *row) for row in rows]


async def decode(
    codec: Codec,
    keyring: Keyring,
    connection: AsyncConnection[TupleRow],
    tenant_id: UUID,
    batch: Sequence[Entry],
    *,
    to_store: bool = False,
) -> list[Recorded]:
    """The batch's events, personal fields in clear; keys that are not at hand are read in one query.

    `to_store`: what is decoded outlives this process, so that nobody may be in it who is erased at this moment.

    `connection` sees the tenant's keys (a projector's). Raises TopicUnknown, EventUnreadable.
    """
    parsed = [codec.parse(entry.topic, entry.originator_id, entry.originator_version, entry.state) for entry in batch]
    find = keyring.find_now if to_store else keyring.find
    keys = await find(connection, tenant_id, (p.subject_id for p in parsed if p.subject_id is not None))
    return [
        Recorded(
            tenant_id,
            entry.position,
            entry.recorded_at,
            entry.topic,
            codec.finish(tenant_id, entry.originator_id, entry.originator_version, entry.recorded_at, half, keys),
        )
        for entry, half in zip(batch, parsed, strict=True)
    ]


async def stream(
    connection: AsyncConnection[TupleRow],
    tenant_id: UUID,
    after: int = 0,
    to: int | None = None,
    batch: int = ENTRIES_PER_READ_MAX,
) -> AsyncIterator[list[Entry]]:
    """A tenant's entries after one position up to another (default: the end), in batches: bounded memory."""
    while to is None or after < to:
        found = await entries(connection, tenant_id, after, batch if to is None else min(batch, to - after))
        if not found:
            return
        yield found
        after = found[-1].position
