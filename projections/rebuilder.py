"""Does the rebuilds that are wanted, one at a time, beside everything else that the process does."""

import asyncio
import logging
from collections.abc import Sequence
from uuid import UUID

import psycopg

from projections import comparison, cross_tenant, failures, filling, positions, stream
from projections.rebuild import Job
from projections.view import View

POLL_S = 1.0
BATCH_EVENTS = 100
"""No request waits longer than for these: 1 ms of the event loop. Fewer would cost more each: 18 µs as it is, 27 µs for 50."""
REST = 2.0
"""Times as long as a batch took: a rebuild takes a third of a core. Whoever wants it faster runs
`bitnexus projections rebuild --share 100`, which is a process of its own."""
RETRY_S = 5.0

_log = logging.getLogger(__name__)


class Rebuilder:
    """Lives from `start` to `close`; `process_id` is that of a process that beats."""

    def __init__(
        self, process_id: UUID, views: Sequence[View], connect: positions.Connect, source: stream.Source
    ) -> None:
        self._process_id = process_id
        self._views = {view.name: view for view in views}
        self._connect = connect
        self._source = source
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="projections-rebuilds")

    async def close(self) -> None:
        """The batch under way is undone; whoever takes the rebuild over goes on after the one before."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    while True:
                        views = list(self._views.values())
                        for job in await cross_tenant.claim(connection, self._process_id, views, 1):
                            await self._do(job)
                        await asyncio.sleep(POLL_S)
            except psycopg.Error as error:
                _log.warning("The rebuilds that are wanted could not be read: %s", str(error).strip())
                await asyncio.sleep(RETRY_S)

    async def _do(self, job: Job) -> None:
        """The supervised edge: what fails is logged; its token stays this process's, so it is tried again from there."""
        view = self._views[job.view]
        while True:
            try:
                compared = await filling.work(
                    *(self._connect, self._source, view, job), batch_events=BATCH_EVENTS, rest=REST
                )
            except filling.Lost:
                return
            except comparison.NotAtOnePosition as error:
                _log.error("The rebuild of %s of tenant %s ended: %s", job.view, job.tenant_id, error)
                return
            except Exception as error:  # noqa: BLE001  the edge of a supervised task
                if failures.is_lost(error):
                    text = "The rebuild of %s of tenant %s lost the database, trying again: %s"
                    _log.warning(text, job.view, job.tenant_id, str(error).strip())
                else:
                    _log.exception("The rebuild of %s of tenant %s failed", job.view, job.tenant_id, exc_info=error)
                await asyncio.sleep(RETRY_S)
                continue
            if compared is not None:
                _log.info(
                    "The view %s of tenant %s is rebuilt: generation %s, %s",
                    *(job.view, job.tenant_id, compared.after, "equal" if compared.equal else "it differs"),
                )
            return
