"""Where queries read: a streaming replica as long as it keeps up, else the primary.

away ──► in use ──► behind     Looked at every LOOK_S. In use once it has replayed what the primary had written BACK_S ago;
  ▲        │  ▲       │        behind when it has not replayed what the primary had written LAG_S_MAX ago; away when it does
  └────────┴──┴───────┘        not answer, or is no replica. Each transition is logged once.

A query that names a position (X-Position) waits for it where it reads. One that the replica cannot answer, or not in time, is
asked of the primary, so a replica that fails costs a query at most ANSWER_S_MAX, and only those that were under way.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString, TypeVar

import msgspec
import psycopg
import psycopg_pool
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from projections import failures, positions, rows

LOOK_S = 0.25
LAG_S_MAX, BACK_S = 2.0, 1.0
"""The second one is smaller, so that a replica that just about keeps up does not come and go."""
ANSWER_S_MAX = 1.0
"""A query that the replica has not answered by then is asked of the primary. What is in the cache of neither takes milliseconds."""
WAIT_S_MAX = 0.5
"""How long of positions.WAIT_S_MAX is spent on waiting for the replica."""
CONNECTIONS_MAX = 10
RECOVERY_S_MAX = 0.2
SEEN_MAX = 64
"""Looks that are remembered: 16 s."""

# Cross-tenant, in that no tenant is in it. An LSN as a number: bytes of log since the cluster began.
WRITTEN: LiteralString = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
REPLAYED: LiteralString = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END"
)

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Source(msgspec.Struct, frozen=True):
    """A database that queries may read: `pool` is of the app role, in autocommit; `reached`: how far its views are."""

    pool: Pool
    rows: rows.Rows
    reached: positions.Reached


class NotAnswered(Exception):
    """The replica did not answer. Ask the primary."""


class Replica:
    """Lives from `start` to `close`. Touched by the event loop's thread only.

    `primary` and `connect` give connections in autocommit, of any role that is the process's own.
    """

    def __init__(self, source: Source, primary: positions.Connect, connect: positions.Connect) -> None:
        self.source = source
        self.state = "away"
        self._primary = _Asked(primary, WRITTEN)
        self._replica = _Asked(connect, REPLAYED)
        self._seen: deque[tuple[float, int]] = deque(maxlen=SEEN_MAX)  # when the primary had written how much
        self._caught_up_at = -LAG_S_MAX  # in the loop's time: what was written then has been replayed
        self._task: asyncio.Task[None] | None = None

    @property
    def in_use(self) -> bool:
        return self.state == "in use"

    def start(self) -> None:
        """The replica need not be there."""
        self._task = asyncio.create_task(self._watch(), name="replica")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._primary.let_go()
        self._replica.let_go()

    async def read(self, query: Callable[[Source], Coroutine[Any, Any, T]]) -> T:
        """What the query gives. Raises NotAnswered, and what the query raises if it is no matter of the database's."""
        try:
            return await _within(ANSWER_S_MAX, query(self.source))
        except (positions.ViewBehind, positions.TooManyWaiters):
            raise NotAnswered from None
        except (psycopg.Error, psycopg_pool.PoolTimeout, TimeoutError) as error:
            # Not for a query that recovery cancelled (40001): the next one may do.
            if not isinstance(error, psycopg.Error) or failures.is_lost(error):
                self._move("away", str(error).strip() or "it does not answer")
            raise NotAnswered from None

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        with suppress(
            psycopg.Error, TimeoutError
        ):  # without the primary it is as it was: there is nothing else to read
            written = await self._primary.ask()
            assert written is not None
            self._seen.append((now, written))
        try:
            replayed = await self._replica.ask()
        except (psycopg.Error, TimeoutError) as error:
            self._move("away", str(error).strip() or "it does not answer")
            return
        if replayed is None:
            self._move("away", "it is no replica: it is not in recovery")
            return
        self._caught_up_at = max((at for at, written in self._seen if written <= replayed), default=self._caught_up_at)
        newest = self._seen[-1][0] if self._seen else now
        lag_s = newest - self._caught_up_at
        if lag_s > LAG_S_MAX:
            self._move("behind", f"it is {lag_s:.1f} s behind")
        elif lag_s <= BACK_S and self._seen and not self.in_use:
            with suppress(TimeoutError):
                await _within(
                    ANSWER_S_MAX, self.source.pool.check()
                )  # what it lost is replaced now, not by failing queries
                self._move("in use", "it keeps up")

    def _move(self, state: str, why: str) -> None:
        if self.state == state:
            return
        was_in_use, self.state = self.in_use, state
        if state == "in use":
            _log.info("Queries read the replica: %s", why)
        else:
            log = _log.warning if was_in_use or state == "away" else _log.info
            log("Queries read the primary, the replica is %s: %s", state, why)


class _Asked:
    """One number of one database, on a connection that is made when it is needed. Whoever does not answer is let go."""

    def __init__(self, connect: positions.Connect, statement: LiteralString) -> None:
        self._connect, self._statement = connect, statement
        self._connection: AsyncConnection[TupleRow] | None = None

    async def ask(self) -> int | None:
        """Raises psycopg.Error, TimeoutError."""
        try:
            return await _within(ANSWER_S_MAX, self._ask())
        except BaseException:
            self.let_go()
            raise

    async def _ask(self) -> int | None:
        if self._connection is None:
            self._connection = await self._connect()
        row = await (await self._connection.execute(self._statement)).fetchone()
        assert row is not None
        number: int | None = row[0]
        return number

    def let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()  # says goodbye to nobody: a server that is stopped does not listen


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Raises TimeoutError, without waiting for the work to end: psycopg would wait for the server to confirm a cancellation."""
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait((task,), timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        return task.result()
    task.cancel()
    task.add_done_callback(_passed_over)
    raise TimeoutError


def _passed_over(task: "asyncio.Task[Any]") -> None:
    """Its error is nobody's any more."""
    if not task.cancelled():
        task.exception()


@asynccontextmanager
async def running(
    pool: Pool, app: positions.Connect, projector: positions.Connect, primary: positions.Connect
) -> AsyncIterator[Replica]:
    """`pool`, `app` and `projector` lead to the replica, which need not be there. The pool is opened here."""
    await pool.open(wait=False)
    reached = positions.Reached(projector)
    source = Source(pool, rows.Rows(app, RECOVERY_S_MAX), reached)
    made = Replica(source, primary, app)
    made.start()
    try:
        yield made
    finally:
        await made.close()
        await reached.close()
        await source.rows.close()
        await pool.close()
