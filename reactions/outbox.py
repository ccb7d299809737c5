"""What waits to be done outside: claimed by one process at a time, done, and deleted. At least once, at most TRIES_MAX times.

The rows are secrets whose kind begins with "outbox ", written in the append of the command that made them necessary. The row is
the position: it is gone when its work is done, and nothing is ever done again from events, whatever is rebuilt or restored.
Several processes share the work: a claim passes by what another one has (SKIP LOCKED, and a time until which it is theirs).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import LiteralString, NamedTuple
from uuid import UUID

import psycopg
import psycopg_pool

from ledger.store import Pool

CLAIMED_MAX = 10
"""Done side by side, so that one that hangs holds up few."""
TRY_S_MAX = 30.0
"""Half of the first wait: nobody else begins with it while it is still being tried."""
WAITS_S = [60.0, 120.0, 600.0, 1_800.0, 3_600.0, 7_200.0]
"""After the first try, the second …; the last one after all that follow."""
TRIES_MAX = 12
"""About fifteen hours. Longer than a mail server is away, and what is in the mails is no longer good then."""
BETWEEN_LOOKS_S = 1.0

CLAIM: LiteralString = "SELECT * FROM ledger.claim_outbox(%s, %s)"
END: LiteralString = "SELECT ledger.end_delivery(%s, %s, %s, %s)"

_log = logging.getLogger(__name__)


class NeverPossible(Exception):
    """It cannot be done however often it is tried. The message says why, without personal data."""


class TriedInVain(Exception):
    """It may be possible later. The message says why, without personal data."""


class Waiting(NamedTuple):
    """One piece of work. `tries` counts this one."""

    tenant_id: UUID
    owner: UUID
    kind: str
    value: bytes
    tries: int


Do = Callable[[Waiting], Awaitable[None]]
"""Raises NeverPossible, TriedInVain, and what the database raises that is away; anything else is a bug, and tried again."""

_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)


async def look(pool: Pool, doers: Mapping[str, Do]) -> int:
    """Do what is due, at most CLAIMED_MAX; how many were claimed. `pool` is the projector's, `doers` by the second word of a kind."""
    async with pool.connection() as connection:
        rows = await (await connection.execute(CLAIM, (CLAIMED_MAX, WAITS_S))).fetchall()
    claimed = [Waiting(tenant, owner, kind, bytes(value), tries) for tenant, owner, kind, value, tries in rows]
    await asyncio.gather(*(_work_off(each, pool, doers) for each in claimed))
    return len(claimed)


@asynccontextmanager
async def running(pool: Pool, doers: Mapping[str, Do]) -> AsyncIterator[None]:
    """Does what is due while it lasts."""
    task = asyncio.create_task(_run(pool, doers), name="outbox")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _run(pool: Pool, doers: Mapping[str, Do]) -> None:
    while True:
        more = False
        try:
            more = await look(pool, doers) == CLAIMED_MAX
        except (psycopg.Error, psycopg_pool.PoolTimeout) as error:
            _log.warning("The outbox could not be read, trying again: %s", str(error).strip())
        except Exception:  # noqa: BLE001  the edge of a supervised task
            _log.exception("The outbox could not be worked off, trying again")
        if not more:
            await asyncio.sleep(BETWEEN_LOOKS_S)


async def _work_off(waiting: Waiting, pool: Pool, doers: Mapping[str, Do]) -> None:
    """What is done is ended at once, whatever the others take, and also in a process that stops: else it would be done again."""
    if not await _done(waiting, doers):
        return
    ending = asyncio.ensure_future(_end(waiting, pool))
    try:
        await asyncio.shield(ending)
    except asyncio.CancelledError:
        await ending
        raise


async def _end(waiting: Waiting, pool: Pool) -> None:
    try:
        async with pool.connection() as connection:
            await connection.execute(END, (waiting.tenant_id, waiting.owner, waiting.kind, waiting.value))
    except (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed) as error:
        _log.warning("What was sent could not be noted, it is sent again: %s", str(error).strip())


async def _done(waiting: Waiting, doers: Mapping[str, Do]) -> bool:
    """Whether there is nothing left to do."""
    what = waiting.kind.split(" ")[1]
    try:
        async with asyncio.timeout(TRY_S_MAX):
            await doers[what](waiting)
    except NeverPossible as error:
        _log.error("A %s of tenant %s is given up: %s", what, waiting.tenant_id, error)
    except (TriedInVain, TimeoutError) as error:
        return _given_up(waiting, what, str(error) or f"it took more than {TRY_S_MAX} s")
    except _AWAY as error:  # nothing of the work's: it is not given up for that, whichever try it was
        _log.warning("A %s of tenant %s waits, the database is away: %s", what, waiting.tenant_id, str(error).strip())
        return False
    except Exception:  # noqa: BLE001  the edge of a supervised task
        _log.exception("A %s of tenant %s failed", what, waiting.tenant_id)
        return _given_up(waiting, what, "it failed")
    return True


def _given_up(waiting: Waiting, what: str, why: str) -> bool:
    if waiting.tries >= TRIES_MAX:
        _log.error("A %s of tenant %s is given up after %s tries: %s", what, waiting.tenant_id, waiting.tries, why)
        return True
    _log.warning("A %s of tenant %s is tried again later (try %s): %s", what, waiting.tenant_id, waiting.tries, why)
    return False
