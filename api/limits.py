"""What each tenant decided and may use, as this process knows it, and its events of today.

Known values are good for READ_EVERY_S; the request that finds older ones goes on with them while they are read anew, so that no
request waits but a tenant's first. Events are counted where there is a limit: each command that passes counts as one until the
stream is counted again, every COUNTED_EVERY_S. So processes together go over a limit by what they do in that time.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import psycopg_pool

from commands.limits import LimitReached
from domain.tenants import Limits, Tenant
from ledger import counts, replay
from ledger import errors as ledger_errors
from ledger.store import Ledger, Pool

READ_EVERY_S = 5.0
COUNTED_EVERY_S = 1.0
REMEMBERED_MAX = 10_000
"""Tenants: about 10 MiB."""
UNCOUNTED = ("account", "session", "person", "service_account", "security", "tenant", "look", "view", "invitation")
"""What begins the topics of events that no limit may stop: of accounts and security, and what the platform records."""
NO_LIMITS = Limits()

_log = logging.getLogger(__name__)


class Known:
    """What is known of one tenant. Touched by the event loop's thread only."""

    def __init__(self, limits: Limits, flags: frozenset[str], currency: str) -> None:
        self.limits = limits
        self.flags = flags
        self.currency = currency
        self.read_at = time.monotonic()
        self.counted_at = float("-inf")
        self.midnight = datetime.min.replace(tzinfo=UTC)  # of the day that is counted
        self.position = 0  # counted up to here
        self.events = 0  # of that day
        self.let_pass = 0  # commands since then


class TenantsKnown:
    """One an application; `close` ends what it reads."""

    def __init__(self, ledger: Ledger, pool: Pool) -> None:
        self._ledger = ledger
        self._pool = pool  # the app role's
        self._known: OrderedDict[UUID, Known] = OrderedDict()  # least recently read first
        self._tasks: dict[UUID, asyncio.Task[Known]] = {}

    def at_hand(self, tenant_id: UUID) -> Known | None:
        """What is known of the tenant, at most a few seconds old where it is asked for at least that often; None: nothing yet."""
        known = self._known.get(tenant_id)
        if known is not None and self._is_old(known):
            self._read_soon(tenant_id)
        return known

    async def of(self, tenant_id: UUID) -> Known:
        """As `at_hand`, read if nothing is known. Raises what psycopg raises."""
        known = self.at_hand(tenant_id)
        return known if known is not None else await asyncio.shield(self._read_soon(tenant_id))

    def requests_per_minute(self, tenant_id: UUID) -> int | None:
        """The tenant's own limit; None: it has none, or nothing is known of the tenant yet."""
        known = self.at_hand(tenant_id)
        if known is None:
            self._read_soon(tenant_id)
            return None
        return known.limits.requests_per_minute

    def check_events(self, tenant_id: UUID) -> Awaitable[None] | None:
        """Before a command that the limit counts: nothing to wait for, unless nothing is known yet.

        Raises LimitReached, also when awaited, and then what psycopg raises.
        """
        known = self.at_hand(tenant_id)
        if known is None:
            return self._checked(tenant_id)
        if known.limits.events_per_day is not None:
            _let_pass(known, known.limits.events_per_day)
        return None

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _checked(self, tenant_id: UUID) -> None:
        known = await self.of(tenant_id)
        if known.limits.events_per_day is not None:
            _let_pass(known, known.limits.events_per_day)

    def _is_old(self, known: Known) -> bool:
        now = time.monotonic()
        limited = known.limits.events_per_day is not None
        return now - known.read_at > READ_EVERY_S or (limited and now - known.counted_at > COUNTED_EVERY_S)

    def _read_soon(self, tenant_id: UUID) -> "asyncio.Task[Known]":
        task = self._tasks.get(tenant_id)
        if task is None:
            task = self._tasks[tenant_id] = asyncio.create_task(self._read(tenant_id), name="limits")
            task.add_done_callback(lambda done: self._was_read(tenant_id, done))
        return task

    def _was_read(self, tenant_id: UUID, task: "asyncio.Task[Known]") -> None:
        del self._tasks[tenant_id]
        if task.cancelled() or (error := task.exception()) is None:
            return
        expected = (psycopg.Error, psycopg_pool.PoolTimeout, ledger_errors.LedgerError)
        if isinstance(error, expected):
            _log.warning("The limits of tenant %s could not be read: %s", tenant_id, str(error).strip())
        else:
            _log.error("The limits of tenant %s could not be read", tenant_id, exc_info=error)

    async def _read(self, tenant_id: UUID) -> Known:
        tenant = (await self._ledger.load_many(Tenant, tenant_id, [tenant_id])).get(tenant_id)
        known = self._known.get(tenant_id)
        limits = NO_LIMITS if tenant is None else tenant.limits
        flags = frozenset() if tenant is None else frozenset(tenant.flags)
        if known is None:
            known = Known(limits, flags, "" if tenant is None else tenant.currency)
        known.limits, known.flags, known.read_at = limits, flags, time.monotonic()
        if tenant is not None:
            known.currency = tenant.currency
        if limits.events_per_day is not None:
            await self._count(tenant_id, known)
        self._known[tenant_id] = known
        self._known.move_to_end(tenant_id)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return known

    async def _count(self, tenant_id: UUID, known: Known) -> None:
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        passed = known.let_pass
        async with self._pool.connection() as connection:
            if midnight != known.midnight:
                before = midnight - timedelta(microseconds=1)
                known.position = await replay.position_at(connection, tenant_id, before)
                known.midnight, known.events = midnight, 0
            more, known.position = await counts.events(connection, tenant_id, known.position, UNCOUNTED)
        known.events += more
        known.let_pass = max(0, known.let_pass - passed)  # those since the count began may not be among the counted
        known.counted_at = time.monotonic()


def _let_pass(known: Known, most: int) -> None:
    if known.events + known.let_pass >= most and known.midnight.date() == datetime.now(UTC).date():
        raise LimitReached("events_per_day", most)
    known.let_pass += 1
