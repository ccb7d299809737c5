"""What has been told already, for those who come back.

Read in stretches of fixed places, each kept for a while with its frames: a thousand clients that come back at once have the
past read once, however different the places from which they resume.
"""

import asyncio
from collections import OrderedDict
from typing import NamedTuple
from uuid import UUID

from api.feed import messages
from api.parts import Parts

STRETCH = 500
"""Events of one read."""
STRETCHES_MAX = 40
"""Of all tenants. About 1 MiB each, with its frames."""
KEPT_S = 15.0
"""As long as clients take to come back after a restart. Longer would show rows as they no longer are."""


class Stretch(NamedTuple):
    """The messages of the events from a multiple of STRETCH to `end`."""

    end: int
    messages: list[messages.Message]


class Past:
    """Touched by the event loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._kept: OrderedDict[tuple[UUID, int], tuple[int, asyncio.Task[Stretch]]] = OrderedDict()  # oldest use first

    async def after(self, tenant_id: UUID, position: int, head: int) -> Stretch:
        """The stretch that holds the event after `position`, which may begin before it; up to `head` at least, or its own end.

        Raises ViewBehind, TooManyWaiters and what psycopg raises.
        """
        begin = position - position % STRETCH
        wanted = min(head, begin + STRETCH)
        key = (tenant_id, begin)
        end, task = self._kept.get(key, (0, None))
        if task is None or end < wanted or _failed(task):
            task = asyncio.create_task(self._read(tenant_id, begin, wanted), name="feed-past")
            task.add_done_callback(_failed)  # whoever wanted it may be gone: then nobody else looks at its failure
            self._kept[key] = (wanted, task)
            asyncio.get_running_loop().call_later(KEPT_S, self._forget, key, task)
            if len(self._kept) > STRETCHES_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return await asyncio.shield(task)  # one that goes away does not take it from the others

    async def close(self) -> None:
        """Wait for what is being read."""
        await asyncio.gather(*(task for _, task in self._kept.values()), return_exceptions=True)
        self._kept.clear()

    async def _read(self, tenant_id: UUID, begin: int, end: int) -> Stretch:
        entries = await self._parts.ledger.entries(tenant_id, begin, end - begin)
        return Stretch(end, await messages.of(self._parts, tenant_id, entries))

    def _forget(self, key: tuple[UUID, int], task: asyncio.Task[Stretch]) -> None:
        if self._kept.get(key, (0, None))[1] is task:
            del self._kept[key]


def _failed(task: asyncio.Task[Stretch]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
