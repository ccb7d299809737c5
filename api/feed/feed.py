"""All tails of this process, and joining them.

No gap and no double: a listener goes live at the tail's position in one step of the event loop. What lies before it it is
sent from the past.
"""

import asyncio
from collections.abc import Iterator
from uuid import UUID

from api import errors
from api.feed.heads import Heads
from api.feed.lags import Lags
from api.feed.messages import Message
from api.feed.past import ERASED_S, STRETCH, Past
from api.feed.tail import BYTES_AT_ONCE, Listener, Sink, Tail
from api.feed.together import Together
from api.feed.topics import ADMIN_PROJECTIONS
from api.parts import Parts

BEHIND_MAX = 10_000
"""Whoever is further behind is faster with the queries."""
LISTENERS_MAX = 1_000_000
"""Of one process: 10,000 connections with 100 topics each. Connections have limits of their own."""


class Feed:
    """One an application. Closed by its shutdown."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._past = Past(parts)
        self._lags = Lags(parts, self._all)
        self._heads = Heads(parts, self._all)
        self._tails: dict[UUID, Tail] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._unsubscribe = parts.waker.subscribe(self._moved)
        self._unsubscribe_erasures = parts.ledger.keyring.subscribe(self._forget_person)
        self.listeners = 0
        self.together = Together(parts.sockets_per_session)

    @property
    def tails(self) -> int:
        return len(self._tails)

    @property
    def topics(self) -> int:
        """Topics with somebody live on them."""
        return sum(len(tail.index) for tail in self._tails.values())

    async def join(self, tenant_id: UUID, topics: tuple[str, ...], sink: Sink, after: int | None) -> Listener:
        """A listener from now on, or from after a position: then it is live only after `catch_up`. It MUST `leave`.

        Raises RequestRefused for a position beyond the end or too far back and past LISTENERS_MAX, and what psycopg
        raises.
        """
        if self._parts.stopping.is_set() or self.listeners >= LISTENERS_MAX:
            raise errors.RequestRefused(
                errors.UNAVAILABLE, "This process takes no more listeners. Try again in a second."
            )
        tail = self._tails.get(tenant_id)
        if tail is None or tail.task.done():
            tail = self._tails[tenant_id] = Tail(self._parts, tenant_id)
            self._heads.look()
        tail.users += 1
        try:
            await tail.started()
            if after is not None:
                await self._check(tenant_id, after, tail.position)
            listener = Listener(tail, topics, sink, tail.position if after is None else after)
            tail.listeners.add(listener)
            self.listeners += 1
        except BaseException:
            self._release(tail)
            raise
        if listener.position == tail.position:
            self._go_live(listener)
        if self._watch is None:
            self._watch = asyncio.create_task(self._end_when_stopping(), name="feed-stopping")
        return listener

    def leave(self, listener: Listener) -> None:
        """The tenant's last one ends the tail. Again changes nothing."""
        listener.end()
        tail = listener.tail
        if listener in tail.listeners:
            tail.listeners.remove(listener)
            self.listeners -= 1
            self._release(tail)

    async def catch_up(self, listener: Listener, account_id: UUID) -> None:
        """Deliver what it missed, as fast as it reads, until it is live. A listener that is live already is left alone.

        Whose account's connections are told much of the past, all together, waits between two stretches.

        Raises ViewBehind, TooManyWaiters and what psycopg raises.
        """
        tail = listener.tail
        if listener.ended or listener.live:
            return
        while not listener.ended and listener.position != tail.position:
            if listener.position > tail.position:  # it comes from a process whose tail is ahead of this one's
                if tail.ended:
                    return
                await tail.advanced()
            else:
                events = min(STRETCH, tail.position - listener.position)
                if (wait_s := self.together.past(account_id, events)) > 0.0:
                    await asyncio.sleep(wait_s)
                await self._deliver_stretch(listener)
        if not listener.ended:
            self._go_live(listener)

    async def close(self) -> None:
        """Ends all listeners and tails."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        self._unsubscribe_erasures()
        self._unsubscribe_erasures = lambda: None
        if self._watch is not None:
            self._watch.cancel()
        self._end_all()
        for tail in self._all():
            tail.close()
        tasks = [*self._ending, *(tail.task for tail in self._tails.values()), *([self._watch] if self._watch else [])]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._past.close()
        await self._lags.close()
        await self._heads.close()

    async def _deliver_stretch(self, listener: Listener) -> None:
        stretch = await self._past.after(listener.tail.tenant_id, listener.position, listener.tail.position)
        messages = iter(stretch.messages)
        is_more = True
        while is_more and not listener.ended:
            async with listener.tail.turn:
                await asyncio.sleep(0)
                is_more = _deliver_some(listener, messages)
            await listener.sink.drained()
        if not listener.ended:
            listener.passed(stretch.end)

    def _go_live(self, listener: Listener) -> None:
        listener.go_live()
        if ADMIN_PROJECTIONS in listener.topics:
            self._lags.look(listener.tail.tenant_id)

    def _all(self) -> list[Tail]:
        return list(self._tails.values())

    def _release(self, tail: Tail) -> None:
        tail.users -= 1
        if tail.users == 0:
            tail.close()
            if self._tails.get(tail.tenant_id) is tail:
                del self._tails[tail.tenant_id]
            self._ending.add(tail.task)
            tail.task.add_done_callback(self._ending.discard)

    async def _check(self, tenant_id: UUID, after: int, at: int) -> None:
        if at - after > BEHIND_MAX:
            raise errors.RequestRefused(
                errors.REFETCH,
                f"The feed goes back {BEHIND_MAX} events, and {at - after} were asked for. "
                "Fetch what the queries give, then listen from their X-Position.",
            )
        # A process whose tail is a little behind may be asked for what another one has sent already.
        if after > at and after > (await self._parts.ledger.head(tenant_id)).position:
            text = "The position lies beyond the end of the stream. Use an id of the feed as it was given."
            raise errors.RequestRefused(errors.MALFORMED, text, {"from": [text]})

    def _moved(self, tenant_id: UUID, position: int) -> None:
        tail = self._tails.get(tenant_id)
        if tail is not None:
            tail.wake.set()

    def _forget_person(self, tenant_id: UUID, subject_id: UUID) -> None:
        """Somebody was erased. Who is slow would be told of them later, and may never read: they come back, and are told anew."""
        self._end_waiting(tenant_id)
        asyncio.get_running_loop().call_later(ERASED_S, self._end_waiting, tenant_id)

    def _end_waiting(self, tenant_id: UUID) -> None:
        tail = self._tails.get(tenant_id)
        for listener in () if tail is None else tuple(tail.listeners):
            if listener.sink.waits:
                listener.sink.end()

    async def _end_when_stopping(self) -> None:
        await self._parts.stopping.wait()
        self._end_all()

    def _end_all(self) -> None:
        for tail in self._all():
            for listener in tuple(tail.listeners):
                listener.sink.end()


def _deliver_some(listener: Listener, messages: Iterator[Message]) -> bool:
    """BYTES_AT_ONCE of them, or a message more; whether others are left, perhaps."""
    sink, wanted, size = listener.sink, frozenset(listener.topics), 0
    for message in messages:
        if listener.ended:
            return False
        topic = next((each for each in message.topics if each in wanted), None)
        if topic is None or message.position <= listener.position:
            continue
        frame = message.frame(sink.encode, topic)
        sink.deliver(frame)
        listener.passed(message.position)
        size += len(frame.data)
        if size >= BYTES_AT_ONCE:
            return True
    return False
