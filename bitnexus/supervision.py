"""Several worker processes on one listener: started, replaced when they die, stopped together.

The parent holds what must outlive a worker: the listener, and the use of the embedded database. A worker that is killed takes
down its own requests only; its accepted commands are the database's, or will be sent again by whoever was not answered. What
views it kept up is another's within a beat: the parent, which alone knows at once that it is dead, lets its leases go.
"""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec
import psycopg

from bitnexus import counting, database, stopping
from bitnexus.installation import Installation
from bitnexus.orders import READY, Orders, encoded
from bitnexus.settings import Settings
from ledger import ids
from projections import leases

RESTART_S_MIN, RESTART_S_MAX = 0.1, 10.0
LIVED_S = 30.0
"""A worker that lived as long may be replaced at once again."""
RELEASE_S_MAX = 2.0
"""A database that takes longer is away, and the leases run out by themselves."""

_log = logging.getLogger(__name__)


class WorkersFailed(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(
            f"The worker processes do not start: the first one ended with code {code}. The log above says why; "
            "correct it and start again, or try with --workers 1."
        )


async def supervise(
    base: Installation,
    settings: Settings,
    listener: socket.socket,
    count: int,
    ready: Callable[[], None],
) -> None:
    """Until SIGTERM or SIGINT, and until every worker has ended. `ready`: once all of them answer requests.

    Raises WorkersFailed if a worker ends before any was ready, NowhereToCount.
    """
    with counting.folder(count) as folder:
        await _supervise(_Crew(_orders(settings, base, folder), listener, count, ready), count)


async def _supervise(crew: "_Crew", count: int) -> None:
    stopping.on_signal(crew.stopping.set)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(crew.keep_one(number))
    except ExceptionGroup as failed:  # `except*` puts what is raised in it into a group again in Debian's Python 3.11.2
        first = failed.exceptions[0]
        if not isinstance(first, WorkersFailed):
            raise
        raise first from None
    finally:
        stopping.ignore_signals()


def _orders(settings: Settings, base: Installation, folder: Path) -> Orders:
    """The first worker's. Without the owner's URL, which a worker has no use for."""
    if not settings.embedded:
        settings = dataclasses.replace(settings, database_url=None, database_app_url=base.app_url)
    return Orders(settings, base.app_url, counting.Slot(folder, 0), ids.new_id())


class _Crew:
    """Touched by the event loop's thread only."""

    def __init__(self, orders: Orders, listener: socket.socket, count: int, ready: Callable[[], None]) -> None:
        self.stopping = asyncio.Event()
        self._orders = orders
        self._listener = listener
        self._count = count
        self._ready = ready
        self._were_ready: set[int] = set()  # numbers under which a worker has been ready at some time

    async def keep_one(self, number: int) -> None:
        """One worker after another, until the stop."""
        pause_s = RESTART_S_MIN
        while not self.stopping.is_set():
            begun = time.monotonic()
            code = await self._run_one(number)
            if self.stopping.is_set():
                break
            if not self._were_ready:
                self.stopping.set()
                raise WorkersFailed(code)
            pause_s = RESTART_S_MIN if time.monotonic() - begun > LIVED_S else min(pause_s * 2, RESTART_S_MAX)
            _log.error("A worker process ended with code %s; it is replaced in %.1f s", code, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause_s)

    async def _run_one(self, number: int) -> int:
        """The exit code of a worker; negative: the signal that killed it."""
        slot, process_id = counting.Slot(self._orders.slot.folder, number), ids.new_id()
        orders = msgspec.structs.replace(self._orders, slot=slot, process_id=process_id)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                worker = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # no module of the working directory
                    "-m",
                    "bitnexus.worker",
                    str(self._listener.fileno()),
                    str(theirs.fileno()),
                    pass_fds=(self._listener.fileno(), theirs.fileno()),
                    stdin=DEVNULL,
                    start_new_session=True,  # a terminal's Ctrl-C comes to us, and we stop it
                )
            ours.setblocking(False)
            greeting = asyncio.create_task(self._greet(ours, worker.pid, orders))
            try:
                return await self._watch(worker)
            finally:
                greeting.cancel()
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
                slot.forget_gauges()
                if worker.returncode != 0:
                    await self._release(process_id)

    async def _release(self, process_id: UUID) -> None:
        """The worker is dead: nobody has to wait for the end of its leases. A last beat that the database was still at when
        it died may take them once more, and then they do run out by themselves."""
        try:
            async with (
                asyncio.timeout(RELEASE_S_MAX),
                await database.connect(self._orders.app_url, "projector") as connection,
            ):
                await leases.release(connection, process_id)
        except (psycopg.Error, TimeoutError) as error:
            _log.warning("The leases of a dead worker run out by themselves, in %s s: %s", leases.LEASE_S, error)

    async def _greet(self, control: socket.socket, pid: int, orders: Orders) -> None:
        """Gives the worker its orders and waits until it is ready."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # it died: its exit code tells
            await loop.sock_sendall(control, encoded(orders))
            if await loop.sock_recv(control, len(READY)) != READY:
                return
            _log.info("The worker process %s is ready", pid)
            if orders.slot.number not in self._were_ready:
                self._were_ready.add(orders.slot.number)
                if len(self._were_ready) == self._count:
                    self._ready()

    async def _watch(self, worker: Process) -> int:
        ended = asyncio.create_task(worker.wait())
        stopped = asyncio.create_task(self.stopping.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGTERM)
            await asyncio.wait((ended,), timeout=stopping.WORKER_S_MAX)
        if not ended.done():
            _log.error("The worker process %s did not stop in %s s and is killed", worker.pid, stopping.WORKER_S_MAX)
            worker.kill()
        return await ended
