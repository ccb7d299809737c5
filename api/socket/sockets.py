"""All clients of this process: looked after every second, closed when it stops."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from prometheus_client import Gauge

from api.parts import Parts
from api.socket.protocol.connection import Code

CLIENTS_MAX = 20_000
"""About 60 KiB each."""
LOOK_S = 1.0
"""Between two looks at who was silent too long or has an expired token: 20,000 take some milliseconds."""


class Client(Protocol):
    """Of any protocol."""

    @property
    def session_id(self) -> UUID | None:
        """Whose it is; None: that is not known yet."""

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
        self._sessions: dict[Client, UUID] = {}
        self._per_session: Counter[UUID] = Counter()
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def full(self) -> bool:
        """Nobody is taken in any more."""
        return self._parts.stopping.is_set() or len(self._clients) >= CLIENTS_MAX

    def is_full_for(self, session_id: UUID) -> bool:
        """The session has as many as one may have."""
        return self._per_session[session_id] >= self._parts.sockets_per_session

    def add(self, client: Client, kind: str) -> None:
        """`kind` is what it is counted as."""
        counted = self._clients[client] = self._parts.http.subscribers(kind)
        counted.inc()
        self.learn(client)
        if self._watch is None:
            self._watch = asyncio.create_task(self._look(), name="sockets-look")

    def learn(self, client: Client) -> None:
        """It is known whose it is. Again changes nothing."""
        session_id = client.session_id
        if session_id is not None and client in self._clients and client not in self._sessions:
            self._sessions[client] = session_id
            self._per_session[session_id] += 1

    def remove(self, client: Client) -> None:
        """It is gone: its memberships end."""
        client.lost()
        counted = self._clients.pop(client, None)
        if counted is not None:
            counted.dec()
        session_id = self._sessions.pop(client, None)
        if session_id is not None:
            self._per_session[session_id] -= 1
            if not self._per_session[session_id]:
                del self._per_session[session_id]

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
