"""Group commit: one asyncio task per process appends what was queued while its last flushes were in flight.

A flush is one call of `ledger.append` on a connection of its own; commands stand in the order in which they came. Under load the
batches grow by themselves, and only then the next one waits a little, for those who were just answered and go on. Every command
gets its own answer; README.md states what is promised and why a lost connection is answered by sending the same commands again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter
from time import perf_counter
from uuid import UUID

import msgspec
import psycopg
from psycopg import errors as pg
from psycopg.pq.abc import PGresult

from ledger import errors, lane, listener, packing, told
from ledger.packing import Command
from ledger.waker import Waker

COMMANDS_PER_FLUSH_MAX = 1_000
"""Past a thousand the rate no longer rises, and the tail of the latency does."""
BYTES_PER_FLUSH_MAX = 8 * 1024 * 1024
QUEUE_COMMANDS_MAX = 10_000
"""About a third of a second of work at full speed: more waiting would only time out later."""
QUEUE_BYTES_MAX = 64 * 1024 * 1024
FLUSHES_MAX = 2
"""In flight: while the database works on one, the process answers the one before it and packs the next."""
SECOND_COMMANDS_MIN = 32
"""From here on what waits goes as a second flush, and for an idle connection as two, so that the process and the database work at the
same time: 1.3 times the rate at 64 concurrent commands, twice at 256. Fewer wait for the flush in flight: half of what a small one
costs the database is the call itself, and of several processes each has a smaller one. 64 connections over two workers had 1.1 times
the commands/s by it; 16 concurrent commands and nothing else to do for the process, 0.87."""
GATHER_MIN, GATHER_S = 16, 0.002
"""When a flush lands, those whom it answers and those who wait are about as many as come in its time. Of so many the next flush waits
for three fifths, so long at most: a flush costs database and process as much as some fifteen commands in it."""
HEAD_WAIT_MS = 200
"""How long a flush waits for a head that another transaction holds, before its tenant waits apart from the others."""
LOCK_TIMEOUT_MS = 2_000
"""How long a tenant waits apart, before its commands are refused."""
ASIDE_MAX = 8
"""Tenants that wait apart at the same time, each on a connection of its own."""

_log = logging.getLogger(__name__)

_OUTDATED = "BN001"
"""The SQLSTATE of `ledger.append_validating`; the error's detail lists what is outdated of `packing.reads_of`, from 1."""
_APPENDED, _REPLAYED = b"\0\0", b"\0\1"  # of the statuses, as they come


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where a command stands. `outcome` is the stored one if the command had been appended before, else None."""

    position: int
    recorded_at: datetime
    outcome: bytes | None


class _Waiting(msgspec.Struct, frozen=True, gc=False):  # nothing leads from its parts back to it
    command: Command
    answer: asyncio.Future[Appended]
    size: int  # bytes that it holds in the queue, about


_TENANT_NUMBER = attrgetter("command.tenant_id.int")
"""In the order of the tenants' ids, at half the price of their bytes."""


class Appender:
    """Lives from `start` to `close`. All of it is touched by the event loop's thread only.

    `connect` gives connections of the app role in autocommit.
    """

    def __init__(self, connect: lane.Connect, waker: Waker, tells: listener.Listener = listener.NOBODY) -> None:
        self.listener = tells
        self._connect = connect
        self._waker = waker
        self._lane = lane.Lane(connect, packing.STATEMENTS, HEAD_WAIT_MS)
        self._queue: deque[_Waiting] = deque()
        self._aside: dict[UUID, deque[_Waiting]] = {}  # tenants whose head somebody else holds; each has a task
        self._queued = 0  # commands in the queue and aside
        self._queued_bytes = 0
        self._in_flight = 0  # flushes without an answer
        self._gathers = 1  # how many commands an idle connection waits for, until `_gathering` ends
        self._gathering: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._writes = True  # as far as is known; said once when it changes
        self._task: asyncio.Task[None] | None = None
        self._repairs: set[asyncio.Task[None]] = set()
        self.flushes = 0
        self.commands = 0

    async def start(self) -> None:
        """Connects; raises psycopg.OperationalError if the database is not there."""
        await self._lane.open()
        self._task = asyncio.create_task(self._run(), name="appender")

    async def close(self) -> None:
        """Finishes what was accepted, then lets the connection go."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        while self._repairs:
            await asyncio.wait(self._repairs)
        await self._lane.close()

    @property
    def waiting(self) -> int:
        """Commands that are queued."""
        return self._queued

    @property
    def waiting_bytes(self) -> int:
        """What they hold, about."""
        return self._queued_bytes

    def submit(self, command: Command) -> "asyncio.Future[Appended]":
        """Queue a command. Its answer is an Appended or an exception of `ledger.errors`, as Ledger.append lists them.

        Raises Overloaded and AppenderClosed at once, EventTooLarge for what the database would refuse anyhow.
        """
        if self._closing:
            raise errors.AppenderClosed
        size = packing.checked_size(command)
        if self._queued >= QUEUE_COMMANDS_MAX or self._queued_bytes + size > QUEUE_BYTES_MAX:
            raise errors.Overloaded(self._queued)
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        queue = self._aside.get(command.tenant_id, self._queue) if self._aside else self._queue
        queue.append(_Waiting(command, answer, size))
        self._queued += 1
        self._queued_bytes += size
        self._wake.set()
        return answer

    async def _run(self) -> None:
        while self._queue or self._in_flight or not self._closing:
            # One that is taken apart, or a tenant that waits apart, may take long: nobody waits for that.
            wanted = SECOND_COMMANDS_MIN if self._in_flight and not self._repairs else self._gathers
            if len(self._queue) >= wanted and self._in_flight < FLUSHES_MAX:
                halve = not self._in_flight and len(self._queue) >= SECOND_COMMANDS_MIN
                self._flush(self._take(self._queue, len(self._queue) // 2 if halve else COMMANDS_PER_FLUSH_MAX))
            else:
                self._wake.clear()
                await self._wake.wait()

    def _take(self, queue: deque[_Waiting], commands_max: int) -> list[_Waiting]:
        """Of those that one statement appends: reads are validated by one, erasures and revocations done by others."""
        batch: list[_Waiting] = []
        size, commands_max = 0, min(commands_max, COMMANDS_PER_FLUSH_MAX)
        reads = erases = False
        while queue and len(batch) < commands_max and size < BYTES_PER_FLUSH_MAX:
            command = queue[0].command
            reads = reads or bool(command.reads)
            erases = erases or bool(command.erasures or command.revocations)
            if reads and erases:
                break
            waiting = queue.popleft()
            size += waiting.size
            batch.append(waiting)
        self._queued -= len(batch)
        self._queued_bytes -= size
        return batch

    def _gather(self, commands: int) -> None:
        self._gathers, gathering = commands, self._gathering
        if gathering is not None:
            gathering.cancel()
        self._gathering = None
        if commands > 1:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._gather, 1)
        self._wake.set()

    def _flush(self, batch: list[_Waiting]) -> None:
        batch.sort(key=_TENANT_NUMBER)
        self._in_flight += 1
        self._gathers = 1
        self._call(self._lane, batch).add_done_callback(partial(self._flushed, batch, perf_counter()))

    def _flushed(self, batch: list[_Waiting], begun: float, found: "asyncio.Future[PGresult]") -> None:
        if not found.cancelled() and found.exception() is None:
            self.listener.flushed(len(batch), perf_counter() - begun)
            self._answer(batch, found.result())
            self._landed(len(batch))
        else:
            self.listener.failed()
            self._supervise(self._repair(batch, found), batch).add_done_callback(lambda _: self._landed())
            self._wake.set()

    def _landed(self, answered: int = 0) -> None:
        self._in_flight -= 1
        come = answered + len(self._queue)
        self._gather(come * 3 // 5 if come >= GATHER_MIN else 1)

    def _supervise(self, work: Coroutine[None, None, None], batch: list[_Waiting]) -> "asyncio.Task[None]":
        async def edge() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001  a supervised task's edge: callers are told, the next flush goes on
                _log.exception("A flush of %d commands failed", len(batch))
                self._settle_with(batch, error)

        task = asyncio.create_task(edge(), name="appender-repair")
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)
        return task

    def _call(self, on: lane.Lane, batch: list[_Waiting]) -> "asyncio.Future[PGresult]":
        return on.call(*packing.call([waiting.command for waiting in batch]))

    # When a flush fails

    async def _repair(self, batch: list[_Waiting], failed: Awaitable[PGresult]) -> None:
        """Sent again until answered: tenant by tenant if a head stays locked, command by command if one is bad."""
        try:
            self._answer(batch, await failed)
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            tenants = {waiting.command.tenant_id for waiting in batch}
            if len(tenants) == 1:
                self._set_aside(tenants.pop(), batch)
                return
            for tenant_id in sorted(tenants, key=lambda each: each.bytes):
                one = [waiting for waiting in batch if waiting.command.tenant_id == tenant_id]
                await self._repair(one, self._call(self._lane, one))
        except (pg.DataError, pg.IntegrityError) as error:
            if len(batch) == 1:
                self._settle_with(batch, error)
                return
            for waiting in batch:
                await self._repair([waiting], self._call(self._lane, [waiting]))
        except (psycopg.Error, lane.Lost, lane.Closed) as error:
            if others := self._settle_outdated(batch, error):
                await self._repair(others, self._call(self._lane, others))

    def _set_aside(self, tenant_id: UUID, batch: list[_Waiting]) -> None:
        """A tenant whose head stays locked waits on a connection of its own, so that the others need not."""
        if tenant_id not in self._aside:
            if len(self._aside) == ASIDE_MAX:
                self._settle_with(batch, errors.TenantBusy(tenant_id))
                return
            self._aside[tenant_id] = deque()
            self._supervise(self._wait_aside(tenant_id), batch)
        self._aside[tenant_id].extend(batch)
        self._queued += len(batch)
        self._queued_bytes += sum(waiting.size for waiting in batch)

    async def _wait_aside(self, tenant_id: UUID) -> None:
        queue = self._aside[tenant_id]
        own = lane.Lane(self._connect, packing.STATEMENTS, LOCK_TIMEOUT_MS)
        try:
            while queue:
                batch = self._take(queue, COMMANDS_PER_FLUSH_MAX)
                try:
                    self._answer(batch, await self._call(own, batch))
                except (pg.LockNotAvailable, pg.DeadlockDetected):
                    self._settle_with(batch, errors.TenantBusy(tenant_id))
                except (pg.DataError, pg.IntegrityError):
                    for waiting in batch:
                        await self._repair([waiting], self._call(own, [waiting]))
                except (psycopg.Error, lane.Lost, lane.Closed) as error:
                    if others := self._settle_outdated(batch, error):
                        await self._repair(others, self._call(own, others))
        finally:
            self._queue.extend(self._aside.pop(tenant_id))  # none, unless something unforeseen ended this
            self._wake.set()
            await own.close()

    def _settle_outdated(self, batch: list[_Waiting], error: Exception) -> list[_Waiting]:
        """Those who read what is outdated are told, and the others are given back, to be sent again. With any other error all are told."""
        if not isinstance(error, psycopg.Error) or error.sqlstate != _OUTDATED:
            self._settle_with(batch, error)
            return []
        reads = packing.reads_of([waiting.command for waiting in batch])
        outdated = {reads[int(number) - 1] for number in (error.diag.message_detail or "").split()}
        others = []
        for waiting in batch:
            mine = outdated.intersection((waiting.command.tenant_id.int, read) for read in waiting.command.reads)
            if not mine:
                others.append(waiting)
            elif not waiting.answer.done():
                waiting.answer.set_exception(errors.ReadOutdated(UUID(bytes=mine.pop()[1].owner)))
        assert len(others) < len(batch)
        return others

    def _settle_with(self, batch: Sequence[_Waiting], error: Exception) -> None:
        for waiting in batch:
            refusal = told.of_error(error, waiting.command.command_id)
            if isinstance(refusal, errors.NotWritable) and self._writes:
                self._writes = False
                _log.error("Commands are refused until the database can write: %s", str(error).partition("\n")[0])
            if not waiting.answer.done():
                waiting.answer.set_exception(refusal)

    def _answer(self, batch: list[_Waiting], result: PGresult) -> None:
        assert result.ntuples == len(batch)
        self.flushes += 1
        self.commands += len(batch)
        moved: dict[int, tuple[UUID, int]] = {}
        value, recorded, recorded_at = result.get_value, b"", told.EPOCH
        for row, waiting in enumerate(batch):
            command, answer, status = waiting.command, waiting.answer, value(row, 0)
            if status not in (_APPENDED, _REPLAYED):
                if not answer.done():
                    answer.set_exception(told.of_row(result, row, command.tenant_id, command.command_id))
                continue
            if recorded != (stored := value(row, 2) or b""):  # a tenant's commands in a flush have one time
                recorded, recorded_at = stored, told.time(stored)
            position = int.from_bytes(value(row, 1) or b"")
            if command.events:  # also of a replay: perhaps by a flush of ours whose answer was lost
                tenant_id = command.tenant_id
                if tenant_id.int not in moved or moved[tenant_id.int][1] < position:
                    moved[tenant_id.int] = tenant_id, position
            if status == _APPENDED and not self._writes:
                self._writes = True
                _log.warning("The database writes again, commands are accepted")
            if not answer.done():
                answer.set_result(Appended(position, recorded_at, None if status == _APPENDED else value(row, 3)))
        for tenant_id, position in moved.values():
            self._waker.moved(tenant_id, position)
