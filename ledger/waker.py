"""Tells readers that a tenant's stream moved: those of this process at once, other processes by one coalesced NOTIFY.

A wake is a hint and may be lost or repeated; who must not miss an event polls the heads as well. The NOTIFY is sent after
the commit, on a connection of its own (in the append's transaction it would serialise all commits of the database).
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

CHANNEL = "bitnexus_moved"
TENANTS_PER_NOTIFY_MAX = 100
"""A payload may have 8,000 bytes: 100 entries of a UUID and a position are under 6,500."""
GATHER_S = 0.005
"""Between two NOTIFYs: under load one says what many flushes moved, and a lone one goes out at once."""
GATHER_BUSY_S, BUSY_EVENTS = 0.025, 20
"""After one by which a tenant moved so far: a NOTIFY costs this process some 200 µs and the others a look, and views rest so long."""
RECONNECT_S = 1.0
NEWS = "bitnexus_news"
NEWS_BYTES_MAX = 7_500
"""Of one text. A payload may have 8,000."""
NEWS_WAITING_MAX = 1_000
"""While there is no connection: then the oldest are lost, as any may be."""
NEWS_AT_ONCE = 50
"""Then a wake that came meanwhile is sent: some 10 ms."""

_log = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[AsyncConnection[TupleRow]]]
Callback = Callable[[UUID, int], None]
Work = Callable[[AsyncConnection[TupleRow]], Coroutine[None, None, None]]


class Waker:
    """Touched by the event loop's thread only. Without `connect` it wakes this process alone."""

    def __init__(self, connect: Connect | None = None) -> None:
        self._connect = connect
        self._origin = os.urandom(8).hex()  # its own notifications are not heard twice
        self._callbacks: list[Callback] = []
        self._unsent: dict[UUID, int] = {}
        self._hearers: list[Callable[[str], None]] = []
        self._unsaid: deque[str] = deque(maxlen=NEWS_WAITING_MAX)
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """`callback(tenant_id, position)` must be quick and must not raise. Returns what ends the subscription."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def moved(self, tenant_id: UUID, position: int) -> None:
        """The tenant's stream reaches `position` now. Called after the commit."""
        self._tell(tenant_id, position)
        if self._connect is not None:
            self._unsent[tenant_id] = position
            self._wake.set()

    def hear(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """`callback` gets what other processes `say`; it must be quick and must not raise. Returns what ends that."""
        self._hearers.append(callback)
        return lambda: self._hearers.remove(callback)

    def say(self, text: str) -> None:
        """To all other processes, in order. It may be lost: whoever relies on it finds out by itself.

        Raises ValueError past NEWS_BYTES_MAX.
        """
        if len(text.encode()) > NEWS_BYTES_MAX:
            raise ValueError(f"news of {len(text)} characters is longer than {NEWS_BYTES_MAX} bytes. Say it in parts.")
        if self._connect is not None:
            self._unsaid.append(text)
            self._wake.set()

    def _tell(self, tenant_id: UUID, position: int) -> None:
        for callback in tuple(self._callbacks):
            callback(tenant_id, position)

    async def start(self) -> None:
        """Begins to send and to listen; both survive a lost connection. Raises psycopg.OperationalError if there is none yet."""
        if self._connect is not None:
            for work in (self._send, self._listen):
                connection = await self._connect()
                self._tasks.append(asyncio.create_task(self._keep(work, connection), name=f"waker-{work.__name__}"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, work: Work, connection: AsyncConnection[TupleRow]) -> None:
        assert self._connect is not None
        while True:
            try:
                async with connection:
                    await work(connection)
            except psycopg.OperationalError as error:
                _log.warning("The waker lost its connection and connects again: %s", str(error).strip())
            await asyncio.sleep(RECONNECT_S)
            with suppress(psycopg.OperationalError):  # tried again: a closed connection ends `work` at once
                connection = await self._connect()

    async def _send(self, connection: AsyncConnection[TupleRow]) -> None:
        before: dict[UUID, int] = {}  # what was said last
        while True:
            await self._wake.wait()
            self._wake.clear()
            said: dict[UUID, int] = {}
            for _ in range(0, len(self._unsent), TENANTS_PER_NOTIFY_MAX):  # what comes meanwhile is for the next time
                some = [self._unsent.popitem() for _ in range(min(len(self._unsent), TENANTS_PER_NOTIFY_MAX))]
                payload = msgspec.json.encode([self._origin, some]).decode()
                await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
                said.update(some)
            for _ in range(min(len(self._unsaid), NEWS_AT_ONCE)):
                await connection.execute("SELECT pg_notify(%s, %s)", (NEWS, self._origin + self._unsaid.popleft()))
            if self._unsaid:
                self._wake.set()
            is_busy = any(
                position - before.get(tenant_id, position) >= BUSY_EVENTS for tenant_id, position in said.items()
            )
            before = said
            await asyncio.sleep(GATHER_BUSY_S if is_busy else GATHER_S)

    async def _listen(self, connection: AsyncConnection[TupleRow]) -> None:
        await connection.execute(f"LISTEN {NEWS}")
        await connection.execute(f"LISTEN {CHANNEL}")
        async for notification in connection.notifies():
            if notification.channel == NEWS:
                self._heard(notification.payload)
                continue
            try:
                origin, moved = _PAYLOAD.decode(notification.payload)
            except msgspec.DecodeError:
                _log.warning("A notification on %s is none of ours: %.100r", CHANNEL, notification.payload)
                continue
            for tenant_id, position in moved if origin != self._origin else ():
                self._tell(tenant_id, position)

    def _heard(self, payload: str) -> None:
        origin, text = payload[: len(self._origin)], payload[len(self._origin) :]
        for callback in tuple(self._hearers) if origin != self._origin else ():
            callback(text)


_PAYLOAD = msgspec.json.Decoder(tuple[str, list[tuple[UUID, int]]])
