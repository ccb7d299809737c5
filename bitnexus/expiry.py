"""Records of commands are deleted a day after the command: a walk through their table once an hour, a few blocks at a time. And
what counts no more is forgotten an hour later, when no token is left that names it (`ledger.expire_revocations`).

In every serving process; the database lets one of them at a time go on where the last one stopped, and judges by its own clock
what is old enough (`ledger.expire_commands`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import LiteralString, NamedTuple

import psycopg
import psycopg_pool
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger.store import Pool

BLOCKS_PER_BATCH = 128
"""1 MiB, of 7,000 to 11,000 records: a transaction of 3 ms if none of them is old, of 10 if all are."""
BETWEEN_BATCHES_S = 0.25
"""Four batches a second: up to 28,000 records, which is more than comes in, and 4 MiB read."""
BETWEEN_LOOKS_S = 60.0
"""When there is nothing to do. The walk of the next hour begins at most so much late."""

EXPIRE: LiteralString = "SELECT o_deleted, o_more FROM ledger.expire_commands(%s)"

REVOCATIONS_MAX = 10_000
"""Deleted at a time."""
TICKETS_MAX = 10_000
EXPIRE_REVOCATIONS: LiteralString = "SELECT o_deleted FROM ledger.expire_revocations(%s)"
EXPIRE_TICKETS: LiteralString = "SELECT o_deleted FROM ledger.expire_feed_tickets(%s)"

_log = logging.getLogger(__name__)


class Batch(NamedTuple):
    deleted: int
    more: bool  # the walk has not ended


async def batch(connection: AsyncConnection[TupleRow], blocks: int = BLOCKS_PER_BATCH) -> Batch:
    """Nothing is deleted if another process is at it, or if the walk of this hour is done. `connection` is the projector's."""
    row = await (await connection.execute(EXPIRE, (blocks,))).fetchone()
    assert row is not None  # a function's value
    return Batch(*row)


@asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[None]:
    """Deletes while it lasts. `pool` is the projector's."""
    task = asyncio.create_task(_run(pool), name="expiry")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _run(pool: Pool) -> None:
    while True:
        more = False
        try:
            async with pool.connection() as connection:
                deleted, more = await batch(connection)
                await connection.execute(EXPIRE_REVOCATIONS, (REVOCATIONS_MAX,))
                await connection.execute(EXPIRE_TICKETS, (TICKETS_MAX,))
            if deleted:
                _log.debug("Deleted %s records of commands older than a day", deleted)
        except (psycopg.Error, psycopg_pool.PoolTimeout) as error:
            _log.warning("Old records of commands could not be deleted, trying again: %s", str(error).strip())
        except Exception:  # noqa: BLE001  the edge of a supervised task
            _log.exception("Old records of commands could not be deleted, trying again")
        await asyncio.sleep(BETWEEN_BATCHES_S if more else BETWEEN_LOOKS_S)
