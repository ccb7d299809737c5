"""Server-sent events (HTML Living Standard, 9.2)."""

import asyncio
import contextlib
import logging
import time
from typing import Annotated, Any

import psycopg
from litestar import Controller, Request, Response
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from api import answers, asked
from api.asked import HttpRequest
from api.feed import messages
from api.feed.feed import EXPIRED, Feed, Listener
from api.parts import Parts
from api.rights import may
from api.routes import get
from projections import positions

KEEP_ALIVE_S = 15.0
RETRY_MS = 1_000
"""How long a client waits before it comes back."""
LAST_WORDS_S = 1.0
"""How long an ended stream may take to be ended properly: who does not read is not waited for."""

_log = logging.getLogger(__name__)


class FeedController(Controller):
    path = "/feed"
    tags = ("feed",)

    @get(
        operation_id="listen",
        operation_class=answers.Subscription,
        guards=[may("feed:read")],
        media_type="text/event-stream",
    )
    async def listen(
        self,
        request: HttpRequest,
        parts: NamedDependency[Parts],
        after: Annotated[str | None, QueryParameter(name="from")] = None,
    ) -> Response[str]:
        """What happens, as it happens: a server-sent event for each event that the caller may see, its data the resource.

        `id` is a position; `from`, or Last-Event-ID, resumes after one. 410 if it is more than 10,000 events back. The last event is
        `session_ended` with the `reason` token_expired (refresh, then resume), session_revoked or tenant_suspended.
        """
        feed: Feed = request.app.state.feed
        given = request.headers.get("last-event-id") or after
        position = None if given is None else asked.number(parts, request.user, given)
        return _EventStream(feed, parts, await feed.join(request.user, position))


class _EventStream(Response[str]):
    """Hands the connection to the listener."""

    def __init__(self, feed: Feed, parts: Parts, listener: Listener) -> None:
        super().__init__("", media_type="text/event-stream")
        self._connection = _Connection(feed, parts, listener)

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **_: Any) -> ASGIResponse:
        return self._connection


class _Connection(ASGIResponse):
    """Lives as long as the connection: until the client goes, its token expires, its session ends, the process stops, or it is too slow."""

    def __init__(self, feed: Feed, parts: Parts, listener: Listener) -> None:
        super().__init__(media_type="text/event-stream")
        self._feed = feed
        self._parts = parts
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = asyncio.create_task(self._write(send))
        tasks = [writer, asyncio.create_task(_gone(receive)), asyncio.create_task(self._listener.ended.wait())]
        subscribers = self._parts.http.subscribers("sse")
        subscribers.inc()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._listener.ended.is_set():
                await asyncio.wait([writer], timeout=LAST_WORDS_S)
        finally:
            subscribers.dec()
            self._feed.leave(self._listener)
            self._listener.end()  # the writer looks for it: a cancellation can be lost in a pool that just gave a connection
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not writer.cancelled() and (error := writer.exception()) is not None:
                _log.error("A listener's stream broke", exc_info=error)

    async def _write(self, send: Send) -> None:
        listener = self._listener
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # a proxy that buffers would hold the messages back
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send(send, b"retry: %d\n%b" % (RETRY_MS, self._mark(listener.after)))
        try:
            async with contextlib.aclosing(self._feed.missed(listener)) as missed:
                async for chunk in missed:
                    await _send(send, chunk)
            await self._write_live(send)
        except (psycopg.Error, positions.ViewBehind, positions.TooManyWaiters) as error:
            _log.warning("A listener's stream ends, it will come back: %s", error)
        if listener.reason is not None:
            await _send(send, messages.ended(listener.reason))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write_live(self, send: Send) -> None:
        listener = self._listener
        if listener.joined > listener.after:
            await _send(send, self._mark(listener.joined))
        while not listener.ended.is_set():
            expires_in_s = listener.who.expires_at - time.time()
            if expires_in_s <= 0:
                listener.end(EXPIRED)
                return
            if chunk := listener.take():
                await _send(send, chunk)
                continue
            try:
                async with asyncio.timeout(min(KEEP_ALIVE_S, expires_in_s)):
                    await listener.wake.wait()
            except TimeoutError:
                # In one step of the event loop: `passed` may only be told when nothing before it is still queued.
                await _send(send, listener.take() or self._mark(listener.passed))

    def _mark(self, position: int) -> bytes:
        return messages.mark(self._parts.tokens.token(self._listener.who.tenant_id, position))


async def _send(send: Send, body: bytes) -> None:
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
