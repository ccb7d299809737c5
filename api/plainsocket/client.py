"""A client of a plain WebSocket: does what it says, and is what the feed delivers to."""

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

import psycopg

from api import asked, errors, rates
from api.feed import topics
from api.feed.feed import Feed
from api.feed.messages import Encoding, Frame
from api.feed.queue import EXPIRED, REVOKED, SUSPENDED
from api.feed.tail import Listener
from api.parts import Parts
from api.plainsocket import frames
from api.rights import Who
from api.socket.sockets import Sockets
from api.socket.wire import Wire
from ledger import errors as ledger_errors
from projections import positions

AUTHENTICATE_S = 10.0
"""How long a client may take to say who it is."""
IDLE_S = 60.0
"""Without any data from the client. It sends a ping every 30 s."""
MARK_S = 15.0
"""How often a listener that has had everything is told where it is, so that one who sees little moves on."""

_log = logging.getLogger(__name__)

Authenticating = Callable[[str | None], Who | Awaitable[Who]]


class Code(enum.IntEnum):
    """Close codes. Never 1000: many clients take it for their own end, and do not come back."""

    GONE = 1001  # the session ended, or the token expired: a message before it says which
    IDLE = 1002
    UNREADABLE = 1007
    NOBODY = 1008  # no token, or none that is good
    BROKEN = 1011
    RESTART = 1012  # this process stops
    SLOW = 1013  # it did not read: come back and resume


class Client:
    """Touched by the event loop's thread only; `receive` is called for one frame after the other."""

    __slots__ = (
        "_authenticate", "_feed", "_known", "_line", "_listeners", "_marked_s", "_no_end", "_opened_s", "_parts", "_resuming",
        "_sockets", "closed", "encode", "who",
    )  # fmt: skip

    def __init__(
        self,
        parts: Parts,
        feed: Feed,
        sockets: Sockets,
        authenticate: Authenticating,
        known: Callable[[Who], Awaitable[None]],
        line: Wire,
        now_s: float,
    ) -> None:
        """`known` is told who it is that first said so here; it raises RateLimited."""
        self.encode: Encoding = frames.encode
        self.closed = False
        self.who: Who | None = None
        self._parts = parts
        self._feed = feed
        self._sockets = sockets
        self._authenticate = authenticate
        self._known = known
        self._line = line
        self._opened_s = self._marked_s = now_s
        self._listeners: dict[str, Listener] = {}  # by topic
        self._resuming: dict[str, asyncio.Task[None]] = {}
        self._no_end: Callable[[], None] = lambda: None

    @property
    def session_id(self) -> UUID | None:
        return None if self.who is None else self.who.session_id

    def take(self, who: Who) -> None:
        """It is known who it is. Tells it so."""
        self._no_end()
        self.who = who
        self._sockets.learn(self)
        self._tell("authenticated", tenant_id=who.tenant_id, account_id=who.account_id, expires_at=who.expires_at)
        self._no_end = self._parts.ledger.revocations.on_end(who.tenant_id, who.session_id, self._session_ended)

    def wait_s(self, frame_bytes: int) -> float:
        """Before the user's next frame is looked at, for what all his connections send."""
        return 0.0 if self.who is None else self._feed.together.frame(self.who.account_id, frame_bytes)

    async def receive(self, data: str | bytes) -> None:
        """Do what a frame asks for. When it comes back, everything is answered."""
        try:
            said = frames.read(data)
        except frames.Unreadable as error:
            self._tell("error", reason=errors.MALFORMED.name, detail=str(error))
            self.close(Code.UNREADABLE, "a message that cannot be read")
            return
        if isinstance(said, frames.Ping):
            self._tell("pong")
        elif isinstance(said, frames.Authenticate):
            await self._learn(said.token)
        elif self.who is None:
            self.close(Code.NOBODY, "say who you are first")
        elif isinstance(said, frames.Subscribe):
            await self._subscribe(self.who, said)
        else:
            self._leave(said.topic)
            self._tell("unsubscribed", topic=said.topic)

    def close(self, code: int, reason: str) -> None:
        """Again changes nothing."""
        if not self.closed:
            self.lost()
            self._line.hang_up(code, reason)

    def lost(self) -> None:
        """The connection is gone. Again changes nothing."""
        self.closed = True
        self._no_end()
        self._no_end = lambda: None
        for topic in tuple(self._listeners):
            self._leave(topic)

    def tick(self, now_s: float) -> None:
        """Called every second, with the time since 1970."""
        if self.who is None:
            if now_s - self._opened_s > AUTHENTICATE_S:
                self.close(Code.NOBODY, "say who you are first")
        elif self.who.expires_at <= now_s:
            self._end(EXPIRED)
        elif self._line.silent_s > IDLE_S:
            self.close(Code.IDLE, "silent for too long")
        elif now_s - self._marked_s >= MARK_S:
            self._mark(self.who, now_s)

    # What the feed calls

    def deliver(self, frame: Frame) -> None:
        if not self._line.write(frame.data):
            self.close(Code.SLOW, "too slow")

    @property
    def waits(self) -> bool:
        return self._line.waits

    def end(self) -> None:
        if self._parts.stopping.is_set():
            self.close(Code.RESTART, "this process stops")
        else:
            self.close(Code.BROKEN, "the feed broke")

    async def drained(self) -> None:
        await self._line.drained()

    def _tell(self, kind: str, **members: object) -> None:
        if not self.closed and not self._line.write(frames.told(kind, **members)):
            self.close(Code.SLOW, "too slow")

    def _end(self, reason: str) -> None:
        self._tell("session_ended", reason=reason)
        self.close(Code.GONE, reason)

    def _session_ended(self, suspended: bool) -> None:
        self._end(SUSPENDED if suspended else REVOKED)

    async def _learn(self, token: str) -> None:
        try:
            who = self._authenticate(f"Bearer {token}")
            who = who if isinstance(who, Who) else await who
        except Exception as error:
            if (problem := errors.problem(error)) is None:
                raise
            self._tell("error", reason=problem.type.rpartition(":")[2], detail=problem.detail)
            self.close(Code.NOBODY, "the token is not good")
            return
        known = self.who
        if known is not None and (who.tenant_id, who.session_id) != (known.tenant_id, known.session_id):
            self._tell(
                "error", reason=errors.FORBIDDEN.name, detail="The token is another session's. Open a new socket."
            )
            self.close(Code.NOBODY, "the token is another session's")
        elif known is None and self._sockets.is_full_for(who.session_id):
            self._tell("error", reason="too-many", detail="The session has as many sockets as it may have. Close some.")
            self.close(Code.NOBODY, "the session has too many sockets")
        elif (known is not None or await self._passes(who)) and not self.closed:
            self.take(who)

    async def _passes(self, who: Who) -> bool:
        """Whether the user may open one more socket just now. Else the client is told, and let go."""
        try:
            await self._known(who)
        except rates.RateLimited as limited:
            self._tell("error", reason=errors.LIMITED_RATE.name, detail=str(limited))
            self.close(Code.SLOW, "too many requests")
            return False
        return True

    async def _subscribe(self, who: Who, said: frames.Subscribe) -> None:
        topic = said.topic
        if topic in self._listeners or len(self._listeners) >= topics.TOPICS_MAX:
            reason = "subscribed" if topic in self._listeners else "too-many"
            self._tell("refused", topic=topic, reason=reason)
            return
        try:
            topics.check(who, topic)
            after = None if said.after is None else asked.number(self._parts, who, said.after)
            listener = await self._feed.join(who.tenant_id, (topic,), self, after)
        except (topics.TopicForbidden, topics.TopicUnknown) as error:
            unknown = isinstance(error, topics.TopicUnknown)
            self._tell("refused", topic=topic, reason="unknown" if unknown else "unauthorized")
            return
        except (errors.RequestRefused, ledger_errors.PositionTokenInvalid, psycopg.Error) as error:
            self._tell("refused", topic=topic, reason=_reason(error))
            return
        if self.closed:
            self._feed.leave(listener)
            return
        # In the step of the event loop in which it joined: nothing is delivered before the answer.
        self._listeners[topic] = listener
        position = self._parts.tokens.token(who.tenant_id, listener.tail.position)
        self._tell("subscribed", topic=topic, position=position)
        if not listener.live and not self.closed:
            resuming = self._resume(topic, listener, who.account_id)
            self._resuming[topic] = asyncio.create_task(resuming, name="plainsocket-resume")

    async def _resume(self, topic: str, listener: Listener, account_id: UUID) -> None:
        try:
            await self._feed.catch_up(listener, account_id)
            return
        except (psycopg.Error, positions.ViewBehind, positions.TooManyWaiters) as error:
            _log.warning("A topic's past could not be read, the client subscribes again: %s", str(error).strip())
        except Exception:  # noqa: BLE001  the edge of a supervised task
            _log.exception("A topic's past could not be told")
        if self._listeners.get(topic) is listener:
            self._leave(topic)
            self._tell("unsubscribed", topic=topic, reason=errors.UNAVAILABLE.name)

    def _leave(self, topic: str) -> None:
        listener = self._listeners.pop(topic, None)
        if listener is not None:
            self._feed.leave(listener)
        resuming = self._resuming.pop(topic, None)
        if resuming is not None and resuming is not asyncio.current_task():
            resuming.cancel()  # if the cancellation is lost, it finds that its listener has ended

    def _mark(self, who: Who, now_s: float) -> None:
        """In one step of the event loop: whatever is up to this position was written before, on all topics."""
        self._marked_s = now_s
        if self._listeners and all(each.live for each in self._listeners.values()):
            least = min(each.position for each in self._listeners.values())
            self._tell("position", position=self._parts.tokens.token(who.tenant_id, least))


def _reason(error: Exception) -> str:
    """The name of the problem that HTTP would answer."""
    if isinstance(error, errors.RequestRefused):
        return error.kind.name
    return errors.MALFORMED.name if isinstance(error, ledger_errors.PositionTokenInvalid) else errors.UNAVAILABLE.name
