"""The ASGI side of a plain WebSocket: who is taken in."""

import time

from litestar.datastructures import State
from litestar.types import Receive, Send, WebSocketScope

from api import errors, headers, rates
from api.feed import tickets
from api.plainsocket.client import Client
from api.rights import Who
from api.socket import endpoint, handshake
from api.socket.sockets import Sockets

PATH = "/api/v1/feed/ws"


async def websocket(state: State, scope: WebSocketScope, receive: Receive, send: Send) -> None:
    """403 before the upgrade for a ticket or a token that is not good; without either the first message has to bring one."""
    await receive()  # websocket.connect
    sockets: Sockets = state.sockets
    try:
        if sockets.full:
            raise handshake.Refused("this process takes no more sockets")
        handshake.check_origin(scope, state.parts.socket_origins)
        who = await _who(state, scope)
        if who is not None and sockets.is_full_for(who.session_id):
            raise handshake.Refused("the session has as many sockets as it may have")
        # Whoever says later who he is counts for the address until he has, or anybody could hold sockets for nothing.
        await (state.parts.rates.charge(scope) if who is None else state.parts.rates.pushed(who))
    except (handshake.Refused, rates.RateLimited) as refusal:
        await endpoint.refuse(state.parts, scope, send, refusal)
        return
    line = endpoint.wire_of(scope)
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    line.forget_handshake()

    async def known(who: Who) -> None:
        await state.parts.rates.pushed(who)
        _excuse(scope)

    client = Client(state.parts, state.feed, sockets, state.authenticate, known, line, time.time())
    sockets.add(client, "websocket")
    try:
        if who is not None:
            client.take(who)
        await endpoint.converse(client, line, receive)
    finally:
        sockets.remove(client)


def _excuse(scope: WebSocketScope) -> None:
    """Gives back what the address was charged. What other processes have been told of it meanwhile stays taken."""
    bucket: rates.Bucket | None = scope["state"].pop("rate", None)
    if bucket is not None and bucket.taken > 0:
        bucket.give_back()


async def _who(state: State, scope: WebSocketScope) -> Who | None:
    """Raises Refused."""
    authorization = headers.first(scope, b"authorization")
    try:
        if authorization is not None:
            who: Who = state.authenticate(authorization)
            return who if isinstance(who, Who) else await who
        ticket = tickets.of(scope["query_string"])
        return None if ticket is None else await tickets.redeem(state, ticket)
    except Exception as error:
        if errors.problem(error) is None:
            raise
        raise handshake.Refused(str(error)) from None
