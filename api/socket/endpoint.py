"""The ASGI side of Phoenix Channels: takes a WebSocket in, and hands its frames on."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from litestar import Litestar, asgi
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from api.parts import Parts
from api.socket import encodings, handshake, wire
from api.socket.client import Client
from api.socket.protocol import frames, pace
from api.socket.sockets import Sockets

PATH = "/socket/websocket"

_log = logging.getLogger(__name__)


@asgi(PATH, copy_scope=False)
async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """A socket of Phoenix Channels. 403 to whom it does not take, 400 to what is no WebSocket."""
    if scope["type"] == ScopeType.HTTP:
        await _answer(send, 400)
        return
    await receive()  # websocket.connect
    app: Litestar = scope["litestar_app"]
    parts: Parts = app.state.parts
    sockets: Sockets = app.state.sockets
    try:
        if sockets.full:
            raise handshake.Refused("this process takes no more sockets")
        taken = handshake.shake_hands(scope, parts.socket_origins, app.state.authenticate)
    except handshake.Refused as refusal:
        _log.info("A socket was refused: %s", refusal)
        await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before an accept it is 403
        return
    line = _Line(_wire(scope))
    client = Client(parts, app.state.feed, taken.who, taken.serializer, line, encodings.ON_WIRE[taken.serializer])
    await send({"type": "websocket.accept", "subprotocol": taken.subprotocol, "headers": []})
    del taken
    sockets.add(client, "phoenix")
    try:
        await _converse(client, line, receive)
    finally:
        sockets.remove(client)


async def _converse(client: Client, line: "_Line", receive: Receive) -> None:
    """One frame after the other; who is too fast is read more slowly."""
    clock = asyncio.get_running_loop().time
    bucket = pace.Pace(clock())
    while (message := await receive())["type"] == "websocket.receive":
        text: str | None = message.get("text")
        data: str | bytes = message.get("bytes") or b"" if text is None else text
        if (wait_s := bucket.take(clock(), len(data))) > 0.0:
            await asyncio.sleep(wait_s)
            if line.gone:  # what it sent before it went has no reader
                return
        await client.receive(data)


class _Line:
    """A client's WebSocket."""

    __slots__ = ("_wire", "drained", "hang_up", "write")

    def __init__(self, wire: wire.Wire) -> None:
        self._wire = wire
        self.write, self.hang_up, self.drained = wire.write, wire.hang_up, wire.drained

    @property
    def silent_s(self) -> float:
        return self._wire.silent_s

    @property
    def gone(self) -> bool:
        return self._wire.gone

    def send(self, frame: frames.Frame) -> bool:
        return self._wire.write(wire.framed(frame.data, is_text=frame.is_text))


def _wire(scope: Scope) -> wire.Wire:
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    if wire.EXTENSION not in extensions:
        raise RuntimeError(f"The server gives no {wire.EXTENSION}. Run uvicorn with ws=api.socket.wire.Wire.")
    found: wire.Wire = extensions[wire.EXTENSION]["wire"]
    return found


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
