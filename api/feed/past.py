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
"""Events of one stretch, at most."""
EVENTS_PER_READ = 100
STRETCH_BYTES_MAX = 1024 * 1024
"""Of its messages: when a read has made it longer, it ends there. A sale of 250 lines has 40 KiB."""
STRETCHES_MAX = 40
"""Of all tenants."""
KEPT_BYTES_MAX = 16 * 1024 * 1024
"""Of the messages of all stretches. With their frames they are two or three times that."""
KEPT_S = 15.0
"""As long as clients take to come back after a restart. Longer would show rows as they no longer are."""
ERASED_S = 2.0
"""How long after an erasure rows may still be read as they were before; what was kept of them meanwhile is dropped then."""


class Stretch(NamedTuple):
    """The messages of the events after its beginning up to `end`. `size`: the bytes of their data. `is_cut`: it would have grown too
    long, and the next one begins at its end."""

    end: int
    messages: list[messages.Message]
    size: int = 0
    is_cut: bool = False


class Past:
    """Touched by the event loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._kept: OrderedDict[tuple[UUID, int], tuple[int, asyncio.Task[Stretch]]] = OrderedDict()  # oldest use first
        self._reading: set[asyncio.Task[Stretch]] = set()
        self._unsubscribe = parts.ledger.keyring.subscribe(self._forget_person)

    async def after(self, tenant_id: UUID, position: int, head: int) -> Stretch:
        """The stretch that holds the event after `position`, which may begin before it; up to `head` at least, or its own end.

        Raises ViewBehind, TooManyWaiters and what psycopg raises.
        """
        begin = position - position % STRETCH
        wanted = min(head, begin + STRETCH)
        while True:
            # One that goes away does not take it from the others.
            stretch = await asyncio.shield(self._from(tenant_id, begin, wanted))
            if not stretch.is_cut or stretch.end > position:
                return stretch
            begin = stretch.end

    async def close(self) -> None:
        """Wait for what is being read."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        await asyncio.gather(*self._reading, return_exceptions=True)
        self._kept.clear()

    def _from(self, tenant_id: UUID, begin: int, wanted: int) -> asyncio.Task[Stretch]:
        key = (tenant_id, begin)
        end, task = self._kept.get(key, (0, None))
        if task is None or _failed(task) or (end < wanted and not _result(task).is_cut):
            task = asyncio.create_task(self._read(tenant_id, begin, wanted), name="feed-past")
            self._reading.add(task)
            task.add_done_callback(self._read_is_over)
            self._kept[key] = (wanted, task)
            asyncio.get_running_loop().call_later(KEPT_S, self._forget, key, task)
        self._kept.move_to_end(key)
        self._make_room()
        return task

    async def _read(self, tenant_id: UUID, begin: int, end: int) -> Stretch:
        told: list[messages.Message] = []
        size = 0
        for after in range(begin, end, EVENTS_PER_READ):
            upto = min(end, after + EVENTS_PER_READ)
            entries = await self._parts.ledger.entries(tenant_id, after, upto - after)
            more = await messages.of(self._parts, tenant_id, entries)
            told += more
            size += sum(len(message.data) for message in more)
            if size > STRETCH_BYTES_MAX and upto < end:
                return Stretch(upto, told, size, is_cut=True)
        return Stretch(end, told, size)

    def _read_is_over(self, task: asyncio.Task[Stretch]) -> None:
        self._reading.discard(task)
        _failed(task)  # whoever wanted it may be gone: then nobody else looks at its failure
        self._make_room()

    def _make_room(self) -> None:
        """The one used last stays."""
        size = sum(_result(task).size for _, task in self._kept.values())
        while len(self._kept) > STRETCHES_MAX or (size > KEPT_BYTES_MAX and len(self._kept) > 1):
            _, (_, task) = self._kept.popitem(last=False)
            size -= _result(task).size

    def _forget(self, key: tuple[UUID, int], task: asyncio.Task[Stretch]) -> None:
        if self._kept.get(key, (0, None))[1] is task:
            del self._kept[key]

    def _forget_person(self, tenant_id: UUID, subject_id: UUID) -> None:
        """Somebody was erased: nothing of that tenant is kept, nor what is being read."""
        self._forget_tenant(tenant_id)
        asyncio.get_running_loop().call_later(ERASED_S, self._forget_tenant, tenant_id)

    def _forget_tenant(self, tenant_id: UUID) -> None:
        for key in [key for key in self._kept if key[0] == tenant_id]:
            del self._kept[key]


_NOT_YET = Stretch(0, [])


def _result(task: asyncio.Task[Stretch]) -> Stretch:
    """An empty one if there is none, or none yet."""
    return task.result() if task.done() and not _failed(task) else _NOT_YET


def _failed(task: asyncio.Task[Stretch]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
