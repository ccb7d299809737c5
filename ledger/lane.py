"""Calls of prepared statements on one connection, answered in the order in which they were sent, over lost connections too.

libpq's pipeline mode: the next call is on its way while the database works on this one, so neither waits for the other. Each
call is a transaction of its own (a sync follows it). psycopg's own pipeline holds the connection's lock while it waits for
an answer, so what is sent and read here is sent and read by libpq's non-blocking functions (PostgreSQL 18, 32.5).
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import AsyncConnection, pq
from psycopg import errors as pg
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow

RECOVERY_S_MAX = 30.0
"""How long a call is sent again to a database that went away, before it fails."""
CONNECT_S_MAX = 10.0
"""A server that takes the connection and then says nothing is not there."""
RETRY_S_MIN, RETRY_S_MAX = 0.05, 1.0
LOOK_S = 0.5
"""Between two looks at the socket that nobody asked for: uvloop tells of a socket that was reset after the server's last words
once, and those words may be all that is read then."""
_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_GONE = "57"
"""Class of the errors with which a server says that it ends the connection or has none to give: operator intervention."""
_ENDS = ("FATAL", "PANIC")
"""Severities with which a server ends the connection. A PANIC says what could not be written, but not whether the commit stands."""

_log = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[AsyncConnection[TupleRow]]]


@dataclass(eq=False)
class _Call:
    statement: str
    parameters: Sequence[bytes]
    answer: "asyncio.Future[PGresult]"
    result: PGresult | None = None  # came, but its sync did not yet
    deadline: float | None = field(default=None)  # in the loop's time, from the first loss on


class Lost(Exception):
    """The database went away and did not come back in time. The cause is the last attempt's error."""


class Closed(Exception):
    """The lane was closed before this call, which was not sent."""

    def __init__(self, statement: str) -> None:
        super().__init__(
            f"{statement} was called on a connection that is closed for good, and was not sent. Make a new lane, or close "
            "this one after all that use it."
        )


class Lane:
    """Lives from `open` to `close`. All of it is touched by the event loop's thread only.

    `connect` gives connections in autocommit, `statements` are SQL by name, each prepared once a connection, and
    `lock_timeout_ms` is how long a call may wait for a row that another transaction holds, and `recovery_s_max` how long it is
    sent again to a database that went away (RECOVERY_S_MAX). `recovered` is called when a lost connection was made anew.
    """

    def __init__(
        self,
        connect: Connect,
        statements: Mapping[str, str],
        lock_timeout_ms: int,
        recovery_s_max: float | None = None,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._statements = statements
        self._lock_timeout_ms = lock_timeout_ms
        self._recovered = recovered
        self._recovery_s_max = RECOVERY_S_MAX if recovery_s_max is None else recovery_s_max
        self._calls: deque[_Call] = deque()  # not answered yet, in order
        self._connection: AsyncConnection[TupleRow] | None = None
        self._pgconn: PGconn | None = None  # the connection's, while it is good
        self._socket = -1  # the connection's; libpq forgets it when it finds it closed
        self._look: asyncio.TimerHandle | None = None  # while `_pgconn` is there
        self._recovery: asyncio.Task[None] | None = None
        self._pause_s = 0.0  # before the next attempt to connect; none after an answer
        self._closed = False

    async def open(self) -> None:
        """Raises psycopg.OperationalError if the database is not there."""
        await self._establish()

    async def close(self) -> None:
        """Lets the connection go, for good. Calls that have no answer are cancelled."""
        self._closed = True
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        self._let_go()
        while self._calls:
            self._calls.popleft().answer.cancel()

    def call(self, statement: str, parameters: Sequence[bytes]) -> "asyncio.Future[PGresult]":
        """Send at once. The answer is in binary, or an exception: psycopg.Error, Lost, Closed.

        After an error with an SQLSTATE nothing was written: the database gave it, and lives. Lost is raised when the database
        did not come back in time; whether the call was executed is not known then. Parameters are in binary, of
        the types that the statement was prepared with.
        """
        call = _Call(statement, parameters, asyncio.get_running_loop().create_future())
        if self._closed:
            call.answer.set_exception(Closed(statement))
            return call.answer
        self._calls.append(call)
        if self._pgconn is not None:
            try:
                self._guarded(self._send, call)
            except BaseException:  # it was not sent: the next answer is not its
                self._calls.remove(call)
                raise
        elif self._recovery is None:
            self._recover(psycopg.OperationalError("the database is away"))
        return call.answer

    # A good connection

    async def _establish(self) -> None:
        connection = await self._connect()
        try:
            await connection.execute(f"SET lock_timeout = {self._lock_timeout_ms}")
            for name, statement in self._statements.items():
                await connection.execute(f"PREPARE {name} {statement}".encode())
        except BaseException:
            await connection.close()
            raise
        self._connection, self._pgconn = connection, connection.pgconn
        self._pgconn.enter_pipeline_mode()
        self._socket = self._pgconn.socket
        asyncio.get_running_loop().add_reader(self._socket, self._guarded, self._read)
        self._look_later()

    def _send(self, pgconn: PGconn, call: _Call) -> None:
        formats = [pq.Format.BINARY] * len(call.parameters)
        pgconn.send_query_prepared(call.statement.encode(), call.parameters, formats, pq.Format.BINARY)
        pgconn.pipeline_sync()
        self._push(pgconn)

    def _push(self, pgconn: PGconn) -> None:
        """What the socket does not take now goes out when it can be written to."""
        loop = asyncio.get_running_loop()
        if pgconn.flush():
            loop.add_writer(self._socket, self._guarded, self._push)
        else:
            loop.remove_writer(self._socket)

    def _read(self, pgconn: PGconn) -> None:
        pgconn.consume_input()
        ended = False
        while self._calls and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if ended:
                    raise psycopg.OperationalError(f"libpq knows nothing of {len(self._calls)} calls without an answer")
                ended = True  # between a call's result and its sync
                continue
            ended = False
            call = self._calls[0]
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                if call.result is None:
                    raise psycopg.OperationalError("a call came to its end without a result")
                self._calls.popleft()
                self._pause_s = 0.0
                if not call.answer.done():
                    call.answer.set_result(call.result)
            elif result.status in _GOOD:
                call.result = result
            else:
                self._refused(call, pg.error_from_result(result))
                call.result = result
        if not self._calls:
            self._push(pgconn)

    def _look_later(self) -> None:
        self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._guarded(self._read)
        if self._pgconn is not None:
            self._look_later()

    def _refused(self, call: _Call, error: psycopg.Error) -> None:
        if error.sqlstate is None or error.sqlstate.startswith(_GONE) or error.diag.severity_nonlocalized in _ENDS:
            raise psycopg.OperationalError(str(error))
        if not call.answer.done():
            call.answer.set_exception(error)

    def _guarded(self, step: Callable[..., None], *arguments: object) -> None:
        """Whatever libpq says of a broken connection ends here: everything that has no answer is sent again."""
        if self._pgconn is None:
            return
        try:
            step(self._pgconn, *arguments)
        except psycopg.OperationalError as error:
            _log.warning("The database went away from its appender, connecting anew: %s", str(error).strip())
            self._let_go()
            if self._calls:
                self._recover(error)

    def _let_go(self) -> None:
        pgconn, self._pgconn = self._pgconn, None
        if pgconn is not None:
            if self._look is not None:
                self._look.cancel()
            loop = asyncio.get_running_loop()
            for remove in (loop.remove_reader, loop.remove_writer):
                with contextlib.suppress(OSError):  # libpq closed it: asyncio's loop says so, and has forgotten it then
                    remove(self._socket)
            pgconn.finish()
        self._connection = None

    # A lost one

    def _recover(self, error: Exception) -> None:
        self._recovery = asyncio.create_task(self._reconnect(error), name="lane-recovery")

    async def _reconnect(self, error: Exception) -> None:
        """Sends the same calls again, in order: who looks up whether they stand proves nothing while the old backend may be at work.

        A call that ends every connection that it is sent on is given up like one that finds none.
        """
        loop = asyncio.get_running_loop()
        while self._calls:
            for call in self._calls:
                call.result = None
                call.deadline = call.deadline or loop.time() + self._recovery_s_max
            self._give_up(error, loop.time() + self._pause_s)
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(max(self._pause_s * 2, RETRY_S_MIN), RETRY_S_MAX)
            if not self._calls:
                self._pause_s = 0.0  # the next call is tried at once
                break
            try:
                async with asyncio.timeout(CONNECT_S_MAX):
                    await self._establish()
            except Exception as refused:  # noqa: BLE001  the edge of a task: callers are told when their time is over
                _log.warning("The database is not there for its appender, trying again: %s", str(refused).strip())
                error = refused
                continue
            self._recovered()
            break
        self._recovery = None
        for call in list(self._calls):
            self._guarded(self._send, call)

    def _give_up(self, error: Exception, before: float) -> None:
        for call in list(self._calls):
            if call.deadline is not None and call.deadline < before:
                self._calls.remove(call)
                if not call.answer.done():
                    lost = Lost(str(error).strip() or type(error).__name__)
                    lost.__cause__ = error
                    call.answer.set_exception(lost)
