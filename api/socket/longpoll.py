"""Long polling for clients whose WebSockets do not come through. The status is in the body; HTTP's is nearly always 200."""

import base64
import binascii
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Litestar, asgi
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from api import bodies, headers, rates, rights
from api.socket import encodings, handshake
from api.socket.client import Client
from api.socket.session import DEAD, Session
from api.socket.sessions import Name, Sessions
from api.socket.sockets import Sockets

PATH = "/socket/longpoll"
NDJSON = "application/x-ndjson"

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_ALWAYS = (
    (b"content-type", b"application/json; charset=utf-8"),
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"no-store"),
)


class _Unreadable(Exception):
    """The body is none of ours, or nobody reads it now. `status` is HTTP's, and there is no body: the client takes a `status` in one
    for its own protocol's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


@asgi(PATH, copy_scope=False, opt=rights.open_to_all("the token comes in the query, and a session's own later"))
async def longpoll(scope: Scope, receive: Receive, send: Send) -> None:
    """GET opens and polls, POST sends."""
    if scope["type"] == ScopeType.WEBSOCKET:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    method = scope["method"]
    if method == "OPTIONS":
        await _say_what_may_be_asked(scope, send)
        return
    if method not in ("GET", "POST"):
        await _respond(send, 400, b"")
        return
    app: Litestar = scope["litestar_app"]
    try:
        handshake.check_origin(scope, app.state.parts.socket_origins)
        told = await (_get(scope, app) if method == "GET" else _post(scope, app, receive))
    except handshake.Refused as refusal:
        _log.info("A long poll was refused: %s", refusal)
        with suppress(rates.RateLimited):  # the next one is refused
            await app.state.parts.rates.charge(scope)
        told = {"status": 403}
    except _Unreadable as error:
        await _respond(send, error.status, b"")
        return
    await _respond(send, 200, _encode(told))


async def _get(scope: Scope, app: Litestar) -> dict[str, Any]:
    """Raises Refused, _Unreadable."""
    sessions: Sessions = app.state.sessions
    token, name = _session(scope, sessions)
    if name is not None:
        told = await sessions.poll(token, name)
        if told.status != DEAD.status:
            return {"status": told.status, "token": token, "messages": told.messages}
    return {"status": 410, "token": await _open(scope, app), "messages": []}


async def _post(scope: Scope, app: Litestar, receive: Receive) -> dict[str, Any]:
    """Raises _Unreadable."""
    sessions: Sessions = app.state.sessions
    token, name = _session(scope, sessions)
    if name is None:
        with suppress(rates.RateLimited):
            await app.state.parts.rates.charge(scope)
        return {"status": DEAD.status}
    received = _frames(scope, await _body(receive))
    return {"status": (await sessions.take(token, name, received)).status}


async def _open(scope: Scope, app: Litestar) -> str:
    """A new session's token. Raises Refused, _Unreadable."""
    sessions: Sessions = app.state.sessions
    sockets: Sockets = app.state.sockets
    if sockets.full:
        raise handshake.Refused("this process takes no more sockets")
    await sessions.start()  # before it is known who asks: from then on no session may end unseen
    serializer = handshake.serializer(handshake.parameters(scope["query_string"]))
    # Of two parameters `token` the second one is the dead session's.
    given = [each for each in _tokens(scope) if sessions.name(each) is None]
    token = headers.first(scope, b"x-phoenix-authtoken") or (given[-1] if given else "")
    who = await handshake.authenticated(token, app.state.authenticate)
    if sockets.is_full_for(who.session_id):
        raise handshake.Refused("the session has as many sockets as it may have")
    try:
        await app.state.parts.rates.pushed(who)  # it counts as a request of the user's
    except rates.RateLimited as limited:
        raise _Unreadable(429) from limited

    def ended(session: Session) -> None:
        sessions.remove(session)
        sockets.remove(session.client)

    session = Session(ended)
    session.client = Client(app.state.channels, who, serializer, session, encodings.AS_TEXT[serializer])
    sockets.add(session.client, "longpoll")
    return sessions.add(session)


def _session(scope: Scope, sessions: Sessions) -> tuple[str, Name | None]:
    """The session's token as it was given, and whose it is; None if it is none of ours."""
    given = headers.first(scope, b"x-phoenix-longpoll-token") or (_tokens(scope) or [""])[-1]
    return given, sessions.name(given)


def _tokens(scope: Scope) -> list[str]:
    """All values of the parameter `token`. Raises Refused."""
    try:
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=handshake.PARAMETERS_MAX)
    except ValueError:
        raise handshake.Refused("too many parameters") from None
    return [value for name, value in pairs if name == "token"]


def _frames(scope: Scope, body: bytes) -> Sequence[str | bytes]:
    """Raises _Unreadable."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _Unreadable(400) from None
    if not (headers.first(scope, b"content-type") or "").startswith(NDJSON):
        return [text]
    try:
        return [_frame(line) for line in text.split("\n") if line]
    except (binascii.Error, ValueError):
        raise _Unreadable(500) from None  # the client sends it again


def _frame(line: str) -> str | bytes:
    """JSON of 2.0.0 begins with [ and of 1.0.0 with {; anything else is base64 of a binary frame."""
    return line if line[0] in "[{" else base64.b64decode(line, validate=True)


async def _body(receive: Receive) -> bytes:
    """Raises _Unreadable past BODY_BYTES_MAX."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _Unreadable(400)
        body += message["body"]
        if len(body) > bodies.BODY_BYTES_MAX:
            raise _Unreadable(413)
        if not message["more_body"]:
            return bytes(body)


async def _say_what_may_be_asked(scope: Scope, send: Send) -> None:
    wanted = headers.first(scope, b"access-control-request-headers") or ""
    await _respond(
        send,
        200,
        b"",
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-allow-methods", b"get, post, options"),
        (b"access-control-max-age", b"3600"),
    )


async def _respond(send: Send, status: int, body: bytes, *more: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*_ALWAYS, *more, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
