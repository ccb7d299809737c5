"""What no wake told: one look a second at the heads of all tenants that have a tail here, however many they are."""

import asyncio
import logging
from collections.abc import Callable, Iterable

import psycopg

from api.feed.tail import Tail
from api.parts import Parts
from projections import cross_tenant

LOOK_S = 1.0

_log = logging.getLogger(__name__)


class Heads:
    """Looks while there are tails. Touched by the event loop's thread only."""

    def __init__(self, parts: Parts, tails: Callable[[], Iterable[Tail]]) -> None:
        self._parts = parts
        self._tails = tails
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """There is a tail: begin, unless it has begun."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="feed-heads")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while tails := {tail.tenant_id: tail for tail in self._tails()}:
            try:
                async with self._parts.projector.connection() as connection:
                    told = [(tenant_id, tail.position) for tenant_id, tail in tails.items()]
                    for tenant_id in await cross_tenant.moved(connection, told):
                        tails[tenant_id].wake.set()
            except psycopg.Error as error:
                _log.warning("How far streams are could not be read, trying again: %s", str(error).strip())
            await asyncio.sleep(LOOK_S)
