"""Locks on files of the data directory. A lock ends with the last process that has its descriptor, however it ends.

- start.lock: one process, exclusively, while it makes, starts or stops the server. initdb inherits it, so that nobody
  deletes its work under it when the process that started it is killed.
- users.lock: every process that uses the server, shared, while it does; who gets it exclusively is the last one.
- server.lock: the server's own processes, by inheritance, while any of them lives, also the orphans of a killed
  postmaster. So no process id has to be believed.

Order: start.lock first, the others only under it.
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.05
TELL_S = 2.0  # a wait that is shorter needs no word


class Lock:
    """An open lock file, not locked yet. Close-on-exec; a process forked by us shares it, so workers are spawned, or
    forked by a parent that stays."""

    def __init__(self, path: Path, owner: tuple[int, int] | None) -> None:
        """`owner`: user and group that the file is given to. Raises OSError."""
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if owner is not None:
            os.fchown(self.descriptor, *owner)

    def take(self, *, shared: bool = False) -> bool:
        """Whether it was to be had at once. A shared lock that cannot be made exclusive may be lost by trying."""
        try:
            fcntl.flock(self.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait(self, status: Callable[[str], None], reason: str) -> None:
        """Until it is had exclusively, without limit: who holds it may be recovering a database."""
        waiting = Waiting(status)
        while not self.take():
            waiting.a_moment(lambda: reason)

    def release(self) -> None:
        """Unlocks for every process that shares the descriptor."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Unlocks unless another process has inherited the descriptor. Closing twice is nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Waiting:
    """Sleeps a little at a time and says every TELL_S why."""

    def __init__(self, status: Callable[[str], None]) -> None:
        self.status = status
        self.began = self.told = time.monotonic()

    def a_moment(self, reason: Callable[[], str]) -> None:
        time.sleep(POLL_S)
        now = time.monotonic()
        if now - self.told >= TELL_S:
            self.told = now
            self.status(f"{reason()} ({now - self.began:.0f} s)")
