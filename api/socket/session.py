"""A session of long polling: what a WebSocket is to other clients. It lives in one process."""

import asyncio
import base64
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

from api.socket.client import Client
from api.socket.protocol import frames, pace
from api.socket.wire import WAITING_BYTES_MAX, WAITING_FRAMES_MAX

POLL_S = 10.0
"""How long a poll waits for something to tell. Clients wait 20 s."""
HANDLE_S = 10.0
"""How long a request waits for its frames to be handled."""
SILENT_S = 30.0
"""Without a poll the client is gone."""
ROOM_BYTES = 64 * 1024
UNHANDLED_FRAMES_MAX = 2_000
UNHANDLED_BYTES_MAX = 2 * 1024 * 1024
"""Of requests that wait for those before them, and the one that is being handled: it, and one more of the longest there is. Old
clients send a request for each frame without waiting for the last one's answer."""
FRAMES_AT_ONCE = 100
"""Then the event loop has its turn."""


class Told(NamedTuple):
    """What a poll or a sending is answered. `status` 410: there is no such session (any more)."""

    status: int
    messages: Sequence[str] = ()


DEAD = Told(410)


class Session:
    """The line of one client. Touched by the event loop's thread only."""

    client: Client  # set by whoever makes both, once

    def __init__(self, ended: Callable[["Session"], None]) -> None:
        self.id = secrets.token_bytes(16)
        self._ended = ended
        self._waiting: list[str] = []
        self._bytes = 0
        self._wake = asyncio.Event()  # something waits, or the session has ended, or another poll took over
        self._room = asyncio.Event()
        self._room.set()
        self._polls = 0
        self._handling = asyncio.Lock()
        self._unhandled_frames = self._unhandled_bytes = 0
        self._dead = False
        self._loop = asyncio.get_running_loop()
        self._pace = pace.Pace(self._loop.time())
        self._timer = self._loop.call_later(SILENT_S, self.end)

    # As the client's line

    @property
    def silent_s(self) -> float:
        """Its own timer ends it sooner than a connection's silence would."""
        return 0.0

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    def tell(self, frame: frames.Frame) -> bool:
        """A binary frame as base64: clients of long polling have no use for it."""
        return self.write(frame.data if frame.is_text else base64.b64encode(frame.data))

    def write(self, data: bytes) -> bool:
        if self._dead:
            return True
        if len(self._waiting) >= WAITING_FRAMES_MAX or self._bytes + len(data) > WAITING_BYTES_MAX:
            return False
        self._waiting.append(data.decode())
        self._bytes += len(data)
        if self._bytes > ROOM_BYTES:
            self._room.clear()
        self._wake.set()
        return True

    def hang_up(self, code: int, reason: str) -> None:
        self.end()

    async def drained(self) -> None:
        await self._room.wait()

    # As requests see it

    async def poll(self) -> Told:
        """What waits, or what comes within POLL_S. A poll that is under way ends with nothing when another one comes."""
        if self._dead:
            return DEAD
        if (wait_s := self._wait_s(0)) > 0.0:  # nothing else limits polls
            await asyncio.sleep(min(wait_s, POLL_S))
            if self._ended_meanwhile():
                return DEAD
        self._timer.cancel()
        self._polls += 1
        mine = self._polls
        if not self._waiting:
            self._wake.set()  # to an older poll
            self._wake = wake = asyncio.Event()
            try:
                async with asyncio.timeout(POLL_S):
                    await wake.wait()
            except TimeoutError:
                pass
            finally:
                if mine == self._polls and not self._ended_meanwhile():
                    self._timer = self._loop.call_later(SILENT_S, self.end)
            if self._ended_meanwhile():
                return DEAD
            if mine != self._polls:
                return Told(204)
        else:
            self._timer = self._loop.call_later(SILENT_S, self.end)
        messages, self._waiting, self._bytes = self._waiting, [], 0
        self._room.set()
        return Told(200, messages) if messages else Told(204)

    async def take(self, received: Sequence[str | bytes]) -> Told:
        """Handles frames in order, no faster than a WebSocket's. 408 if they are too many, or take too long, or if one broke the
        protocol; after each of these the client gives the session up, so it ends, and nothing is done behind its back."""
        if self._dead:
            return DEAD
        size = sum(map(len, received))
        self._unhandled_frames += len(received)
        self._unhandled_bytes += size
        try:
            if self._unhandled_frames > UNHANDLED_FRAMES_MAX or self._unhandled_bytes > UNHANDLED_BYTES_MAX:
                self.end()
                return Told(408)
            handling = asyncio.create_task(self._take(received), name="longpoll-handle")
            done, _ = await asyncio.wait([handling], timeout=HANDLE_S)
            if not done:
                self.end()
                return Told(408)
            handling.result()
            return Told(408 if self._dead else 200)
        finally:
            self._unhandled_frames -= len(received)
            self._unhandled_bytes -= size

    async def _take(self, received: Sequence[str | bytes]) -> None:
        async with self._handling:
            for n, data in enumerate(received, start=1):
                if (wait_s := self._wait_s(len(data))) > 0.0:
                    await asyncio.sleep(wait_s)
                if self._dead:
                    return
                await self.client.receive(data)
                if n % FRAMES_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _wait_s(self, frame_bytes: int) -> float:
        return max(self._pace.take(self._loop.time(), frame_bytes), self.client.wait_s(frame_bytes))

    def _ended_meanwhile(self) -> bool:
        return self._dead

    def end(self) -> None:
        """Again changes nothing."""
        if not self._dead:
            self._dead = True
            self._waiting, self._bytes = [], 0
            self._timer.cancel()
            self._wake.set()
            self._room.set()
            self._ended(self)
