"""What a stream has not been sent yet, bounded."""

import asyncio
from collections import deque

from api.feed.messages import NOWHERE, Encoding, Frame

QUEUED_MAX = 1_000
QUEUED_BYTES_MAX = 1024 * 1024
"""A client that is slower than this is let go, comes back and resumes; the others are not slowed."""
CHUNK_BYTES_MAX = 64 * 1024
REVOKED, SUSPENDED, EXPIRED = "session_revoked", "tenant_suspended", "token_expired"
"""Why a stream ends for good, as its last event says."""


class Queue:
    """The feed fills it, a connection empties it; both in the event loop's thread. A message comes once on all topics."""

    def __init__(self, encode: Encoding, after: int) -> None:
        self.encode = encode
        self.ended = asyncio.Event()
        self.reason: str | None = None  # why it has ended, where coming back as one is would be refused
        self.wake = asyncio.Event()  # something is queued, or it has ended
        self._room = asyncio.Event()
        self._room.set()
        self._last = after  # position of the last message
        self._frames: deque[bytes] = deque()
        self._bytes = 0

    def deliver(self, frame: Frame) -> None:
        """Queue it. Who has a full queue is ended."""
        if self.ended.is_set() or NOWHERE < frame.position <= self._last:
            return
        self._last = max(self._last, frame.position)
        self.put(frame.data)

    def put(self, data: bytes) -> None:
        """What is no message of the feed."""
        if len(self._frames) >= QUEUED_MAX or self._bytes + len(data) > QUEUED_BYTES_MAX:
            self.end()
            return
        self._frames.append(data)
        self._bytes += len(data)
        if len(self._frames) > QUEUED_MAX // 4 or self._bytes > QUEUED_BYTES_MAX // 4:
            self._room.clear()
        self.wake.set()

    @property
    def waits(self) -> bool:
        return bool(self._frames)

    def take(self) -> bytes:
        """What is queued, up to CHUNK_BYTES_MAX and a message; empty if nothing is."""
        chunk = bytearray()
        while self._frames and len(chunk) < CHUNK_BYTES_MAX:
            chunk += self._frames.popleft()
        self._bytes -= len(chunk)
        if not self._frames:
            self._room.set()
            if not self.ended.is_set():
                self.wake.clear()
        return bytes(chunk)

    def end(self, reason: str | None = None) -> None:
        """The connection is closed; the client comes back and resumes, but for a `reason`: then it is told that one."""
        self.reason = self.reason or reason
        self.ended.set()
        self.wake.set()
        self._room.set()

    async def drained(self) -> None:
        """Come back when it has been emptied, if it was filled to a quarter."""
        await self._room.wait()
