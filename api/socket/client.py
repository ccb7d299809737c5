"""A client of Phoenix Channels: does what its connection says, and is what the feed delivers to."""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import psycopg

from api import asked, errors, limits
from api.feed import topics
from api.feed.feed import Feed
from api.feed.messages import Encoding, Frame
from api.feed.tail import Listener
from api.parts import Parts
from api.rights import Who
from api.socket import events
from api.socket.presence import Presence, Watcher
from api.socket.protocol import frames
from api.socket.protocol.connection import Close, Code, Connection, Effect, Handle, Join, Leave, Send, State
from api.socket.protocol.frames import Serializer
from ledger import errors as ledger_errors
from projections import positions

PATTERNS = tuple(
    f"{kind}:*" for kind in (topics.TENANT, topics.TRANSACTION, topics.AFFILIATE, topics.NOTIFICATION, topics.ADMIN)
)
WITH_PRESENCE = (f"{topics.TENANT}:*", f"{topics.ADMIN}:*")
"""Where many meet. A join that says `"presence": true` is there, and is told who else is."""

MARK_S = 15.0
"""Between two positions told to a channel whose join says `"positions": true`: as often as the other feeds tell theirs."""

_log = logging.getLogger(__name__)


class Line(Protocol):
    """What carries frames to the client. Called in the event loop's thread."""

    @property
    def silent_s(self) -> float:
        """How long nothing has come from the client."""

    @property
    def waits(self) -> bool:
        """Whether anything that was written may not have been taken yet."""

    def tell(self, frame: frames.Frame) -> bool:
        """False: the client is too slow, and it was not sent."""

    def write(self, data: bytes) -> bool:
        """As `tell`, of what the line's encoding made."""

    def hang_up(self, code: int, reason: str) -> None:
        """Nothing is sent any more."""

    async def drained(self) -> None:
        """Come back when there is room again, or after the end."""


class Shared(NamedTuple):
    """What all clients of a process stand on."""

    parts: Parts
    feed: Feed
    presence: Presence
    known: limits.TenantsKnown


class _Member:
    """A joined topic."""

    __slots__ = ("is_marked", "listener", "resuming", "watcher")

    def __init__(self, listener: Listener, *, is_marked: bool) -> None:
        self.listener = listener
        self.is_marked = is_marked  # is told where the stream is, when it hears nothing else
        self.watcher: Watcher | None = None  # if it asked who is there
        self.resuming: asyncio.Task[None] | None = None


class Client:
    """One connection. Touched by the event loop's thread only; `receive` is called for one frame after the other."""

    __slots__ = ("_connection", "_line", "_mark_at", "_members", "_no_end", "_shared", "encode", "id", "who")

    def __init__(
        self,
        shared: Shared,
        who: Who,
        serializer: Serializer,
        line: Line,
        encode: Encoding,
    ) -> None:
        self.who = who
        self.encode = encode
        self.id = secrets.token_bytes(16)
        self._shared = shared
        self._line = line
        self._connection = Connection(serializer, PATTERNS)
        self._members: dict[str, _Member] = {}
        self._mark_at = inf  # in seconds since 1970
        self._no_end = shared.parts.ledger.revocations.on_end(who.tenant_id, who.session_id, self._session_ended)

    @property
    def closed(self) -> bool:
        return self._connection.state is State.CLOSED

    @property
    def session_id(self) -> UUID:
        return self.who.session_id

    def wait_s(self, frame_bytes: int) -> float:
        """Before the user's next frame is looked at, for what all his connections send."""
        return self._shared.feed.together.frame(self.who.account_id, frame_bytes)

    async def receive(self, data: str | bytes) -> None:
        """Do what a frame asks for. When it comes back, everything is answered."""
        await self._do(self._connection.receive(data))

    def close(self, code: Code, reason: str) -> None:
        self._do_now(self._connection.close(code, reason))

    def tick(self, now_s: float) -> None:
        """Called every few seconds, with the time since 1970."""
        if self.who.expires_at <= now_s:
            self.close(Code.GONE, "the access token expired")
        else:
            self._do_now(self._connection.tick(self._line.silent_s))
            if now_s >= self._mark_at:
                self._mark(now_s)

    def lost(self) -> None:
        """The connection is gone. Again changes nothing."""
        self._no_end()
        self._do_now(self._connection.lost())

    def _mark(self, now_s: float) -> None:
        """In one step of the event loop: whatever is up to these positions was written before."""
        marked = [(topic, member) for topic, member in self._members.items() if member.is_marked]
        self._mark_at = now_s + MARK_S if marked else inf
        for topic, member in marked:
            if member.listener.live:
                at = self._shared.parts.tokens.token(self.who.tenant_id, member.listener.position)
                self._do_now(self._connection.push(topic, "position", frames.encoded({"position": at})))

    def _session_ended(self, suspended: bool) -> None:
        self.close(Code.GONE, "the tenant is suspended" if suspended else "the session has ended")

    # What the feed calls

    def deliver(self, frame: Frame) -> None:
        if not self._line.write(frame.data):
            self.close(Code.SLOW, "too slow")

    @property
    def waits(self) -> bool:
        return self._line.waits

    def end(self) -> None:
        if self._shared.parts.stopping.is_set():
            self.close(Code.RESTART, "this process stops")
        else:
            self.close(Code.BROKEN, "the feed broke")

    async def drained(self) -> None:
        await self._line.drained()

    # Effects

    async def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Join():
                    await self._do(await self._join(effect))
                case Handle():
                    await self._do(await self._handle(effect))
                case _:
                    self._do_now((effect,))

    def _do_now(self, effects: Sequence[Effect]) -> None:
        """Of effects that ask for nothing."""
        for effect in effects:
            match effect:
                case Send(frame):
                    if not self._line.tell(frame):
                        self.close(Code.SLOW, "too slow")
                case Leave(topic):
                    self._leave(topic)
                case Close(code, reason):
                    self._line.hang_up(code, reason)
                case _:
                    raise AssertionError(effect)

    async def _join(self, join: Join) -> list[Effect]:
        try:
            topics.check(self.who, join.topic)
            listener = await self._shared.feed.join(self.who.tenant_id, (join.topic,), self, self._after(join.payload))
        except topics.TopicForbidden:
            return self._connection.refused("unauthorized")
        except topics.TopicUnknown:
            return self._connection.unmatched()
        except (errors.RequestRefused, ledger_errors.PositionTokenInvalid, psycopg.Error) as error:
            return [] if self.closed else self._connection.refused(_reason(error))
        except Exception:  # noqa: BLE001  one join fails, the connection goes on
            _log.exception("A join of %s failed", join.pattern)
            return [] if self.closed else self._connection.crashed()
        if self.closed:
            self._shared.feed.leave(listener)
            return []
        # All in the step of the event loop in which it joined: nothing is delivered before the reply.
        wanted = join.payload if isinstance(join.payload, dict) else {}
        member = _Member(listener, is_marked=wanted.get("positions") is True)
        self._members[join.topic] = member
        if member.is_marked:
            self._mark_at = min(self._mark_at, time.time() + MARK_S)
        at = self._shared.parts.tokens.token(self.who.tenant_id, listener.tail.position)
        self._do_now(self._connection.accepted(frames.encoded({"position": at})))
        if join.pattern in WITH_PRESENCE and wanted.get("presence") is True:
            self._watch(join.topic, member)
        if not listener.live and not self.closed:
            member.resuming = asyncio.create_task(self._resume(join.topic, member), name="socket-resume")
        return []

    def _watch(self, topic: str, member: _Member) -> None:
        member.watcher = Watcher(self.who.tenant_id, topic, str(self.who.account_id), self.encode, self.deliver)
        self._do_now(self._connection.push(topic, "presence_state", self._shared.presence.join(member.watcher)))

    def _after(self, payload: Any) -> int | None:
        """The position from which a join goes on. Raises RequestRefused, PositionTokenInvalid."""
        given = payload.get("from") if isinstance(payload, dict) else None
        if given is None:
            return None
        if not isinstance(given, str):
            text = "The position is no text. Give back a position as it came."
            raise errors.RequestRefused(errors.MALFORMED, text, {"from": [text]})
        return asked.number(self._shared.parts, self.who, given)

    async def _resume(self, topic: str, member: _Member) -> None:
        try:
            await self._shared.feed.catch_up(member.listener, self.who.account_id)
            return
        except (psycopg.Error, positions.ViewBehind, positions.TooManyWaiters) as error:
            _log.warning("A channel's past could not be read, the client joins again: %s", str(error).strip())
        except Exception:  # noqa: BLE001  the edge of a supervised task
            _log.exception("A channel's past could not be told")
        if self._members.get(topic) is member:
            self._do_now(self._connection.break_channel(topic))

    def _leave(self, topic: str) -> None:
        member = self._members.pop(topic)
        self._shared.feed.leave(member.listener)
        if member.watcher is not None:
            self._shared.presence.leave(member.watcher)
        if member.resuming is not None:
            member.resuming.cancel()  # if the cancellation is lost, it finds that its listener has ended

    async def _handle(self, handle: Handle) -> list[Effect]:
        handler = events.HANDLERS.get((handle.topic.partition(":")[0], handle.event)) if _is_name(handle) else None
        if handler is None:
            return self._connection.failed()
        request = events.Request(self._shared.parts, self._shared.known, self.who, handle.payload, self._key(handle))
        try:
            status, response = await handler(request)
        except Exception:  # noqa: BLE001  one channel fails, the connection goes on
            _log.exception("The event %s failed", handle.event)
            return [] if self.closed else self._connection.failed()
        return [] if self.closed else self._connection.replied(status, response)

    def _key(self, handle: Handle) -> bytes | None:
        """What makes a push repeated on this connection the same command; None without a ref."""
        return None if handle.ref == frames.NULL else b"\0".join((self.id, handle.join_ref, handle.ref))


def _is_name(handle: Handle) -> bool:
    return isinstance(handle.event, str)


def _reason(error: Exception) -> str:
    """What a refused join is told: the name of the problem that HTTP would answer."""
    if isinstance(error, errors.RequestRefused):
        return error.kind.name
    return errors.MALFORMED.name if isinstance(error, ledger_errors.PositionTokenInvalid) else errors.UNAVAILABLE.name
