"""The ASGI side of Phoenix Channels: takes a WebSocket in, and hands its frames on."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from litestar import asgi
from litestar.datastructures import State
from litestar.types import Receive, Scope, Send, WebSocketScope

from api import rates, rights
from api.parts import Parts
from api.socket import encodings, handshake, wire
from api.socket.client import Client
from api.socket.protocol import pace
from api.socket.sockets import Sockets

PATH = "/socket/websocket"

_log = logging.getLogger(__name__)


class Receiver(Protocol):
    """A client of either protocol."""

    def wait_s(self, frame_bytes: int) -> float:
        """How long to wait before a frame is given to it, for what all connections of its user send together."""

    async def receive(self, data: str | bytes) -> None:
        """Do what a frame asks for."""


@asgi(PATH, copy_scope=False, opt=rights.open_to_all("it tells nothing but that a socket is opened otherwise"))
async def no_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """A request that asks for no upgrade."""
    await send({"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def websocket(state: State, scope: WebSocketScope, receive: Receive, send: Send) -> None:
    """A socket of Phoenix Channels, `state` the application's. 403 to whom it does not take."""
    await receive()  # websocket.connect
    parts: Parts = state.parts
    sockets: Sockets = state.sockets
    try:
        if sockets.full:
            raise handshake.Refused("this process takes no more sockets")
        taken = await handshake.shake_hands(scope, parts.socket_origins, state.authenticate)
        if sockets.is_full_for(taken.who.session_id):
            raise handshake.Refused("the session has as many sockets as it may have")
        await parts.rates.pushed(taken.who)  # it counts as a request of the user's
    except (handshake.Refused, rates.RateLimited) as refusal:
        await refuse(parts, scope, send, refusal)
        return
    line = wire_of(scope)
    await send({"type": "websocket.accept", "subprotocol": taken.subprotocol, "headers": []})
    line.forget_handshake()
    client = Client(state.channels, taken.who, taken.serializer, line, encodings.ON_WIRE[taken.serializer])
    del taken
    sockets.add(client, "phoenix")
    try:
        await converse(client, line, receive)
    finally:
        sockets.remove(client)


async def refuse(
    parts: Parts, scope: WebSocketScope, send: Send, refusal: "handshake.Refused | rates.RateLimited"
) -> None:
    """403, as the socket is not accepted. The address is charged for whoever was not known."""
    _log.info("A socket was refused: %s", refusal)
    if isinstance(refusal, handshake.Refused):
        with suppress(rates.RateLimited):  # its next one is refused at once
            await parts.rates.charge(scope)
    await send({"type": "websocket.close", "code": 1008, "reason": ""})


async def converse(client: Receiver, line: wire.Wire, receive: Receive) -> None:
    """One frame after the other; who is too fast is read more slowly."""
    clock = asyncio.get_running_loop().time
    bucket = pace.Pace(clock())
    while (message := await receive())["type"] == "websocket.receive":
        text: str | None = message.get("text")
        data: str | bytes = message.get("bytes") or b"" if text is None else text
        if (wait_s := max(bucket.take(clock(), len(data)), client.wait_s(len(data)))) > 0.0:
            await asyncio.sleep(wait_s)
            if line.gone:  # what it sent before it went has no reader
                return
        await client.receive(data)


def wire_of(scope: WebSocketScope) -> wire.Wire:
    """The server's side of the connection."""
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    if wire.EXTENSION not in extensions:
        raise RuntimeError(f"The server gives no {wire.EXTENSION}. Run uvicorn with ws=api.socket.wire.Wire.")
    found: wire.Wire = extensions[wire.EXTENSION]["wire"]
    return found
