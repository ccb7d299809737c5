"""One view's task: tenants take turns, a batch each, one transaction a batch.

The transaction begins by moving the position, which holds the row, checks the lease's token, and says which generations are
fed; then the batch is projected into each of them. Of events that the view does not want that move is all, and no transaction of
several statements is needed. A batch that fails is halved until the event stands alone, and the view's
policy says what becomes of it. An outage is nobody's fault: it is waited for.
"""

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import psycopg

from projections import batches, columns, failures, generations, leases, positions, settling, stream
from projections.view import View

RETRY_S_MIN, RETRY_S_MAX = 0.5, 30.0
RECONNECT_S_MIN, RECONNECT_S_MAX = 0.1, 5.0
GATHER_S = 0.005
"""A view that has caught up with its only busy tenant rests this long: events gather, and a batch costs what an event costs.
At 500 commands/s four views take 0.2 of a core instead of 0.4, and are readable after 7 ms instead of 3."""
GATHER_BUSY_S, BUSY_EVENTS = 0.05, 40
"""After a batch of so many events it rests so long: from about 2,500 commands/s on the commands need what batches cost."""
GATHER_UNWANTED_S = 0.1
"""And so long if it wanted none of them: only who has a position from elsewhere waits for it."""
GIVE_WAY_S = 0.005
"""A view that wants none of the new events lets those go first that do, and on which a feed or a reader waits: all six views at once
are a millisecond of the process. Told to a listener 0.1 to 2.5 ms earlier, in three pairs of runs."""
CLOSE_S_MAX = 10.0
"""How long closing waits for the batches in flight; a batch is usually done in 50 ms."""

_log = logging.getLogger(__name__)


class Failure(msgspec.Struct, frozen=True):
    """A view that cannot get past an event of one tenant. `position` is the last one that stands, None if not even that is
    known. `retry_at` is None if it has stopped."""

    view: str
    tenant_id: UUID
    position: int | None
    error: str
    attempts: int
    retry_at: datetime | None


class ViewState(msgspec.Struct, frozen=True):
    """What this process knows of its own work on a view."""

    view: str
    connected: bool
    tenants_waiting: int
    events: int  # read since the start, wanted or not
    failures: list[Failure]


class _Trouble(msgspec.Struct):
    """A batch that failed: in steps of `limit` up to `until`, until the event stands alone."""

    limit: int
    until: int
    attempts: int = 0  # of the event that stands alone


class Worker:
    """Lives from `start` to `close`. All of it is touched by the event loop's thread only."""

    def __init__(
        self,
        view: View,
        connect: positions.Connect,
        events: stream.Stream,
        reached: positions.Reached,
        held: leases.Leases,
        batch_events: int,
    ) -> None:
        self.view = view
        self._connect = connect
        self._stream = events
        self._reached = reached
        self._leases = held
        self._batch_events = batch_events
        self._behind: OrderedDict[UUID, int] = OrderedDict()  # tenant to the position to reach; whose turn it is first
        self._at: OrderedDict[UUID, int] = OrderedDict()  # where a tenant's view was found or left
        self._trouble: dict[UUID, _Trouble] = {}
        self._failures: dict[UUID, Failure] = {}
        self._changed: set[UUID] = set()  # whose generations came or went during the last batch
        self._retries: dict[UUID, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._connection: positions.Connection | None = None
        self._reconnect_s = RECONNECT_S_MIN
        self._events = 0
        self._catching_up = False  # the last batch left some of what was known to be there
        self._busy_rest_s = GATHER_BUSY_S  # after the last batch, if it was a busy one
        self._rest_until = 0.0  # in the loop's time
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"view-{self.view.name}")

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
        failures_known = list(self._failures.values())
        return ViewState(self.view.name, self._connection is not None, len(self._behind), self._events, failures_known)

    def offer(self, tenant_id: UUID, position: int, *, found: bool = False) -> None:
        """The tenant's stream is at `position`. `found`: the database says that the view is behind and has not stopped.

        While a retry is due later, nothing is done before.
        """
        if tenant_id in self._retries or self._leases.token(self.view.name, tenant_id) is None:
            return
        if self._at.get(tenant_id, 0) >= position:
            return
        failure = self._failures.get(tenant_id)
        if failure is not None and failure.retry_at is None and not found:
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
                self._catching_up, before = False, self._events
                await self._turn(*self._behind.popitem(last=False))
                rest_s = GATHER_S if self._events - before < BUSY_EVENTS else self._busy_rest_s
                self._rest_until = loop.time() + rest_s

    async def _turn(self, tenant_id: UUID, target: int) -> None:
        """One batch of one tenant. The supervised edge: whatever a projector raises ends here."""
        stretch: stream.Stretch | None = None
        try:
            connection = await self._connected()
            if tenant_id not in self._at and not await self._find(connection, tenant_id, target):
                return
            trouble = self._trouble.get(tenant_id)
            limit = self._batch_events if trouble is None else trouble.limit
            stretch = await self._stream.after(tenant_id, self._at[tenant_id], limit, ahead=not self._behind)
            if stretch.to == stretch.after:
                return  # woken for nothing
            events = stretch.of(self.view.wanted)
            self._busy_rest_s = GATHER_BUSY_S if events else GATHER_UNWANTED_S
            if not events and not self._behind and stretch.to - stretch.after < limit:
                await give_way()
            if not events and await generations.move_alone(connection, self._step(tenant_id, stretch)):
                self._advanced(tenant_id, target, stretch)
                return
            async with connection.transaction():
                moved = await generations.move(connection, self._step(tenant_id, stretch))
                for generation in moved:
                    await batches.apply(connection, self.view, tenant_id, generation, events)
            if moved:
                self._advanced(tenant_id, target, stretch)
            else:
                await self._refused(connection, tenant_id, target)
        except Exception as error:  # noqa: BLE001  the edge of a supervised task: logged, kept in `state`, retried
            await self._failed(tenant_id, target, stretch, error)

    def _step(self, tenant_id: UUID, stretch: stream.Stretch) -> generations.Step | None:
        """None if this is not for this process to do."""
        token = self._leases.token(self.view.name, tenant_id)
        if token is None:
            return None
        bucket = leases.bucket(tenant_id)
        return generations.Step(self.view.name, self.view.version, tenant_id, stretch.after, stretch.to, bucket, token)

    async def _find(self, connection: positions.Connection, tenant_id: UUID, target: int) -> bool:
        """Where the view is; made if it is new. False: it is not for this process to go on."""
        active = generations.active(await generations.all_of(connection, self.view.name, tenant_id))
        if active is None:
            await generations.begin(connection, self.view.name, self.view.version, tenant_id)
            self._at[tenant_id] = 0
            return True
        if active.version > self.view.version:
            _log.error(
                "The view %s of tenant %s is of version %s, and this release has %s. Replace this process by the newer release.",
                *(self.view.name, tenant_id, active.version, self.view.version),
            )
            return False
        if active.stopped:
            self._failures[tenant_id] = Failure(
                self.view.name, tenant_id, active.position, active.failure or "", 0, retry_at=None
            )
            return False
        self._at[tenant_id] = active.position
        self._at.move_to_end(tenant_id)
        if len(self._at) > positions.KNOWN_MAX:
            self._at.popitem(last=False)
        self._reached.moved(tenant_id, self.view.name, active.position)
        return active.position < target

    async def _refused(self, connection: positions.Connection, tenant_id: UUID, target: int) -> None:
        """Somebody else moved the view, or has the tenant now."""
        before = self._at.pop(tenant_id, None)
        if await self._find(connection, tenant_id, target) and self._at[tenant_id] == before:
            self._leases.lost(self.view.name, tenant_id)  # nothing else is left that can have refused it
            del self._at[tenant_id]
        else:
            self.offer(tenant_id, target)

    def _advanced(self, tenant_id: UUID, target: int, stretch: stream.Stretch) -> None:
        self._events += stretch.to - stretch.after
        self._at[tenant_id] = stretch.to
        self._failures.pop(tenant_id, None)
        self._changed.discard(tenant_id)
        trouble = self._trouble.get(tenant_id)
        if trouble is not None:
            trouble.attempts = 0
            if stretch.to >= trouble.until:
                del self._trouble[tenant_id]
        self._reached.moved(tenant_id, self.view.name, stretch.to)
        if stretch.to < target:
            self._catching_up = True
            self.offer(tenant_id, target)  # at the end of the queue: the others have their turns first

    # What failed

    async def _failed(self, tenant_id: UUID, target: int, stretch: stream.Stretch | None, error: Exception) -> None:
        if isinstance(error, generations.Changed) and tenant_id not in self._changed:
            self._changed.add(tenant_id)
            self.offer(tenant_id, target)  # at once; whoever finds a change twice running waits, and says so
            return
        cause = error.cause if isinstance(error, batches.GenerationFailed) else error
        if failures.is_outage(cause) or stretch is None or isinstance(error, generations.Changed):
            if failures.is_lost(cause):
                await self._outage(tenant_id, target, cause)
            else:
                await self._pause(tenant_id, target, stretch, cause, self._attempts(tenant_id))
            return
        length = stretch.to - stretch.after
        trouble = self._trouble.setdefault(tenant_id, _Trouble(length, stretch.to))
        if length > 1:
            trouble.limit = length // 2
            self._behind[tenant_id] = target  # at once, but after the others
            return
        trouble.attempts += 1
        spare = isinstance(error, batches.GenerationFailed) and error.generation.state != "active"
        decision = failures.Decision.PARK if spare else self.view.on_failure(cause, trouble.attempts)
        if decision == failures.Decision.RETRY:
            await self._pause(tenant_id, target, stretch, cause, trouble.attempts)
        else:
            await self._give_up(tenant_id, target, stretch, cause, trouble.attempts, decision)

    def _attempts(self, tenant_id: UUID) -> int:
        earlier = self._failures.get(tenant_id)
        return 1 if earlier is None else earlier.attempts + 1

    async def _pause(
        self, tenant_id: UUID, target: int, stretch: stream.Stretch | None, error: Exception, attempts: int
    ) -> None:
        pause_s = min(RETRY_S_MIN * 2 ** min(attempts - 1, 10), RETRY_S_MAX)
        at = self._at.get(tenant_id) if stretch is None else stretch.after
        _log.error(
            "The view %s of tenant %s failed after position %s (attempt %s), tried again in %s s: %s",
            *(self.view.name, tenant_id, at, attempts, pause_s, failures.logged(error)),
            exc_info=None if isinstance(error, psycopg.Error) else error,
        )
        retry_at = datetime.now(UTC) + timedelta(seconds=pause_s)
        self._failures[tenant_id] = Failure(self.view.name, tenant_id, at, failures.logged(error), attempts, retry_at)
        await self._tell(tenant_id, at, error, attempts)
        # A wake that came during the batch waits for the retry too.
        target = max(target, self._behind.pop(tenant_id, 0))
        if not self._closing.is_set():
            loop = asyncio.get_running_loop()
            self._retries[tenant_id] = loop.call_later(pause_s, self._retry, tenant_id, target)

    async def _tell(self, tenant_id: UUID, at: int | None, error: Exception, attempts: int) -> None:
        """For whoever looks from another process."""
        if at is not None and self._connection is not None:
            with suppress(psycopg.Error):  # it is in the log
                described = failures.described(error)
                await generations.failed(
                    self._connection, self.view.name, tenant_id, at, described, attempts, stopped=False
                )

    def _retry(self, tenant_id: UUID, target: int) -> None:
        del self._retries[tenant_id]
        self.offer(tenant_id, target)

    async def _give_up(
        self,
        tenant_id: UUID,
        target: int,
        stretch: stream.Stretch,
        error: Exception,
        attempts: int,
        decision: failures.Decision,
    ) -> None:
        """The originator is parked and all others go on; or, where that must not be, the view of this tenant stops."""
        parks = decision == failures.Decision.PARK and self.view.commutes
        try:
            connection = await self._connected()
            if await self._settle(connection, tenant_id, stretch, attempts, parks=parks):
                self._advanced(tenant_id, target, stretch)
            else:
                await self._refused(connection, tenant_id, target)
        except batches.GenerationFailed as failed:
            if failures.is_outage(failed.cause):
                await self._pause(tenant_id, target, stretch, failed.cause, attempts)
            else:
                await self._stop(tenant_id, target, stretch, failed.cause, attempts)
        except generations.Changed:
            self.offer(tenant_id, target)
        except Exception as failed:  # noqa: BLE001  the edge of a supervised task, as in `_turn`
            await self._pause(tenant_id, target, stretch, failed, attempts)

    async def _settle(
        self,
        connection: positions.Connection,
        tenant_id: UUID,
        stretch: stream.Stretch,
        attempts: int,
        *,
        parks: bool,
    ) -> bool:
        """Get past one event. False: refused. Raises GenerationFailed of the active one, if it must not be parked there."""
        events = stretch.of(self.view.wanted)
        async with connection.transaction():
            moved = await generations.move(connection, self._step(tenant_id, stretch))
            await settling.settle(connection, self.view, tenant_id, moved, events, attempts, parks=parks)
        return bool(moved)

    async def _stop(
        self, tenant_id: UUID, target: int, stretch: stream.Stretch, error: Exception, attempts: int
    ) -> None:
        _log.critical(
            "The view %s of tenant %s has stopped after position %s, as it cannot digest the next event: %s. Correct the view "
            "and run `bitnexus projections retry`, or pass over the event with `bitnexus projections skip`.",
            *(self.view.name, tenant_id, stretch.after, failures.logged(error)),
            exc_info=None if isinstance(error, psycopg.Error) else error,
        )
        try:
            connection = await self._connected()
            await generations.failed(
                *(connection, self.view.name, tenant_id, stretch.after, failures.described(error), attempts),
                stopped=True,
            )
        except psycopg.Error as unsaid:
            await self._pause(tenant_id, target, stretch, unsaid, attempts)
            return
        del self._trouble[tenant_id]
        self._at.pop(tenant_id, None)
        self._behind.pop(tenant_id, None)
        self._failures[tenant_id] = Failure(
            self.view.name, tenant_id, stretch.after, failures.logged(error), attempts, retry_at=None
        )

    # The connection

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
            *(self.view.name, self._reconnect_s, str(error).strip()),
        )
        await self._disconnect()
        self._at.clear()  # the database may have come back from another moment
        self._reached.forget()
        self.offer(tenant_id, target)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._reconnect_s)
        self._reconnect_s = min(self._reconnect_s * 2, RECONNECT_S_MAX)


async def give_way() -> None:
    """Of a view that nobody waits for."""
    await asyncio.sleep(GIVE_WAY_S)
