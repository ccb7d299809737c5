"""A tenant's tail: reads its stream for all its listeners of this process, from the first to the last."""

import asyncio
import logging
from typing import Protocol
from uuid import UUID

import psycopg

from api.feed import messages
from api.feed.messages import Encoding, Frame, Message
from api.parts import Parts
from projections import positions

RETRY_S = 0.5
EVENTS_PER_READ = 500
BYTES_AT_ONCE = 64 * 1024
DELIVERIES_AT_ONCE = 2_000
"""Then the event loop has its turn: buffers are written out, and nobody waits long. 2,000 take a few milliseconds."""

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """A client's end: what it is sent waits in a bounded buffer. Called in the event loop's thread, never awaited."""

    encode: Encoding

    def deliver(self, frame: Frame) -> None:
        """Must be quick and must not raise; a client too slow for its buffer is let go."""

    @property
    def waits(self) -> bool:
        """Whether anything that was delivered may not have been taken yet."""

    def end(self) -> None:
        """Nothing comes any more, and what waits goes with the client, who has to come back."""

    async def drained(self) -> None:
        """Come back when there is room for BYTES_AT_ONCE more, or when it has ended."""


class Listener:
    """What one client wants of one tenant."""

    __slots__ = ("_live", "_position", "ended", "sink", "tail", "topics")

    def __init__(self, tail: "Tail", topics: tuple[str, ...], sink: Sink, position: int) -> None:
        self.tail = tail
        self.topics = topics
        self.sink = sink
        self.ended = False
        self._position = position
        self._live = False

    @property
    def position(self) -> int:
        """Whatever is up to here has been delivered, or is not for it."""
        return self.tail.position if self._live else self._position

    @property
    def live(self) -> bool:
        """Whether the tail delivers to it."""
        return self._live

    def passed(self, position: int) -> None:
        """Before it is live: it has had everything up to here."""
        self._position = position

    def go_live(self) -> None:
        """In the same step of the event loop in which its position was found to be the tail's."""
        assert self._position == self.tail.position
        assert not self._live
        self._live = True
        self.tail.index.add(self)

    def end(self) -> None:
        """It gets nothing any more. Again changes nothing."""
        if self._live:
            self._position, self._live = self.tail.position, False
            self.tail.index.remove(self)
        self.ended = True


class Index:
    """Who is told what: sinks by topic and encoding, so that a frame is encoded once for all of them."""

    def __init__(self) -> None:
        self._sinks: dict[str, dict[Encoding, dict[Sink, None]]] = {}

    def __len__(self) -> int:
        """Topics that somebody listens to."""
        return len(self._sinks)

    def has(self, topic: str) -> bool:
        return topic in self._sinks

    def add(self, listener: Listener) -> None:
        for topic in listener.topics:
            self._sinks.setdefault(topic, {}).setdefault(listener.sink.encode, {})[listener.sink] = None

    def remove(self, listener: Listener) -> None:
        encode = listener.sink.encode
        for topic in listener.topics:
            by_encoding = self._sinks[topic]
            del by_encoding[encode][listener.sink]
            if not by_encoding[encode]:
                del by_encoding[encode]
            if not by_encoding:
                del self._sinks[topic]

    def tell(self, message: Message) -> tuple[int, int]:
        """Deliveries, and the bytes of the frames, each counted once."""
        deliveries = size = 0
        for topic in message.topics:
            for encode, sinks in tuple(self._sinks.get(topic, {}).items()):
                frame = message.frame(encode, topic)
                for sink in tuple(sinks):  # a delivery may end one
                    sink.deliver(frame)
                deliveries += len(sinks)
                size += len(frame.data)
        return deliveries, size


class Tail:
    """Made by the first listener of a tenant, closed by the last."""

    def __init__(self, parts: Parts, tenant_id: UUID) -> None:
        self._parts = parts
        self.tenant_id = tenant_id
        self.position = 0  # everything up to here has been told
        self.users = 0  # listeners, and those that are about to be; counted by the feed
        self.listeners: set[Listener] = set()
        self.index = Index()
        self.wake = asyncio.Event()  # the stream has moved, perhaps
        # Of those that are told the past: one a turn of the event loop, or all others would wait.
        self.turn = asyncio.Lock()
        self.ended = False  # its position moves no more
        self._closing = False
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = loop.create_future()
        self._advanced: asyncio.Future[None] = loop.create_future()
        self.task = asyncio.create_task(self._run(), name=f"feed-{tenant_id}")

    async def started(self) -> None:
        """Raises what the first look at the stream raised."""
        await asyncio.shield(self._started)

    async def advanced(self) -> None:
        """Come back when the position has moved, or when it never will again."""
        await asyncio.shield(self._advanced)

    def close(self) -> None:
        """The task ends after what it is at."""
        self._closing = True
        self.wake.set()

    async def _run(self) -> None:
        try:
            self.position = (await self._parts.ledger.head(self.tenant_id)).position
        except Exception as error:  # noqa: BLE001  handed to whoever waits for the start
            self._started.set_exception(error)
            self._started.exception()  # if nobody waits any more, nobody has to hear of it
            return
        self._started.set_result(None)
        try:
            await self._follow()
        finally:
            self.ended = True
            self._advanced.set_result(None)

    async def _follow(self) -> None:
        while not self._closing:
            await self.wake.wait()
            self.wake.clear()
            try:
                await self._advance()
            except (psycopg.Error, positions.ViewBehind, positions.TooManyWaiters) as error:
                _log.warning("The feed of tenant %s waits at %s: %s", self.tenant_id, self.position, error)
                await asyncio.sleep(RETRY_S)
                self.wake.set()  # to try again, not to wait for news
            except Exception:  # noqa: BLE001  the edge of a supervised task
                _log.exception("The feed of tenant %s failed at %s and is ended", self.tenant_id, self.position)
                for listener in tuple(self.listeners):
                    listener.sink.end()
                return

    async def _advance(self) -> None:
        while not self._closing:
            entries = await self._parts.ledger.entries(self.tenant_id, self.position, EVENTS_PER_READ)
            if not entries:
                return
            await self._tell(await messages.of(self._parts, self.tenant_id, entries))
            self._move(entries[-1].position)

    async def _tell(self, told: list[Message]) -> None:
        deliveries = size = 0
        for message in told:
            more, bytes_more = self.index.tell(message)
            # In one step of the event loop: whoever joins finds the position and the deliveries in accord.
            self._move(message.position)
            deliveries, size = deliveries + more, size + bytes_more
            if deliveries >= DELIVERIES_AT_ONCE or size >= BYTES_AT_ONCE:
                deliveries = size = 0
                await asyncio.sleep(0)

    def _move(self, position: int) -> None:
        if position > self.position:
            self.position = position
            self._advanced.set_result(None)
            self._advanced = asyncio.get_running_loop().create_future()
