"""Keeps the views up with the streams: a task a view, which share what they read, and this process's share of the leases.

Wakes say at once which tenant moved; a poll of the heads, every second, finds what no wake told.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

import psycopg

from ledger import ids, waker
from projections import cross_tenant, leases, positions, rebuilder, stream
from projections.view import View
from projections.worker import ViewState, Worker

POLL_S = 1.0

_log = logging.getLogger(__name__)


class Runner:
    """Lives from `start` to `close`. All of it is touched by the event loop's thread only.

    `connect` gives connections of the projector's role in autocommit, of which the server ends those that sit idle in a
    transaction: a paused process must not hold what others wait for.
    """

    def __init__(
        self,
        views: Sequence[View],
        connect: positions.Connect,
        source: stream.Source,
        wakes: waker.Waker,
        reached: positions.Reached,
        batch_events: int = stream.EVENTS_MAX,
        *,
        rebuilds: bool = True,
        process_id: UUID | None = None,
    ) -> None:
        """`rebuilds`: it does those that are wanted, too. `process_id`: as what it holds leases; None: a new one."""
        self._connect = connect
        self._wakes = wakes
        self._rebuilds = rebuilds
        self._views = list(views)
        self._leases = leases.Leases(process_id or ids.new_id(), views)
        topics = frozenset[str]().union(*(view.wanted for view in views))
        self._stream = stream.Stream(source, connect, topics)
        self._workers = {
            view.name: Worker(view, connect, self._stream, reached, self._leases, batch_events) for view in views
        }
        self._rebuilder = rebuilder.Rebuilder(self._leases.process_id, views, connect, source)
        self._unsubscribe: Callable[[], None] = lambda: None
        self._tasks: list[asyncio.Task[None]] = []
        self._look_now = asyncio.Event()

    async def start(self) -> None:
        """Returns at once; the views catch up by and by."""
        for worker in self._workers.values():
            worker.start()
        if self._rebuilds:
            self._rebuilder.start()
        self._unsubscribe = self._wakes.subscribe(self._moved)
        self._tasks = [
            asyncio.create_task(self._beat(), name="projections-leases"),
            asyncio.create_task(self._poll(), name="projections-poll"),
        ]

    async def close(self) -> None:
        """Finishes the batches in flight, then leaves; what takes longer than CLOSE_S_MAX is rolled back. Closing again does nothing."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        await asyncio.gather(*(worker.close() for worker in self._workers.values()), self._rebuilder.close())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stream.close()
        if self._tasks:
            self._tasks = []
            with suppress(psycopg.Error):  # then the leases run out by themselves
                async with await self._connect() as connection:
                    await self._leases.leave(connection)

    def state(self) -> list[ViewState]:
        """Of each view, in the order in which they were given."""
        return [worker.state() for worker in self._workers.values()]

    @property
    def leases(self) -> int:
        """How many this process holds, of all views."""
        return self._leases.held()

    def _moved(self, tenant_id: UUID, position: int) -> None:
        for worker in self._workers.values():
            worker.offer(tenant_id, position)

    async def _beat(self) -> None:
        """Alone on its connection: a beat that waits for something else would cost the leases."""
        while True:
            try:
                async with await self._connect() as connection:
                    while True:
                        if await self._leases.beat(connection):
                            self._look_now.set()
                        await asyncio.sleep(leases.BEAT_S)
            except psycopg.Error as error:
                _log.warning("The leases could not be renewed, trying again: %s", str(error).strip())
                await asyncio.sleep(leases.BEAT_S)

    async def _poll(self) -> None:
        while True:
            await self._look_now.wait()
            try:
                async with await self._connect() as connection:
                    while True:
                        self._look_now.clear()
                        behind = await cross_tenant.behind(connection, self._leases.process_id, self._views)
                        for view, tenant_id, head in behind:
                            self._workers[view].offer(tenant_id, head, found=True)
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._look_now.wait(), POLL_S)
            except psycopg.Error as error:
                _log.warning("The heads could not be polled, trying again: %s", str(error).strip())
                await asyncio.sleep(POLL_S)
                self._look_now.set()
