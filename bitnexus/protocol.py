"""HTTP/1.1 on a connection: uvicorn's, with what it leaves open closed. Bytes of headers are bounded, and who sends slowly, or does not
read the answer, is cut off.

No timer for each request, which costs more than all the rest: a note of when it began, and one look a second at all connections.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES_MAX = 32 * 1024
"""Request line and headers: a token of ours has 600 bytes, cookies of a whole domain at most 8 KiB."""
REQUEST_S_MAX = 20.0
"""From a request's first byte to its last: a megabyte at 400 kbit/s. And for the first byte on a new connection; after an answer
uvicorn waits 5 s."""
UNREAD_S_MAX = 60.0
"""How long an answer may wait for its reader. A feed says something every 15 s, and what it says fits into the buffers for long."""
LOOK_S = 1.0
JOINED_BYTES_MAX = 64 * 1024
"""A longer body is not copied to stand behind its head."""

REQUEST_BYTES_MAX = 8 * 1024 * 1024
"""Of the rest: a megabyte of body, in small chunks. What lies after it would be kept until its end comes, or be read for nothing."""


def _answer(status: bytes, text: bytes) -> bytes:
    lines = (
        b"HTTP/1.1 " + status,
        b"content-type: text/plain; charset=utf-8",
        b"connection: close",
        b"content-length: %d" % len(text),
    )
    return b"\r\n".join((*lines, b"", text))


_TOO_LARGE = _answer(b"431 Request Header Fields Too Large", b"The headers have more than 32 KiB. Send less.")
_TIMEOUT = _answer(b"408 Request Timeout", b"The request took longer than 20 s to come. Send it faster.")


class _InOnePiece:
    """The transport of one answer. Its head waits for the body if that has a length, which then follows at once: the two are one
    write and, mostly, one packet. A head without, as a stream has one, goes out by itself. Of an answer that failed in between
    nothing is seen but the connection's end.
    """

    __slots__ = ("_before", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._transport = cycle.transport
        self._before: RequestResponseCycle | None = cycle  # until the head is written: then nothing leads back to it
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._before is not None and self._before.response_started:  # else it is a 100 Continue
            body_bytes, self._before = self._before.expected_content_length, None
            if 0 < body_bytes <= JOINED_BYTES_MAX:
                self._head = data
                return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()


class Http(HttpToolsProtocol):
    """One a connection."""

    _since: float | None = None  # when the request began that is not here yet, or the connection
    _bytes = 0  # of the headers, if they are not complete, or of the rest
    _in_head = True
    _is_too_large = False
    _unread_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        self._since = self.loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._since is None:
            self._since = self.loop.time()
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            if self._in_head:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
            elif self._bytes > REQUEST_BYTES_MAX:
                self.transport.close()

    def on_message_begin(self) -> None:
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Raises ValueError, which ends the connection."""
        self._in_head = False
        if (
            self._bytes > HEAD_BYTES_MAX
            and sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES_MAX
        ):
            self._is_too_large = True
            raise ValueError("the headers are too long")
        self._bytes = 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["method"] != "HEAD":  # whose body never comes
            self.cycle.transport = _InOnePiece(self.cycle)  # type: ignore[assignment]  # all that a cycle uses of it

    def on_message_complete(self) -> None:
        self._since, self._in_head, self._bytes = None, True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    def look(self, now: float) -> None:
        """Cuts off who is too slow. Called once a second."""
        since = self._since
        if self.transport.is_closing():
            if self._unread_since is None:
                self._unread_since = now
            elif now - self._unread_since > UNREAD_S_MAX:
                self.transport.abort()
        elif self._unread_since is not None and now - self._unread_since > UNREAD_S_MAX:
            self.transport.abort()
        elif since is not None and now - since > REQUEST_S_MAX and not self.flow.read_paused:
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(_TIMEOUT)
            self.transport.close()


@asynccontextmanager
async def watching(connections: Iterable[Any]) -> AsyncIterator[None]:
    """Looks at them while it lasts. `connections` changes meanwhile."""

    async def look() -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            now = loop.time()
            for connection in [each for each in connections if isinstance(each, Http)]:
                connection.look(now)

    task = asyncio.create_task(look(), name="slow clients")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
