"""Around the application, once for each request: its id, its time, what it may be long, who may send how many, which pages may read
the answer. One wrapper, because each costs more than what it does; all of it together about 5 µs."""

from functools import partial
from time import perf_counter
from typing import Any, cast
from uuid import UUID

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send
from litestar.utils import normalize_path

from api import errors, origins, rates, request_ids
from api.parts import Parts
from api.socket import longpoll

QUERY_BYTES_MAX = 8 * 1024
PATH_BYTES_MAX = 2 * 1024
"""Our longest path has 200, with an id; a query has cursors and words that are searched for."""
HEADERS_MAX = 100
"""A browser behind two proxies sends 40. Their bytes are bounded where they are read (bitnexus/protocol.py)."""
UNLIMITED = frozenset({"/health", "/ready", "/metrics"})
"""For balancers and scrapers: they come from one address, and what they ask is cheap."""

TRY_AGAIN_LATER = 1013
"""The code of WebSockets for it (IANA's registry); before a socket is accepted the server makes of it 403."""

_NOSNIFF = (b"x-content-type-options", b"nosniff")
_HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_TOO_LONG = "The address has more than {0} bytes. Send less in it; long values go into a body."
_TOO_MANY = "The request has more than {0} headers. Send fewer."


class Edge:
    """An ASGI application around Litestar's."""

    def __init__(self, app: ASGIApp, parts: Parts, in_flight: set[UUID], open_paths: frozenset[str]) -> None:
        """`open_paths`: of routes that no guard stands before, so that nobody else counts who asks them."""
        self._app = app
        self._open_paths = open_paths
        self._observe = parts.http.observe
        self._rates = parts.rates
        self._origins = origins.Origins(parts.ledger, parts.cors_origins)
        self._in_flight = in_flight  # see asked.py

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self.socket(self._app, scope, receive, send)
            return
        begun = perf_counter()
        given = origin = None
        authorized = False
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given = value
            elif name == b"authorization":
                authorized = True
            elif name == b"origin":
                origin = value
        known_as = request_ids.of(given)
        request_ids.CURRENT.set(known_as)
        state = scope["state"]
        state["request_id"] = known_as
        if origin is not None and scope["path"] == longpoll.PATH:
            origin = None  # it is open to every page, and says so itself: whose page it is, it looks at later
        allowed = None if origin is None else self._origins.at_hand(origin)
        looks_up = origin is not None and allowed is None

        def answer(message: Message) -> Any:
            if message["type"] == "http.response.start":
                self._observe(scope, message["status"], perf_counter() - begun)
                self._left(state)
                added = [*message["headers"], (b"x-request-id", known_as.encode()), _NOSNIFF]
                rate = state.get("rate")
                if rate is not None and message["status"] != 429:
                    added.append((b"ratelimit", _shown(rate)))
                if scope["scheme"] == "https":
                    added.append(_HSTS)
                if allowed is not None:
                    who = scope.get("user")
                    added += origins.exposed(cast(bytes, origin), allowed, None if who is None else who.tenant_id)
                message["headers"] = added
            return send(message)

        # A query that anybody can cause counts for the address.
        refusal = self._refusal(scope, authorized and not looks_up)
        if isinstance(refusal, rates.Bucket):
            refusal = await self._later(refusal, scope)
        if refusal is not None:
            await _refuse(refusal, answer, is_empty=scope["path"] == longpoll.PATH)
            return
        if looks_up:
            allowed = await self._origins.of(cast(bytes, origin))
        if allowed is not None and scope["method"] == "OPTIONS" and _asks_for_method(scope):
            headers = origins.preflight(cast(bytes, origin), allowed)
            allowed = None
            await _answer(204, headers, b"", answer)
        else:
            try:
                await self._app(scope, receive, answer)
            finally:
                self._left(state)

    async def socket(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the application have a WebSocket. Whoever opens one is not known yet: its token comes with it, and is looked at inside,
        where the address is charged for one that is not good. Behind one address a thousand pages may come back at once."""
        known_as = request_ids.of(None)
        request_ids.CURRENT.set(known_as)
        scope.setdefault("state", {})["request_id"] = known_as
        try:
            self._rates.check(scope)
        except rates.RateLimited as limited:
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": str(limited)})
        else:
            await app(scope, receive, send)

    async def _later(self, unleased: rates.Bucket, scope: Scope) -> rates.RateLimited | None:
        try:
            await self._rates.later(unleased, partial(self._rates.anonymous, scope))
        except rates.RateLimited as limited:
            return limited
        return None

    def _refusal(
        self, scope: Scope, authorized: bool
    ) -> "errors.RequestRefused | rates.RateLimited | rates.Bucket | None":
        """A bucket: the one that has to be leased before it is known."""
        if len(scope["query_string"]) > QUERY_BYTES_MAX:
            return errors.RequestRefused(errors.URI_TOO_LONG, _TOO_LONG.format(QUERY_BYTES_MAX))
        if len(scope["path"]) > PATH_BYTES_MAX:
            return errors.RequestRefused(errors.URI_TOO_LONG, _TOO_LONG.format(PATH_BYTES_MAX))
        if len(cast(list[Any], scope["headers"])) > HEADERS_MAX:
            return errors.RequestRefused(errors.HEADERS_TOO_LARGE, _TOO_MANY.format(HEADERS_MAX))
        if (not authorized or self._is_open(scope)) and scope["path"] not in UNLIMITED:
            try:
                if scope["path"] != longpoll.PATH:
                    return self._rates.anonymous(scope)
                self._rates.check(scope)  # as of a WebSocket: a page polls as often as something happens
            except rates.RateLimited as limited:
                return limited
        return None

    def _is_open(self, scope: Scope) -> bool:
        """Whether nobody will look at the token, or at what passes for one."""
        path = scope["path"]
        if path[-1:] == "/" or "//" in path:
            path = normalize_path(path)  # as the router does
        return path in self._open_paths or cast(dict[str, Any], scope)["method"] == "OPTIONS"

    def _left(self, state: dict[str, Any]) -> None:
        """A repeat under the same idempotency key need not wait any more."""
        command_id = state.pop("in_flight", None)
        if command_id is not None:
            self._in_flight.discard(command_id)


def _shown(bucket: rates.Bucket) -> bytes:
    """What is left, and when all of it is there again."""
    tokens = bucket.tokens
    return b'"%b";r=%d;t=%d' % (bucket.policy.name.encode(), max(tokens, 0), (bucket.quota - tokens) / bucket.per_s + 1)


def _asks_for_method(scope: Scope) -> bool:
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])


async def _refuse(refusal: "errors.RequestRefused | rates.RateLimited", answer: Send, *, is_empty: bool) -> None:
    """`is_empty`: without a body. The npm client's long polling takes the `status` in one for its own, and gives up for ever at 429."""
    problem = errors.problem(refusal)
    assert problem is not None  # it is no bug
    headers = [(b"content-type", errors.MEDIA_TYPE.encode())]
    if isinstance(refusal, rates.RateLimited):
        headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    await _answer(problem.status, headers, b"" if is_empty else msgspec.json.encode(problem), answer)


async def _answer(status: int, headers: list[tuple[bytes, bytes]], body: bytes, answer: Send) -> None:
    whole = [*headers, (b"content-length", b"%d" % len(body))] if status != 204 else headers
    start: HTTPResponseStartEvent = {"type": "http.response.start", "status": status, "headers": whole}
    await answer(start)
    await answer({"type": "http.response.body", "body": body, "more_body": False})
