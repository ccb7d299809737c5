"""The clients of `bench.realtime`: as little as can be, so that the server is what is measured."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

PATIENCE_S = 120.0
OPENING_AT_ONCE = 100


class Socket(asyncio.Protocol):
    """A WebSocket that hands on the payload of each frame. Frames of servers are not masked."""

    def __init__(self, path: str, heard: Callable[[bytes], None]) -> None:
        self._path = path
        self._heard = heard
        self._received = bytearray()
        self._open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("it was closed"))

    def say(self, text: str) -> None:
        data = text.encode()
        size = bytes((0x80 | len(data),)) if len(data) < 126 else bytes((0x80 | 126, *len(data).to_bytes(2, "big")))
        self.transport.write(b"\x81" + size + bytes(4) + data)  # a mask of zeros

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not self._open:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            assert received.startswith(b"HTTP/1.1 101"), bytes(received[:80])
            del received[: end + 4]
            self._open = True
            self.opened.set_result(None)
        at = 0
        while len(received) >= at + 2:
            size, begin = received[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(received[at + 2 : at + 4], "big"), at + 4
            if size > 126 or len(received) < begin + size:
                assert received[at + 1] != 127, "a frame of more than 64 KiB"
                if len(received) < begin + size:
                    break
            if received[at] == 0x81:
                self._heard(bytes(received[begin : begin + size]))
            at = begin + size
        del received[:at]


class Crowd:
    """Clients of one site that all hear the same."""

    def __init__(self, url: str, path: str) -> None:
        self._url = url
        self._path = path
        self.sockets: list[Socket] = []
        self.replies = 0
        self.heard: dict[bytes, int] = {}  # by the mark of a message
        self.frames = 0
        self.complete: dict[bytes, asyncio.Future[float]] = {}

    def _hear(self, payload: bytes) -> None:
        if b'"phx_reply"' in payload:
            self.replies += 1
            return
        self.frames += 1
        at = payload.find(b'"sku":"')
        mark = payload[at + 7 : payload.find(b'"', at + 7)]
        count = self.heard[mark] = self.heard.get(mark, 0) + 1
        if count == len(self.sockets) and mark in self.complete:
            self.complete[mark].set_result(time.perf_counter())

    def expect(self, mark: bytes) -> asyncio.Future[float]:
        """When the last one has heard it."""
        found = self.complete[mark] = asyncio.get_running_loop().create_future()
        return found

    async def open(self, count: int) -> None:
        loop, address = asyncio.get_running_loop(), urlsplit(self._url)
        for begin in range(0, count, OPENING_AT_ONCE):
            connecting = [
                loop.create_connection(
                    lambda: Socket(self._path, self._hear), address.hostname or "", address.port or 80
                )
                for _ in range(min(OPENING_AT_ONCE, count - begin))
            ]
            opened = [socket for _, socket in await asyncio.gather(*connecting)]
            self.sockets += opened
            await asyncio.gather(*(each.opened for each in opened))

    async def join(self, topic: str, payload: dict[str, str]) -> None:
        """Returns when everybody has a reply."""
        message = json.dumps(["1", "1", topic, "phx_join", payload])
        for socket in self.sockets:
            socket.say(message)
        async with asyncio.timeout(PATIENCE_S):
            while self.replies < len(self.sockets):  # noqa: ASYNC110  looked at every millisecond
                await asyncio.sleep(0.001)

    def close(self) -> None:
        for socket in self.sockets:
            socket.transport.abort()


@contextlib.asynccontextmanager
async def gathered(url: str, path: str) -> AsyncIterator[Crowd]:
    """Nobody yet. Gone at the end, and half a second for the server to notice."""
    made = Crowd(url, path)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0.5)
