"""What all connections of one user may ask of a process together. Each socket keeps a pace of its own; two hundred of them would
have two hundred times as much, and could keep the process busy with nothing else."""

import time
from collections import OrderedDict
from typing import NamedTuple
from uuid import UUID

from api.feed.topics import TOPICS_MAX
from api.socket.protocol.pace import Pace

FRAMES_PER_S = 10
"""For each socket that a session may have: with 200 of them 2,000 a second, some 5 % of a core."""
EVENTS_PER_FRAME = 8
"""So many of the past, told again, cost what a frame costs that is answered: 4 µs each."""
USERS_MAX = 50_000
"""Whoever has been quiet for longest is forgotten first, and is as if never seen."""


class _User(NamedTuple):
    """Two paces: whoever is told much of the past is still answered."""

    frames: Pace
    past: Pace


class Together:
    """Touched by the event loop's thread only."""

    def __init__(self, sockets: int) -> None:
        """`sockets`: as many as a session may have. All of them may join all their topics at once."""
        self._per_s, self._at_once = float(FRAMES_PER_S * sockets), float(TOPICS_MAX * sockets)
        self._users: OrderedDict[UUID, _User] = OrderedDict()  # by account

    def frame(self, account_id: UUID, frame_bytes: int) -> float:
        """Seconds to wait before a frame of the user is looked at."""
        now_s = time.monotonic()
        return self._of(account_id, now_s).frames.take(now_s, frame_bytes)

    def past(self, account_id: UUID, events: int) -> float:
        """Seconds to wait before so many events are told again."""
        now_s = time.monotonic()
        return self._of(account_id, now_s).past.take(now_s, 0, events / EVENTS_PER_FRAME)

    def _of(self, account_id: UUID, now_s: float) -> _User:
        user = self._users.get(account_id)
        if user is not None:
            self._users.move_to_end(account_id)
            return user
        if len(self._users) >= USERS_MAX:
            self._users.popitem(last=False)
        frames, past = (Pace(now_s, self._per_s, self._at_once) for _ in range(2))
        user = self._users[account_id] = _User(frames, past)
        return user
