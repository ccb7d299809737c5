"""Limits that hold over all processes: five times a second one statement tells the database what callers took here, and brings back
what all of them took everywhere (api/rates.py). If the database is slow or away, each process goes on by itself.

Once a minute what nobody needs any more is deleted. These statements look across tenants, on the projector's connection.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import LiteralString
from uuid import UUID

import psycopg
import psycopg_pool

from api.rates import RECONCILE_S, Bucket, Rates
from ledger import ids
from ledger.store import Pool

BUCKETS_MAX = 2_000
"""In one statement: some 30 ms. The others' turn is the next one's."""
ANSWER_S_MAX = 1.0
"""A slower database is away."""
SEEN_S = 2.0
"""A process that did not show itself for so long is not counted."""
HEARTBEAT_S = 0.5
SWEEP_S = 60.0
ATTEMPTS_DAYS = 30

# In order of the key, so that two processes never wait for each other in a circle. A debt is bounded to two windows.
RECONCILE: LiteralString = """
WITH put AS (
    INSERT INTO edges.buckets AS b (tenant_id, limited, key, full_at)
    SELECT x.tenant_id, x.limited, x.key, now() + make_interval(secs => x.taken_s)
    FROM unnest(%(tenants)s::uuid[], %(limited)s::text[], %(keys)s::uuid[], %(taken_s)s::float8[]) AS x (tenant_id, limited, key, taken_s)
    ORDER BY x.tenant_id, x.limited, x.key
    ON CONFLICT (tenant_id, limited, key) DO UPDATE SET full_at = greatest(b.full_at, now()) + (excluded.full_at - now())
    RETURNING b.tenant_id, b.limited, b.key, b.full_at
), seen AS (
    INSERT INTO edges.processes AS p (process_id, seen_at) VALUES (%(process)s, now())
    ON CONFLICT (process_id) DO UPDATE SET seen_at = now()
)
SELECT p.tenant_id, p.limited, p.key, extract(epoch FROM p.full_at - now())::float8, o.others
FROM (SELECT count(*) AS others FROM edges.processes
      WHERE process_id <> %(process)s AND seen_at > now() - make_interval(secs => %(seen_s)s)) AS o
LEFT JOIN put p ON true
"""
SWEEP: tuple[LiteralString, ...] = (
    "DELETE FROM edges.buckets WHERE full_at < now() - interval '1 minute'",
    "DELETE FROM edges.processes WHERE seen_at < now() - interval '1 minute'",
    "DELETE FROM edges.attempts WHERE last_at < now() - make_interval(days => %(days)s)",
)
LEAVE: LiteralString = "DELETE FROM edges.processes WHERE process_id = %(process)s"

_log = logging.getLogger(__name__)


@asynccontextmanager
async def running(rates: Rates, pool: Pool) -> AsyncIterator[None]:
    """From the first turn on, which is over when this begins. `pool` is the projector's."""
    reconciler = Reconciler(rates, pool)
    await reconciler.turn()
    task = asyncio.create_task(reconciler.run(), name="reconciling")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await reconciler.leave()


class Reconciler:
    """One a process."""

    def __init__(self, rates: Rates, pool: Pool) -> None:
        self._rates = rates
        self._pool = pool
        self._process_id = ids.new_id()
        self._asked_at = float("-inf")
        self._swept_at = monotonic()
        self._is_away = False

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(RECONCILE_S)
            try:
                await self.turn()
            except Exception:  # noqa: BLE001  the edge of a supervised task
                _log.exception("Limits could not be brought into accord with other processes, trying again")

    async def turn(self) -> None:
        """Brings what was taken here into accord with what was taken elsewhere, as far as the database answers."""
        now = monotonic()
        buckets = self._rates.pending(BUCKETS_MAX)
        if not buckets and now - self._asked_at < HEARTBEAT_S:
            return
        self._asked_at = now
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._reconcile(buckets)
                if now - self._swept_at > SWEEP_S:
                    self._swept_at = now
                    await self._sweep()
        except (TimeoutError, psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed) as error:
            if not self._is_away:
                why = str(error).strip() or type(error).__name__
                _log.warning("The database does not answer, limits are each process's own meanwhile: %s", why)
            self._is_away = True
            self._rates.alone()
        else:
            self._is_away = False

    async def leave(self) -> None:
        """The others need not share with this process any more."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX), self._pool.connection() as connection:
                await connection.execute(LEAVE, {"process": self._process_id})
        except (TimeoutError, psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed):
            pass  # it is not counted after SEEN_S

    async def _reconcile(self, buckets: Sequence[Bucket]) -> None:
        reported = {(each.tenant_id, each.policy.name, each.key): (each, each.taken) for each in buckets}
        parameters = {
            "process": self._process_id,
            "seen_s": SEEN_S,
            "tenants": [tenant_id for tenant_id, _, _ in reported],
            "limited": [limited for _, limited, _ in reported],
            "keys": [key for _, _, key in reported],
            "taken_s": [taken / bucket.per_s for bucket, taken in reported.values()],
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(RECONCILE, parameters, binary=True)).fetchall()
        now = monotonic()
        self._rates.share = 1 / (1 + rows[0][4])
        for tenant_id, limited, key, debt_s, _ in rows:
            found = reported.get(_key(tenant_id, limited, key))
            if found is not None:
                bucket, taken = found
                bucket.corrected(debt_s, taken, self._rates.share, now)
        self._rates.settle(buckets)

    async def _sweep(self) -> None:
        self._rates.forget_full()
        async with self._pool.connection() as connection:
            for statement in SWEEP:
                await connection.execute(statement, {"days": ATTEMPTS_DAYS})


def _key(tenant_id: UUID, limited: str, key: UUID) -> tuple[UUID, str, UUID]:
    return tenant_id, limited, key
