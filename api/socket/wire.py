"""The server's side of a WebSocket: uvicorn's, which the application may also write to directly.

A frame that a server sends is not masked, so that one message to a thousand clients is framed once and the same bytes are
written to each: a tenth of what a `websocket.send` each would cost, and nobody is waited for. uvicorn is told to use this class
(`ws=wire.Wire`); the application finds it in the scope.
"""

import asyncio
import socket
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from api.socket.protocol import frames, pace

EXTENSION = "bitnexus.wire"
WAITING_BYTES_MAX = 1024 * 1024
WAITING_FRAMES_MAX = 2_000
"""A client that has not read more than this is let go. A frame of few bytes costs memory as well."""
DRAINED_BYTES = 16 * 1024
"""A transport's low water mark: who has no more waiting is read from as fast as it is written to. Over a slow line nothing
waiting may never be seen."""
FRAGMENTS_MAX = 1_000
"""Of one message. An empty one adds nothing to its bytes, which are bounded elsewhere, and still is kept."""
CLOSE_S = 5.0
"""For the client's answer to our close. Who does not read will not answer."""


def framed(data: bytes, *, is_text: bool = True) -> bytes:
    """The data as one unmasked frame (RFC 6455, 5.2)."""
    first = 0x81 if is_text else 0x82
    size = len(data)
    if size < 126:
        return bytes((first, size)) + data
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + data
    return bytes((first, 127)) + size.to_bytes(8, "big") + data


class Wire(WebSocketsSansIOProtocol):
    """One connection. Touched by the event loop's thread only."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._heard_at = self.loop.time()
        self._frames = 0  # written since so little was waiting that it counts as nothing
        self._pace: pace.Pace | None = None  # of what the application never sees: pings, pongs and fragments

    @property
    def silent_s(self) -> float:
        """How long nothing has come from the client; a ping counts as well."""
        return self.loop.time() - self._heard_at

    @property
    def gone(self) -> bool:
        """Closed by either side, or lost."""
        return self.close_sent or self.transport.is_closing()

    @property
    def waits(self) -> bool:
        """Whether anything that was written has not left this process."""
        return not self.gone and self.transport.get_write_buffer_size() > 0

    def write(self, frame: bytes) -> bool:
        """A whole frame. False: the client is too slow, and it was not written."""
        if self.gone:
            return True
        transport = self.transport
        waiting = transport.get_write_buffer_size()
        if waiting <= DRAINED_BYTES:
            self._frames = 0
        if (waiting and waiting + len(frame) > WAITING_BYTES_MAX) or self._frames >= WAITING_FRAMES_MAX:
            return False
        self._frames += 1
        transport.write(frame)
        return True

    def tell(self, frame: frames.Frame) -> bool:
        """As `write`."""
        return self.write(framed(frame.data, is_text=frame.is_text))

    def hang_up(self, code: int, reason: str) -> None:
        """Close it. The application is told of a disconnect, at once."""
        if self.gone or self.conn.state is not State.OPEN:
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(CLOSE_S, self.transport.abort)

    def forget_handshake(self) -> None:
        """It is done, and a token was in it. Kept, it would be a sixth of an idle socket's memory."""
        self.scope["query_string"], self.scope["raw_path"] = b"", b""
        self.scope["headers"] = []
        del self.request, self.response

    async def drained(self) -> None:
        """Come back unless more than the transport's high water mark (64 KiB) is waiting, or when it is closed."""
        await self.writable.wait()

    # What uvicorn calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        plain = transport.get_extra_info("socket")
        if plain is not None and plain.family != socket.AF_UNIX:
            # asyncio does so only for sockets whose protocol was named; else a second small frame waits 40 ms for the first
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)

    def handle_ping(self) -> None:
        """Its pong is written, unless the client sends without end or does not read."""
        if self.gone or not self._keeps_pace():
            self.conn.data_to_send()
        elif self.transport.get_write_buffer_size() > WAITING_BYTES_MAX:
            self.transport.abort()
        else:
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if not self.gone and self._keeps_pace():
            super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        if self.gone or not self._keeps_pace():
            self.frames = []
        elif len(self.frames) >= FRAGMENTS_MAX:
            self.frames = []
            self.hang_up(1009, f"a message of more than {FRAGMENTS_MAX} fragments")
        else:
            super().handle_cont(event)

    def _keeps_pace(self) -> bool:
        """False: too many, and it is closed. Whole messages are read more slowly instead, where they are received."""
        now_s = self.loop.time()
        if self._pace is None:
            self._pace = pace.Pace(now_s)
        if self._pace.take(now_s, 0) > 0.0:
            self.hang_up(1008, "too many pings, pongs or fragments")
            return False
        return True

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:  # else there is no scope
            self.scope["extensions"][EXTENSION] = {"wire": self}


OPTIONS: dict[str, Any] = {
    "ws": Wire,
    "ws_max_size": frames.FRAME_BYTES_MAX,
    "ws_per_message_deflate": False,  # its windows would be most of a socket's memory
    "ws_ping_interval": None,  # the client's heartbeats keep a socket alive, and its silence ends it
}
"""What uvicorn has to be told."""
