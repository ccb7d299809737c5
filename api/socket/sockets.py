"""All clients of this process: looked after every second, closed when it stops."""

import asyncio
import time
from contextlib import suppress
from typing import Protocol

from prometheus_client import Gauge

from api.parts import Parts
from api.socket.protocol.connection import Code

CLIENTS_MAX = 20_000
"""About 60 KiB each."""
LOOK_S = 1.0
"""Between two looks at who was silent too long or has an expired token: 20,000 take some milliseconds."""


class Client(Protocol):
    """Of either protocol."""

    def tick(self, now_s: float) -> None:
        """Called every LOOK_S, with the time since 1970."""

    def close(self, code: Code, reason: str) -> None:
        """By us."""

    def lost(self) -> None:
        """The connection is gone. Again changes nothing."""


class Sockets:
    """One an application. Touched by the event loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clients: dict[Client, Gauge] = {}  # and where it is counted
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def full(self) -> bool:
        """Nobody is taken in any more."""
        return self._parts.stopping.is_set() or len(self._clients) >= CLIENTS_MAX

    def add(self, client: Client, kind: str) -> None:
        """`kind` is what it is counted as."""
        counted = self._clients[client] = self._parts.http.subscribers(kind)
        counted.inc()
        if self._watch is None:
            self._watch = asyncio.create_task(self._look(), name="sockets-look")

    def remove(self, client: Client) -> None:
        """It is gone: its memberships end."""
        client.lost()
        counted = self._clients.pop(client, None)
        if counted is not None:
            counted.dec()

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._drain()

    async def _look(self) -> None:
        while not self._parts.stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._parts.stopping.wait()
            now_s = time.time()
            for client in tuple(self._clients):
                client.tick(now_s)
        self._drain()

    def _drain(self) -> None:
        for client in tuple(self._clients):
            client.close(Code.RESTART, "this process stops")
