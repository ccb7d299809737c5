"""Group commit: one asyncio task per process appends what was queued while its last flush was in flight.

A flush is one call of `ledger.append` on a connection of its own. No timer waits for more commands; under load the batches
grow by themselves. Every command gets its own answer; README.md states what is promised and why a lost connection is
answered by sending the same commands again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg import errors as pg
from psycopg.rows import TupleRow

from ledger import arrays, chain, errors
from ledger.waker import Waker

COMMANDS_PER_FLUSH_MAX = 1_000
"""Past a thousand the rate no longer rises, and the tail of the latency does."""
BYTES_PER_FLUSH_MAX = 8 * 1024 * 1024
QUEUE_COMMANDS_MAX = 10_000
"""About a third of a second of work at full speed: more waiting would only time out later."""
QUEUE_BYTES_MAX = 64 * 1024 * 1024
VERSION_MAX = 2**31 - 1
LOCK_TIMEOUT_MS = 2_000
"""How long a flush waits for a head that another transaction holds, before it goes tenant by tenant."""
RECOVERY_S_MAX = 30.0
"""How long a flush is sent again to a database that went away, before its outcome is given up as unknown."""
RETRY_S_MIN, RETRY_S_MAX = 0.05, 1.0

_log = logging.getLogger(__name__)

# One statement, prepared once a connection; the order of the parameters is that of migrations/0002_pre_append.sql.
APPEND = "SELECT * FROM ledger.append(" + ", ".join(["%b"] * 20) + ")"
# The same for a flush that erases somebody, of migrations/0006_pre_erasure.sql.
APPEND_ERASING = "SELECT * FROM ledger.append_erasing(" + ", ".join(["%b"] * 22) + ")"


class Event(NamedTuple):
    """What is stored of one event. `state` and `metadata` are UTF-8 JSON objects."""

    originator_id: bytes
    originator_version: int
    topic: bytes
    state: bytes
    metadata: bytes


class Reservation(NamedTuple):
    """A unique key claimed (or released) for its owner."""

    kind: bytes
    key: bytes
    owner: bytes
    claim: bool


class SecretValue(NamedTuple):
    """A mutable secret; value None deletes it."""

    owner: bytes
    kind: bytes
    value: bytes | None


class Command(NamedTuple):
    """All or nothing. May carry no event: then the command id and its outcome are recorded all the same."""

    tenant_id: UUID
    command_id: UUID
    fingerprint: bytes
    outcome: bytes
    events: Sequence[Event]
    reservations: Sequence[Reservation] = ()
    secrets: Sequence[SecretValue] = ()
    erasures: Sequence[bytes] = ()  # subjects whose keys, references and own secrets end with this command

    def size(self) -> int:
        """Bytes that it holds in the queue, about."""
        return 200 + len(self.outcome) + sum(len(e.state) + len(e.metadata) + 60 for e in self.events)


class Appended(NamedTuple):
    """Where a command stands. `outcome` is the stored one if the command had been appended before, else None."""

    position: int
    recorded_at: datetime
    outcome: bytes | None


class _Waiting(NamedTuple):
    command: Command
    answer: "asyncio.Future[Appended]"
    size: int


Connect = Callable[[], Awaitable[AsyncConnection[TupleRow]]]


class Appender:
    """Lives from `start` to `close`. All of it is touched by the event loop's thread only."""

    def __init__(self, connect: Connect, waker: Waker) -> None:
        self._connect = connect  # gives a connection of the app role, autocommit
        self._waker = waker
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._connection: AsyncConnection[TupleRow] | None = None
        self.flushes = 0
        self.commands = 0

    async def start(self) -> None:
        """Connects; raises psycopg.OperationalError if the database is not there."""
        self._connection = await self._open()
        self._task = asyncio.create_task(self._run(), name="appender")

    async def close(self) -> None:
        """Finishes what was accepted, then lets the connection go."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await self._connection.close()

    @property
    def waiting(self) -> int:
        """Commands that are queued."""
        return len(self._queue)

    def submit(self, command: Command) -> "asyncio.Future[Appended]":
        """Queue a command. Its answer is an Appended or an exception of `ledger.errors`, as Ledger.append lists them.

        Raises Overloaded and AppenderClosed at once, EventTooLarge for what the database would refuse anyhow.
        """
        if self._closing:
            raise errors.AppenderClosed
        size = command.size()
        if len(self._queue) >= QUEUE_COMMANDS_MAX or self._queued_bytes + size > QUEUE_BYTES_MAX:
            raise errors.Overloaded(len(self._queue))
        for event in command.events:
            if (
                len(event.topic) + len(event.state) + len(event.metadata) + chain.LEAF_BYTES_FIXED
                > chain.LEAF_BYTES_MAX
            ):
                raise errors.EventTooLarge(command.command_id)
            if not 1 <= event.originator_version <= VERSION_MAX:
                raise ValueError(f"the version {event.originator_version} is not in 1 … {VERSION_MAX}")
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(command, answer, size))
        self._queued_bytes += size
        self._wake.set()
        return answer

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._take()
            try:
                await self._flush(batch)
            except Exception as error:  # noqa: BLE001  a supervised task's edge: callers are told, the next flush goes on
                _log.exception("A flush of %d commands failed", len(batch))
                _settle_with(batch, error)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < COMMANDS_PER_FLUSH_MAX and size < BYTES_PER_FLUSH_MAX:
            waiting = self._queue.popleft()
            size += waiting.size
            batch.append(waiting)
        self._queued_bytes -= size
        return batch

    async def _flush(self, batch: list[_Waiting]) -> None:
        """Send until answered: whole, then tenant by tenant if a head stays locked, command by command if one is bad."""
        batch.sort(key=lambda waiting: waiting.command.tenant_id.bytes)
        try:
            rows = await self._send(batch)
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            await self._flush_by_tenant(batch)
        except (pg.DataError, pg.IntegrityError) as error:
            if len(batch) == 1:
                _settle_with(batch, error)
                return
            for waiting in batch:
                await self._flush([waiting])
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError):
                for waiting in batch:
                    _settle_with([waiting], errors.OutcomeUnknown(waiting.command.command_id))
            else:
                _settle_with(batch, error)
        else:
            self._answer(batch, rows)

    async def _flush_by_tenant(self, batch: list[_Waiting]) -> None:
        tenants: dict[UUID, list[_Waiting]] = {}
        for waiting in batch:
            tenants.setdefault(waiting.command.tenant_id, []).append(waiting)
        if len(tenants) == 1:
            (tenant_id,) = tenants
            _settle_with(batch, errors.TenantBusy(tenant_id))
            return
        for one in tenants.values():
            await self._flush(one)

    async def _send(self, batch: list[_Waiting]) -> list[TupleRow]:
        """One call; over a lost connection the same commands are sent again with the same ids.

        Looking the ids up instead would prove nothing: the old backend may still be at work. Sending them again waits for
        the heads and then finds the record.
        """
        commands = [waiting.command for waiting in batch]
        statement, parameters = APPEND, pack(commands)
        if any(command.erasures for command in commands):
            statement, parameters = APPEND_ERASING, [*parameters, *pack_erasures(commands)]
        deadline = asyncio.get_running_loop().time() + RECOVERY_S_MAX
        pause_s = RETRY_S_MIN
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._open()
                cursor = self._connection.cursor(binary=True)
                await cursor.execute(statement, parameters, prepare=True)
                return await cursor.fetchall()
            except (pg.LockNotAvailable, pg.DeadlockDetected):
                raise
            except psycopg.OperationalError as error:
                _log.warning(
                    "The database did not answer the appender, the flush is sent again: %s", str(error).strip()
                )
                if self._connection is not None:
                    await self._connection.close()
                    self._connection = None
                if asyncio.get_running_loop().time() + pause_s > deadline:
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_S_MAX)

    async def _open(self) -> AsyncConnection[TupleRow]:
        connection = await self._connect()
        arrays.register(connection.adapters)
        await connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        return connection

    def _answer(self, batch: list[_Waiting], rows: list[TupleRow]) -> None:
        self.flushes += 1
        self.commands += len(batch)
        moved: dict[UUID, int] = {}
        for (command, answer, _), (status, position, recorded_at, outcome, kind, owner) in zip(
            batch, rows, strict=True
        ):
            if status <= 1 and command.events:  # replayed: perhaps by a flush of ours whose answer was lost
                moved[command.tenant_id] = max(position, moved.get(command.tenant_id, 0))
            if status == 0:
                if not answer.done():
                    answer.set_result(Appended(position, recorded_at, None))
            elif not answer.done():
                if status == 1:
                    answer.set_result(Appended(position, recorded_at, outcome))
                else:
                    answer.set_exception(_refusal(status, command, kind, owner))
        for tenant_id, position in moved.items():
            self._waker.moved(tenant_id, position)


def _refusal(status: int, command: Command, kind: str, owner: UUID) -> errors.LedgerError:
    if status == 2:
        return errors.CommandIdReused(command.command_id)
    if status == 3:
        return errors.VersionConflict(owner)
    if status == 4:
        return errors.ReservationTaken(kind, owner)
    if status == 5:
        return errors.EventTooLarge(command.command_id)
    return errors.TenantUnknown(command.tenant_id)


def _settle_with(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)


def pack(commands: Sequence[Command]) -> list[arrays.PackedArray]:
    """The twenty parameters of `ledger.append`. `commands` are in tenant order."""
    tenants: dict[UUID, int] = {}
    c_tenant = [tenants.setdefault(command.tenant_id, len(tenants) + 1) for command in commands]
    events = [event for command in commands for event in command.events]
    originators, versions, topics, states, metadatas = zip(*events, strict=True) if events else ((), (), (), (), ())
    reservations = [(c, r) for c, command in enumerate(commands, 1) for r in command.reservations]
    secrets = [(c, s) for c, command in enumerate(commands, 1) for s in command.secrets]
    return [
        arrays.UuidArray.of([tenant.bytes for tenant in tenants]),
        arrays.Int4Array.of(c_tenant),
        arrays.UuidArray.of([command.command_id.bytes for command in commands]),
        arrays.ByteaArray.of([command.fingerprint for command in commands]),
        arrays.ByteaArray.of([command.outcome for command in commands]),
        arrays.Int4Array.of([len(command.events) for command in commands]),
        arrays.UuidArray.of(originators),
        arrays.Int4Array.of(versions),
        arrays.TextArray.of(topics),
        arrays.ByteaArray.of(states),
        arrays.ByteaArray.of(metadatas),
        arrays.Int4Array.of([c for c, _ in reservations]),
        arrays.TextArray.of([r.kind for _, r in reservations]),
        arrays.ByteaArray.of([r.key for _, r in reservations]),
        arrays.UuidArray.of([r.owner for _, r in reservations]),
        arrays.BoolArray.of([r.claim for _, r in reservations]),
        arrays.Int4Array.of([c for c, _ in secrets]),
        arrays.UuidArray.of([s.owner for _, s in secrets]),
        arrays.TextArray.of([s.kind for _, s in secrets]),
        arrays.ByteaArray.with_nulls([s.value for _, s in secrets]),
    ]


def pack_erasures(commands: Sequence[Command]) -> list[arrays.PackedArray]:
    """The two parameters that `ledger.append_erasing` has beside those of `pack`."""
    erasures = [(c, subject) for c, command in enumerate(commands, 1) for subject in command.erasures]
    return [arrays.Int4Array.of([c for c, _ in erasures]), arrays.UuidArray.of([subject for _, subject in erasures])]
