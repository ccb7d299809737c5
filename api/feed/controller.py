"""Server-sent events (HTML Living Standard, 9.2)."""

import asyncio
import logging
import time
from typing import Annotated, Any
from uuid import UUID

import msgspec
import psycopg
from litestar import Controller, Request, Response
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from api import answers, asked, errors, sent
from api.asked import HttpRequest
from api.feed import compression, tickets, topics
from api.feed.feed import Feed
from api.feed.messages import NOWHERE, Frame, Message
from api.feed.queue import EXPIRED, REVOKED, SUSPENDED, Queue
from api.feed.tail import Listener
from api.parts import Parts
from api.rights import Who, may
from api.routes import get, post
from api.socket.protocol.connection import Code
from api.socket.sockets import Sockets
from projections import positions

KEEP_ALIVE_S = 15.0
RETRY_MS = 1_000
"""How long a client waits before it comes back."""
LAST_WORDS_S = 1.0
"""How long an ended stream may take to be ended properly: who does not read is not waited for."""

_FULL = "This process has as many connections as it takes, or as one session may have. Close some, or try again in a second."

_log = logging.getLogger(__name__)


class FeedController(Controller):
    path = "/feed"
    tags = ("feed",)

    @get(
        operation_id="listen",
        operation_class=answers.Subscription,
        guards=[tickets.ByTicket("feed:read")],
        media_type="text/event-stream",
    )
    async def listen(
        self,
        request: HttpRequest,
        parts: NamedDependency[Parts],
        after: Annotated[str | None, QueryParameter(name="from")] = None,
        wanted: Annotated[str | None, QueryParameter(name="topics")] = None,
        ticket: FromQuery[str | None] = None,  # which the guard has looked at
    ) -> Response[str]:
        """What happens, as it happens: a server-sent event for each event that the caller may see, its data the resource.

        `id` is a position; `from`, or Last-Event-ID, resumes after one. 410 if it is more than 10,000 events back. `topics` are
        those to listen to, with commas between them, of those that channels know; without it, all that the caller sees by query.
        The last event is `session_ended` with the `reason` token_expired (refresh, then resume), session_revoked or
        tenant_suspended. gzip if Accept-Encoding asks for it. `ticket` takes the place of an access token.
        """
        feed: Feed = request.app.state.feed
        sockets: Sockets = request.app.state.sockets
        who = request.user
        if sockets.full or sockets.is_full_for(who.session_id):
            raise errors.RequestRefused(errors.UNAVAILABLE, _FULL)
        given = request.headers.get("last-event-id") or after
        position = None if given is None else asked.number(parts, who, given)
        listened = topics.seen_by(who) if wanted is None else topics.asked_for(who, wanted)
        queue = Queue(encode, position or 0)
        listener = await feed.join(who.tenant_id, listened, queue, position)
        # In the step of the event loop in which it joined: from the next one on something may be queued, and its mark told too soon.
        begin = b"retry: %d\n%b" % (RETRY_MS, mark(parts.tokens.token(who.tenant_id, listener.position)))
        compressed = compression.takes_gzip(request.headers.get("accept-encoding"))
        return _EventStream(_Connection(feed, sockets, parts, who, queue, listener, begin, compressed))

    @post("/tickets", operation_id="issueFeedTicket", operation_class=answers.Grant, guards=[may("feed:read")])
    async def issue_ticket(
        self, request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[answers.Data[tickets.TicketIssued]]:
        """A ticket for a client that cannot send a header, such as EventSource: `?ticket=` opens one stream within 30 s, once."""
        issued = await tickets.issue(parts, request.user)
        return sent.Answer(answers.Data(issued), status_code=201, headers={"Cache-Control": "no-store"})


def encode(message: Message, _: str) -> Frame:
    """As a message of an event stream; JSON has no line breaks."""
    place = b"" if message.position == NOWHERE else b"id: %b\n" % message.token.encode()
    return Frame(message.position, b"%bevent: %b\ndata: %b\n\n" % (place, message.name.encode(), message.data))


def mark(token: str) -> bytes:
    """No message, but where to go on: keeps the connection alive, and a listener who sees little moves on."""
    return b"id: %b\n\n" % token.encode()


def session_ended(reason: str) -> bytes:
    """The last message of a stream. Without an id: it is no place to resume from."""
    return b"event: session_ended\ndata: %b\n\n" % msgspec.json.encode({"reason": reason})


class _EventStream(Response[str]):
    """Hands the connection to the listener."""

    def __init__(self, connection: "_Connection") -> None:
        super().__init__("", media_type="text/event-stream")
        self._connection = connection

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **_: Any) -> ASGIResponse:
        return self._connection


class _Connection(ASGIResponse):
    """A client as sockets are. Lives as long as the connection: until who listens goes, the token expires, the session ends, the process
    stops, or it is too slow."""

    compressed = 0  # of all: how many have a compressor

    def __init__(
        self,
        feed: Feed,
        sockets: Sockets,
        parts: Parts,
        who: Who,
        queue: Queue,
        listener: Listener,
        begin: bytes,
        takes_gzip: bool,
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self._begin = begin
        self._takes_gzip = takes_gzip
        self._feed = feed
        self._sockets = sockets
        self._parts = parts
        self._who = who
        self._queue = queue
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer, reader = asyncio.create_task(self._write(send)), asyncio.create_task(self._catch_up())
        ending = [writer, asyncio.create_task(_gone(receive)), asyncio.create_task(self._queue.ended.wait())]
        self._sockets.add(self, "sse")
        no_end = self._parts.ledger.revocations.on_end(
            self._who.tenant_id,
            self._who.session_id,
            lambda suspended: self._queue.end(SUSPENDED if suspended else REVOKED),
        )
        try:
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            if self._queue.ended.is_set():
                await asyncio.wait([writer], timeout=LAST_WORDS_S)
        finally:
            no_end()
            self._sockets.remove(self)
            self._queue.end()  # both tasks look for it: a cancellation can be lost in a pool that just gave a connection
            for task in (*ending, reader):
                task.cancel()
            await asyncio.gather(*ending, reader, return_exceptions=True)
            for task in (writer, reader):
                if not task.cancelled() and (error := task.exception()) is not None:
                    _log.error("A listener's stream broke", exc_info=error)

    @property
    def session_id(self) -> UUID | None:
        return self._who.session_id

    def tick(self, now_s: float) -> None:
        """Its own task looks at the time."""

    def close(self, code: Code, reason: str) -> None:
        self._queue.end()

    def lost(self) -> None:
        self._feed.leave(self._listener)

    async def _catch_up(self) -> None:
        if self._listener.live:
            return
        try:
            await self._feed.catch_up(self._listener, self._who.account_id)
        except (psycopg.Error, positions.ViewBehind, positions.TooManyWaiters) as error:
            _log.warning("A listener's stream ends, it will come back: %s", error)
            self._queue.end()
        except Exception:  # noqa: BLE001  the edge of a supervised task
            _log.exception("A listener's past could not be told: its stream ends, it will come back")
            self._queue.end()
        else:
            self._queue.put(self._mark())

    async def _write(self, send: Send) -> None:
        if not self._takes_gzip or _Connection.compressed >= compression.COMPRESSED_MAX:
            await self._write_by(compression.Plain(), send)
            return
        _Connection.compressed += 1
        try:
            await self._write_by(compression.Gzip(), send)
        finally:
            _Connection.compressed -= 1

    async def _write_by(self, writer: compression.Writer, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # a proxy that buffers would hold the messages back
            (b"vary", b"accept-encoding"),
        ]
        if writer.name is not None:
            headers.append((b"content-encoding", writer.name))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send(send, writer.chunk(self._begin))
        while not self._queue.ended.is_set():
            expires_in_s = self._who.expires_at - time.time()
            if expires_in_s <= 0:
                self._queue.end(EXPIRED)
                break
            if chunk := self._queue.take():
                await _send(send, writer.chunk(chunk))
                continue
            try:
                async with asyncio.timeout(min(KEEP_ALIVE_S, expires_in_s)):
                    await self._queue.wake.wait()
            except TimeoutError:
                # In one step of the event loop: the position may only be told when nothing before it is still queued.
                await _send(send, writer.chunk(self._queue.take() or self._mark()))
        if self._queue.reason is not None:
            await _send(send, writer.chunk(session_ended(self._queue.reason)))
        await send({"type": "http.response.body", "body": writer.end(), "more_body": False})

    def _mark(self) -> bytes:
        return mark(self._parts.tokens.token(self._who.tenant_id, self._listener.position))


async def _send(send: Send, body: bytes) -> None:
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
