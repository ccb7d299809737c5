"""How far the views are that are read, as far as this process knows, and waiting for them.

What a process knows is fed by its own runner after each commit. Views that another process keeps up are looked up in the
database, all awaited ones in one statement, and only while somebody waits.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from projections import cross_tenant

WAIT_S_MAX = 2.0
"""How long a query waits for its views before it is told to come back."""
WAITERS_MAX = 1_000
"""Requests that wait at one time: more of them would only hold memory and sockets, as the views are too slow for them."""
POLL_S = 0.01
"""While somebody waits. A look costs 70 µs of this process, so less than a hundredth of a core; three times as long made a view
that another process keeps up readable after 21 ms in the median instead of 12."""
FIRST_LOOK_S = 0.004
"""After somebody began to wait. A view that this process keeps up is there by then and needs no look; of one that another process
keeps up, a look at once would find nothing."""
RECONNECT_S = 1.0
KNOWN_MAX = 100_000
"""Pairs of tenant and view of which the position is remembered: about 20 MiB."""

Connection = AsyncConnection[TupleRow]
Connect = Callable[[], Awaitable[Connection]]
Callback = Callable[[UUID, str, int], None]

_log = logging.getLogger(__name__)


class ViewBehind(Exception):
    """The view did not reach the position in time. Nothing is wrong with the request: it may be sent again."""

    def __init__(self, view: str, position: int, wanted: int) -> None:
        super().__init__(f"The view {view} is at {position} and {wanted} was asked for. Try again in a second.")
        self.view, self.position, self.wanted = view, position, wanted


class TooManyWaiters(Exception):
    """WAITERS_MAX requests wait for views already."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting for views already. Try again in a second.")
        self.waiting = waiting


class Reached:
    """What this process knows of the views' positions, and who waits for them. Touched by the event loop's thread only.

    Lives from the first `wait` to `close`; `connect` gives a connection of the projector's role in autocommit.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._known: OrderedDict[tuple[UUID, str], int] = OrderedDict()  # least recently moved first
        self._waiters: dict[tuple[UUID, str], list[tuple[int, asyncio.Future[None]]]] = {}
        self._waiting = 0
        self._somebody_waits = asyncio.Event()
        self._callbacks: list[Callback] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Waiters at this moment."""
        return self._waiting

    def at(self, tenant_id: UUID, view: str) -> int:
        """The position as far as this process knows; the view may be further. 0 if nothing is known."""
        return self._known.get((tenant_id, view), 0)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """`callback(tenant_id, view, position)` must be quick and must not raise. Returns what ends the subscription."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def moved(self, tenant_id: UUID, view: str, position: int) -> None:
        """The view is at `position` now. Called after the commit; an older position than the known one changes nothing."""
        key = (tenant_id, view)
        if position <= self._known.get(key, 0):
            return
        self._known[key] = position
        self._known.move_to_end(key)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        for wanted, waiter in self._waiters.get(key, ()):
            if wanted <= position and not waiter.done():
                waiter.set_result(None)
        for callback in tuple(self._callbacks):
            callback(tenant_id, view, position)

    def check(self, tenant_id: UUID, views: Sequence[str], position: int, wanted: int) -> None:
        """`position` is where a query found the views that were at `wanted` before.

        Raises ViewBehind if they are not: the database came back from an earlier moment, and what was known is forgotten.
        """
        if position < wanted:
            for view in views:
                self._known.pop((tenant_id, view), None)
            raise ViewBehind(views[0], position, wanted)

    def forget(self) -> None:
        """The database may have come back from another moment."""
        self._known.clear()

    async def wait(self, tenant_id: UUID, views: Sequence[str], position: int, timeout_s: float = WAIT_S_MAX) -> None:
        """Come back when all of these views have reached the position.

        Raises TooManyWaiters at once, ViewBehind after the timeout.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        for view in views:
            if self.at(tenant_id, view) >= position:
                continue
            if self._waiting >= WAITERS_MAX:
                raise TooManyWaiters(self._waiting)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._wait_for((tenant_id, view), position)
            except TimeoutError:
                raise ViewBehind(view, self.at(tenant_id, view), position) from None

    async def close(self) -> None:
        """Stop looking positions up. Who still waits runs into its timeout."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _wait_for(self, key: tuple[UUID, str], position: int) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(key, [])
        waiters.append((position, waiter))
        self._waiting += 1
        self._somebody_waits.set()
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="views-poll")
        try:
            await waiter
        finally:
            self._waiting -= 1
            waiters.remove((position, waiter))
            if not waiters:
                del self._waiters[key]

    async def _poll(self) -> None:
        while True:
            await self._somebody_waits.wait()
            try:
                async with await self._connect() as connection:
                    await self._look_up(connection)
            except psycopg.Error as error:
                _log.warning("The positions of views could not be read, trying again: %s", str(error).strip())
                await asyncio.sleep(RECONNECT_S)

    async def _look_up(self, connection: Connection) -> None:
        while True:
            if not self._waiters:
                self._somebody_waits.clear()
                await self._somebody_waits.wait()
                await asyncio.sleep(FIRST_LOOK_S)
                continue
            for tenant_id, view, position in await cross_tenant.positions(connection, list(self._waiters)):
                self.moved(tenant_id, view, position)
            await asyncio.sleep(POLL_S)
