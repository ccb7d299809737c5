"""How many frames a connection may send: a bucket that fills with time."""

FRAMES_PER_S = 200
"""A page sends a heartbeat each 30 s and now and then a command; more than this is a loop gone wild."""
FRAMES_AT_ONCE = 1_000
"""After a reconnection all 100 topics are joined at once, and buffered pushes follow."""
BYTES_PER_FRAME = 4_096
"""A frame of n times this counts as 1 + n: reading JSON costs its bytes."""


class Pace:
    """`now` is of a clock that never goes back, in seconds."""

    __slots__ = ("_at", "_at_once", "_left", "_per_s")

    def __init__(self, now: float, per_s: float | None = None, at_once: float | None = None) -> None:
        """None: a connection's."""
        self._per_s = float(FRAMES_PER_S) if per_s is None else per_s
        self._left = self._at_once = float(FRAMES_AT_ONCE) if at_once is None else at_once
        self._at = now

    def take(self, now: float, frame_bytes: int, frames: float = 1.0) -> float:
        """Seconds to wait before this frame is looked at; 0.0 as long as the client keeps the pace."""
        filled = min(self._at_once, self._left + (now - self._at) * self._per_s)
        self._left = filled - frames - frame_bytes / BYTES_PER_FRAME
        self._at = now
        return 0.0 if self._left >= 0.0 else -self._left / self._per_s
