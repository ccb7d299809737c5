"""Keeps the embedded PostgreSQL running while this process serves: one that died is started again, with pauses that grow.

In a thread: a start waits for locks and for the recovery, and the parent of workers has no loop to spare for that. Nothing is lost
meanwhile: what was committed is recovered, and appenders send again what has no answer (ledger/lane.py).
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bitnexus import stopping
from bitnexus.embedded import Embedded, errors

LOOK_S = 0.25
"""Between two looks: a lock on a file, tried in microseconds."""
PAUSE_S_MIN, PAUSE_S_MAX = 0.25, 10.0
LIVED_S = 30.0
"""A server that lived as long may be started again without a pause."""

_log = logging.getLogger(__name__)


@contextmanager
def running(embedded: Embedded) -> Iterator[None]:
    """While it is open nobody else touches `embedded`. Its end waits for a start that is under way."""
    keeper = _Keeper(embedded)
    keeper.thread.start()
    try:
        yield
    finally:
        keeper.stopping.set()
        keeper.thread.join()


class _Keeper:
    """`stopping` is set by whoever made it; all else is the thread's."""

    def __init__(self, embedded: Embedded) -> None:
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="embedded-postgresql", daemon=True)
        self._embedded = embedded
        self._started_at = time.monotonic()
        self._pause_s = 0.0

    def _run(self) -> None:
        # A stop gives them their default for a moment, and blocks them in its own thread only.
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
        while not self.stopping.wait(LOOK_S):
            try:
                if self._embedded.is_gone():
                    self._restart()
            except Exception:  # noqa: BLE001  the thread's edge: without it nobody would look any more
                _log.exception("The embedded PostgreSQL could not be looked after, tried again in %.0f s", PAUSE_S_MAX)
                self.stopping.wait(PAUSE_S_MAX)

    def _restart(self) -> None:
        if time.monotonic() - self._started_at > LIVED_S:
            self._pause_s = 0.0
        _log.error("The embedded PostgreSQL is gone, it is started again in %.2f s", self._pause_s)
        if self.stopping.wait(self._pause_s):
            return
        self._pause_s = min(max(self._pause_s * 2, PAUSE_S_MIN), PAUSE_S_MAX)
        begun_at = time.monotonic()
        try:
            self._embedded.start()
        except errors.EmbeddedError as error:
            _log.error("The embedded PostgreSQL does not start: %s", error)
        else:
            _log.warning("The embedded PostgreSQL runs again after %.2f s", time.monotonic() - begun_at)
        self._started_at = time.monotonic()
