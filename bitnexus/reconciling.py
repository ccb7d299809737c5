"""Limits that hold over all processes: five times a second one statement tells the database what callers took here, and brings back
what all of them took everywhere (api/rates.py); sooner, if a request waits for a part of what is left. If the database is slow or
away, each process goes on by itself.

Once a minute what nobody needs any more is deleted. These statements look across tenants, on the projector's connection.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import LiteralString

import psycopg
import psycopg_pool

from api.rates import RECONCILE_S, Bucket, Rates
from ledger import ids
from ledger.store import Pool

BUCKETS_MAX = 2_000
"""In one statement: some 30 ms. The others' turn is the next one's."""
SOONEST_S = 0.02
"""After the turn before, however many wait: fifty statements a second at the most."""
ANSWER_S_MAX = 1.0
"""A slower database is away."""
SEEN_S = 2.0
"""A process that did not show itself for so long is not counted."""
HEARTBEAT_S = 0.5
SWEEP_S = 60.0
ATTEMPTS_DAYS = 30

RECONCILE: LiteralString = """
SELECT * FROM edges.reconcile(%(process)s, %(seen_s)s, %(tenants)s::uuid[], %(limited)s::text[], %(keys)s::uuid[],
                              %(delta_s)s::float8[], %(quotas)s::float8[], %(per_s)s::float8[], %(holds)s::boolean[])
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
            await self._until_needed()
            try:
                await self.turn()
            except Exception:  # noqa: BLE001  the edge of a supervised task
                _log.exception("Limits could not be brought into accord with other processes, trying again")

    async def _until_needed(self) -> None:
        wanted = self._rates.wanted
        with suppress(TimeoutError):
            async with asyncio.timeout(RECONCILE_S):
                await asyncio.sleep(SOONEST_S)
                await wanted.wait()
        wanted.clear()

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
            self._rates.shared(1.0)
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
        reported = {(each.tenant_id, each.policy.name, each.key): each.report() for each in buckets}
        found = list(reported.values())
        parameters = {
            "process": self._process_id,
            "seen_s": SEEN_S,
            "tenants": [tenant_id for tenant_id, _, _ in reported],
            "limited": [limited for _, limited, _ in reported],
            "keys": [key for _, _, key in reported],
            "delta_s": [each.owed / each.bucket.per_s for each in found],
            "quotas": [each.bucket.quota for each in found],
            "per_s": [each.bucket.per_s for each in found],
            "holds": [each.holds for each in found],
        }
        async with self._pool.connection() as connection:
            (others, *_), *rows = await (await connection.execute(RECONCILE, parameters, binary=True)).fetchall()
        now, share = monotonic(), 1 / (1 + others)
        self._rates.shared(share)
        for _, tenant_id, limited, key, debt_s, lease in rows:
            each = reported[tenant_id, limited, key]
            each.bucket.corrected(debt_s, lease, each, share, now)
        self._rates.settle(buckets)

    async def _sweep(self) -> None:
        self._rates.forget_full()
        async with self._pool.connection() as connection:
            for statement in SWEEP:
                await connection.execute(statement, {"days": ATTEMPTS_DAYS})
