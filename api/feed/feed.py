"""One tail a tenant, from its first listener to its last; the listeners' queues.

No gap and no double: a listener joins at the tail's position p in one step of the event loop. What lies before p it is
sent from the ledger, what the tail reads after p goes into its queue.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from uuid import UUID

import psycopg

from api import errors
from api.feed import messages
from api.parts import Parts
from api.rights import Who
from projections import positions

POLL_S = 1.0
"""What no wake told is found after this."""
RETRY_S = 0.5
EVENTS_PER_READ = 500
BEHIND_MAX = 10_000
"""Whoever is further behind is faster with the queries."""
LISTENERS_MAX = 10_000
QUEUED_MAX = 1_000
QUEUED_BYTES_MAX = 1024 * 1024
"""A client that is slower than this is let go, comes back and resumes; the others are not slowed."""
CHUNK_BYTES_MAX = 64 * 1024
REVOKED, SUSPENDED, EXPIRED = "session_revoked", "tenant_suspended", "token_expired"
"""Why a stream ends for good, as its last event says."""

_log = logging.getLogger(__name__)


class Listener:
    """One client. The tail fills it, the connection empties it; both in the event loop's thread."""

    def __init__(self, who: Who, after: int, joined: int) -> None:
        self.who = who
        self.after = after  # what it has had
        self.joined = joined  # the tail's position when it came
        self.passed = max(after, joined)  # whatever is up to here was queued, or is not for it
        self.ended = asyncio.Event()
        self.reason: str | None = None  # why it has ended, where coming back as one is would be refused
        self.wake = asyncio.Event()  # something is queued, or it has ended
        self._queue: deque[bytes] = deque()
        self._bytes = 0

    def offer(self, message: messages.Message) -> None:
        """Queue it, if it is for this listener. One whose queue is full is ended."""
        if self.ended.is_set() or message.position <= self.after or not message.seen_by(self.who):
            return
        if len(self._queue) >= QUEUED_MAX or self._bytes + len(message.frame) > QUEUED_BYTES_MAX:
            self.end()
            return
        self._queue.append(message.frame)
        self._bytes += len(message.frame)
        self.wake.set()

    def take(self) -> bytes:
        """What is queued, up to CHUNK_BYTES_MAX and a message; empty if nothing is."""
        chunk = bytearray()
        while self._queue and len(chunk) < CHUNK_BYTES_MAX:
            chunk += self._queue.popleft()
        self._bytes -= len(chunk)
        if not self._queue and not self.ended.is_set():
            self.wake.clear()
        return bytes(chunk)

    def end(self, reason: str | None = None) -> None:
        """The connection is closed; the client comes back and resumes, but for a `reason`: then it is told that one."""
        self.reason = self.reason or reason
        self.ended.set()
        self.wake.set()


class _Tail:
    """Reads a tenant's stream for all its listeners of this process."""

    def __init__(self, parts: Parts, tenant_id: UUID) -> None:
        self._parts = parts
        self._tenant_id = tenant_id
        self.position = 0  # everything up to here has been offered
        self.users = 0  # listeners, and those that are about to be
        self.listeners: set[Listener] = set()
        self.wake = asyncio.Event()
        self._closing = False
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(), name=f"feed-{tenant_id}")

    async def started(self) -> None:
        """Raises what psycopg raises, and TenantUnknown."""
        await asyncio.shield(self._started)

    def close(self) -> None:
        """The task ends after what it is at."""
        self._closing = True
        self.wake.set()

    async def _run(self) -> None:
        try:
            self.position = (await self._parts.ledger.head(self._tenant_id)).position
        except Exception as error:  # noqa: BLE001  handed to whoever waits for the start
            self._started.set_exception(error)
            self._started.exception()  # if nobody waits any more, nobody has to hear of it
            return
        self._started.set_result(None)
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self.wake.wait()
            self.wake.clear()
            try:
                await self._advance()
            except (psycopg.Error, positions.ViewBehind, positions.TooManyWaiters) as error:
                _log.warning("The feed of tenant %s waits at %s: %s", self._tenant_id, self.position, error)
                await asyncio.sleep(RETRY_S)
                self.wake.set()  # to try again, not to wait for news
            except Exception:  # noqa: BLE001  the edge of a supervised task
                _log.exception("The feed of tenant %s failed at %s and is ended", self._tenant_id, self.position)
                for listener in self.listeners:
                    listener.end()
                return

    async def _advance(self) -> None:
        while not self._closing:
            entries = await self._parts.ledger.entries(self._tenant_id, self.position, EVENTS_PER_READ)
            if not entries:
                return
            told = await messages.of(self._parts, self._tenant_id, entries)
            # In one step of the event loop: whoever joins finds the position and the queues in accord.
            self.position = entries[-1].position
            for listener in self.listeners:
                for message in told:
                    listener.offer(message)
                listener.passed = max(listener.passed, self.position)


class Feed:
    """One an application. Closed by its shutdown."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._tails: dict[UUID, _Tail] = {}
        self._ends: dict[Listener, Callable[[], None]] = {}  # the subscriptions to the ends of their sessions
        self._ending: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._unsubscribe = parts.waker.subscribe(self._moved)

    @property
    def listeners(self) -> int:
        return sum(len(tail.listeners) for tail in self._tails.values())

    @property
    def tails(self) -> int:
        return len(self._tails)

    async def join(self, who: Who, after: int | None) -> Listener:
        """A listener from now on, or from after a position. It MUST `leave`.

        Raises RequestRefused for a position beyond the end or too far back and past LISTENERS_MAX, and what psycopg
        raises.
        """
        if self._parts.stopping.is_set() or self.listeners >= LISTENERS_MAX:
            raise errors.RequestRefused(
                errors.UNAVAILABLE, "This process takes no more listeners. Try again in a second."
            )
        tail = self._tails.get(who.tenant_id)
        if tail is None or tail.task.done():
            tail = self._tails[who.tenant_id] = _Tail(self._parts, who.tenant_id)
        tail.users += 1
        try:
            await tail.started()
            if after is not None:
                await self._check(who.tenant_id, after, tail.position)
            listener = Listener(who, tail.position if after is None else after, tail.position)
            self._ends[listener] = self._parts.ledger.revocations.on_end(
                who.tenant_id, who.session_id, lambda suspended: listener.end(SUSPENDED if suspended else REVOKED)
            )
            tail.listeners.add(listener)
        except BaseException:
            self._release(who.tenant_id, tail)
            raise
        if self._watch is None:
            self._watch = asyncio.create_task(self._end_when_stopping(), name="feed-stopping")
        return listener

    def leave(self, listener: Listener) -> None:
        """The tenant's last one ends the tail."""
        self._ends.pop(listener, lambda: None)()
        tail = next((tail for tail in self._all() if listener in tail.listeners), None)
        if tail is not None:
            tail.listeners.remove(listener)
            self._release(listener.who.tenant_id, tail)

    async def missed(self, listener: Listener) -> AsyncGenerator[bytes, None]:
        """What lies between what the listener has had and where it joined, as the ledger has it.

        Raises ViewBehind, TooManyWaiters and what psycopg raises.
        """
        position, tenant_id = listener.after, listener.who.tenant_id
        while position < listener.joined and not listener.ended.is_set():
            limit = min(EVENTS_PER_READ, listener.joined - position)
            entries = await self._parts.ledger.entries(tenant_id, position, limit)
            told = await messages.of(self._parts, tenant_id, entries)
            yield b"".join([message.frame for message in told if message.seen_by(listener.who)])
            position = entries[-1].position

    async def close(self) -> None:
        """Ends all listeners and tails."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        if self._watch is not None:
            self._watch.cancel()
        for tail in self._all():
            for listener in tail.listeners:
                listener.end()
            tail.close()
        tasks = [*self._ending, *(tail.task for tail in self._tails.values()), *([self._watch] if self._watch else [])]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _all(self) -> list[_Tail]:
        return list(self._tails.values())

    def _release(self, tenant_id: UUID, tail: _Tail) -> None:
        tail.users -= 1
        if tail.users == 0:
            tail.close()
            if self._tails.get(tenant_id) is tail:
                del self._tails[tenant_id]
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

    async def _end_when_stopping(self) -> None:
        await self._parts.stopping.wait()
        for tail in self._all():
            for listener in tail.listeners:
                listener.end()
