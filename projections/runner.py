"""Keeps the views up with the streams: one supervised task a view, each with a connection of its own.

Wakes say at once which tenant moved; a poll of the heads, every second, finds what no wake told. A tenant's batch is one
transaction: the position's row is locked (held by another process: left alone), events are read after it, projected, and
the position is written. Tenants take turns, a batch each. A projector that fails is tried again for that view and tenant
alone, with a growing pause; a database that goes away is an outage of the view, and nobody's fault.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import psycopg

from ledger import waker
from projections import batches, columns, cross_tenant, positions
from projections.view import View

POLL_S = 1.0
RETRY_S_MIN, RETRY_S_MAX = 0.5, 30.0
RECONNECT_S_MIN, RECONNECT_S_MAX = 0.1, 5.0
GATHER_S = 0.005
"""A view that has caught up with its only busy tenant rests this long: events gather, and a batch costs what an event costs.
At 500 commands/s four views take 0.2 of a core instead of 0.4, and are readable after 7 ms instead of 3."""
CLOSE_S_MAX = 10.0
"""How long closing waits for the batches in flight; a batch is usually done in 50 ms."""

_log = logging.getLogger(__name__)


class Failure(msgspec.Struct, frozen=True):
    """A view that cannot get past a batch of one tenant. `position` is the last one that stands, None if not even that is
    known."""

    view: str
    tenant_id: UUID
    position: int | None
    error: str
    attempts: int
    retry_at: datetime


class ViewState(msgspec.Struct, frozen=True):
    """What this process knows of its own work on a view."""

    view: str
    connected: bool
    tenants_waiting: int
    events: int  # read since the start, wanted or not
    failures: list[Failure]


class Runner:
    """Lives from `start` to `close`. All of it is touched by the event loop's thread only.

    `connect` gives connections of the projector's role in autocommit.
    """

    def __init__(
        self,
        views: Sequence[View],
        connect: positions.Connect,
        source: batches.Source,
        wakes: waker.Waker,
        reached: positions.Reached,
        batch_events: int = batches.EVENTS_MAX,
    ) -> None:
        self._connect = connect
        self._wakes = wakes
        self._workers = {view.name: _Worker(view, connect, source, reached, batch_events) for view in views}
        self._unsubscribe: Callable[[], None] = lambda: None
        self._poll_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns at once; the views catch up by and by."""
        for worker in self._workers.values():
            worker.start()
        self._unsubscribe = self._wakes.subscribe(self._moved)
        self._poll_task = asyncio.create_task(self._poll(), name="projections-poll")

    async def close(self) -> None:
        """Finishes the batches in flight, then leaves; what takes longer than CLOSE_S_MAX is rolled back. Closing again does nothing."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        if self._poll_task is not None:
            self._poll_task.cancel()
            await asyncio.gather(self._poll_task, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))

    def state(self) -> list[ViewState]:
        """Of each view, in the order in which they were given."""
        return [worker.state() for worker in self._workers.values()]

    def _moved(self, tenant_id: UUID, position: int) -> None:
        for worker in self._workers.values():
            worker.offer(tenant_id, position)

    async def _poll(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    while True:
                        for view, tenant_id, head in await cross_tenant.behind(connection, list(self._workers)):
                            self._workers[view].offer(tenant_id, head)
                        await asyncio.sleep(POLL_S)
            except psycopg.Error as error:
                _log.warning("The heads could not be polled, trying again: %s", str(error).strip())
                await asyncio.sleep(POLL_S)


class _Worker:
    """One view's task."""

    def __init__(
        self,
        view: View,
        connect: positions.Connect,
        source: batches.Source,
        reached: positions.Reached,
        batch_events: int,
    ) -> None:
        self._view = view
        self._connect = connect
        self._source = source
        self._reached = reached
        self._batch_events = batch_events
        self._behind: OrderedDict[UUID, int] = OrderedDict()  # tenant to the position to reach; whose turn it is first
        self._failures: dict[UUID, Failure] = {}
        self._retries: dict[UUID, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._connection: positions.Connection | None = None
        self._reconnect_s = RECONNECT_S_MIN
        self._events = 0
        self._catching_up = False  # the last batch left some of what was known to be there
        self._rest_until = 0.0  # in the loop's time
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"view-{self._view.name}")

    async def close(self) -> None:
        self._closing.set()
        self._wake.set()
        for retry in self._retries.values():
            retry.cancel()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_S_MAX)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()

    def state(self) -> ViewState:
        failures = list(self._failures.values())
        return ViewState(self._view.name, self._connection is not None, len(self._behind), self._events, failures)

    def offer(self, tenant_id: UUID, position: int) -> None:
        """The tenant's stream is at `position`. While a retry is due later, nothing is done before."""
        if tenant_id in self._retries or self._reached.at(tenant_id, self._view.name) >= position:
            return
        self._behind[tenant_id] = max(position, self._behind.get(tenant_id, 0))
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closing.is_set():
            if not self._behind:
                self._wake.clear()
                await self._wake.wait()
            elif len(self._behind) == 1 and not self._catching_up and loop.time() < self._rest_until:
                await asyncio.sleep(self._rest_until - loop.time())
            else:
                self._catching_up = False
                await self._turn(*self._behind.popitem(last=False))
                self._rest_until = loop.time() + GATHER_S

    async def _turn(self, tenant_id: UUID, target: int) -> None:
        """One batch of one tenant. The supervised edge: whatever a projector raises ends here."""
        after: int | None = None
        try:
            connection = await self._connected()
            async with connection.transaction():
                after = await positions.lock_if_free(connection, self._view.name, tenant_id)
                if after is not None:
                    position = await batches.apply(
                        connection, self._source, self._view, tenant_id, after, self._batch_events
                    )
            if after is not None:
                self._advanced(tenant_id, target, after, position)
            elif await positions.begin(connection, self._view.name, tenant_id):
                self.offer(tenant_id, target)  # its first batch
            # else: another process has it, and what it does not do the next poll finds
        except Exception as error:  # noqa: BLE001  the edge of a supervised task: logged, kept in `state`, retried
            if isinstance(error, psycopg.OperationalError) and (self._connection is None or self._connection.closed):
                await self._outage(tenant_id, target, error)
            else:
                self._failed(tenant_id, target, after, error)

    def _advanced(self, tenant_id: UUID, target: int, after: int, position: int) -> None:
        self._events += position - after
        self._failures.pop(tenant_id, None)
        self._reached.moved(tenant_id, self._view.name, position)
        if after < position < target:
            self._catching_up = True
            self.offer(tenant_id, target)  # at the end of the queue: the others have their turns first

    def _failed(self, tenant_id: UUID, target: int, after: int | None, error: Exception) -> None:
        earlier = self._failures.get(tenant_id)
        attempts = 1 if earlier is None else earlier.attempts + 1
        pause_s = min(RETRY_S_MIN * 2 ** min(attempts - 1, 10), RETRY_S_MAX)
        described = _described(error)
        _log.error(
            "The view %s of tenant %s failed after position %s (attempt %s), tried again in %s s: %s",
            self._view.name,
            tenant_id,
            after,
            attempts,
            pause_s,
            described,
            exc_info=None if isinstance(error, psycopg.Error) else error,
        )
        retry_at = datetime.now(UTC) + timedelta(seconds=pause_s)
        self._failures[tenant_id] = Failure(self._view.name, tenant_id, after, described, attempts, retry_at)
        target = max(
            target, self._behind.pop(tenant_id, 0)
        )  # a wake that came during the batch waits for the retry too
        if not self._closing.is_set():
            loop = asyncio.get_running_loop()
            self._retries[tenant_id] = loop.call_later(pause_s, self._retry, tenant_id, target)

    def _retry(self, tenant_id: UUID, target: int) -> None:
        del self._retries[tenant_id]
        self._behind[tenant_id] = max(target, self._behind.get(tenant_id, 0))
        self._wake.set()

    async def _connected(self) -> positions.Connection:
        if self._connection is None:
            self._connection = await self._connect()
            columns.register(self._connection.adapters)
            self._reconnect_s = RECONNECT_S_MIN
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _outage(self, tenant_id: UUID, target: int, error: Exception) -> None:
        _log.warning(
            "The view %s lost the database, trying again in %s s: %s",
            self._view.name,
            self._reconnect_s,
            str(error).strip(),
        )
        await self._disconnect()
        self.offer(tenant_id, target)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._reconnect_s)
        self._reconnect_s = min(self._reconnect_s * 2, RECONNECT_S_MAX)


def _described(error: Exception) -> str:
    """One line. Of the database's errors without their detail, which quotes the row and may name a person."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{type(error).__name__}: {error.diag.message_primary} (SQLSTATE {error.sqlstate})"
    return f"{type(error).__name__}: {str(error).strip()}"
