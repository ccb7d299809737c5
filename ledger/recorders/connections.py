"""Synchronous connections of the app role, and the package's exceptions instead of psycopg's."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from eventsourcing import persistence
from psycopg import Connection, conninfo, pq
from psycopg import errors as pg
from psycopg.rows import TupleRow

from ledger import appender, arrays, lane

CONNECTIONS_MAX = 10
"""Of one factory. More writers of one stream would only wait for each other at its head."""
CONNECTION_WAIT_S = 30.0
"""How long a thread waits for a connection that other threads hold."""
CONNECT_TIMEOUT_S = 10

T = TypeVar("T")
Work = Callable[[Connection[TupleRow]], T]

_log = logging.getLogger(__name__)

_THEIRS: tuple[tuple[type[psycopg.Error], type[persistence.PersistenceError]], ...] = (
    (psycopg.InterfaceError, persistence.InterfaceError),
    (psycopg.OperationalError, persistence.OperationalError),
    (psycopg.DataError, persistence.DataError),
    (psycopg.IntegrityError, persistence.IntegrityError),
    (psycopg.InternalError, persistence.InternalError),
    (psycopg.ProgrammingError, persistence.ProgrammingError),
    (psycopg.NotSupportedError, persistence.NotSupportedError),
    (psycopg.DatabaseError, persistence.DatabaseError),
    (psycopg.Error, persistence.PersistenceError),
)


def parameters(url: str) -> dict[str, Any]:
    """What to connect with: `url` is the login role's, which becomes the app role at connecting.

    Raises psycopg.ProgrammingError for what is no URL.
    """
    found = conninfo.conninfo_to_dict(url)
    role = f"-c role=bitnexus_app -c timezone=UTC -c lock_timeout={appender.LOCK_TIMEOUT_MS}"
    options = f"{found.pop('options', None) or ''} {role}".strip()
    found.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    return {**found, "options": options, "client_encoding": "UTF8", "application_name": "bitnexus recorders"}


class Connections:
    """Of one factory, made when they are needed. All threads may use it; each has a connection to itself meanwhile."""

    def __init__(self, url: str) -> None:
        """Connects later. Raises psycopg.ProgrammingError for what is no URL."""
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._lock = threading.Lock()  # for what follows
        self._idle: list[Connection[TupleRow]] = []
        self._has_connected = False
        self._closed = False
        self._parameters = parameters(url)

    def run(self, work: Work[T]) -> T:
        """What `work` gives back. Raises the package's exceptions.

        When the database went away, `work` is done again from its start, for at most 30 s: it must come to the same if the
        first time was committed. Before the first connection stands nothing is tried again: then a setting is wrong.
        """
        deadline = time.monotonic() + lane.RECOVERY_S_MAX
        pause_s = lane.RETRY_S_MIN
        while True:
            try:
                with self._borrowed() as connection:
                    return work(connection)
            except (pg.LockNotAvailable, pg.DeadlockDetected, pg.QueryCanceled) as error:
                raise persistence.OperationalError(str(error)) from error
            except psycopg.OperationalError as error:
                if not self._has_connected or time.monotonic() + pause_s > deadline:
                    raise persistence.OperationalError(str(error)) from error
                _log.warning("The database did not answer a recorder, which tries again: %s", str(error).strip())
                self._drop_idle()  # their server is gone too, most likely
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, lane.RETRY_S_MAX)
            except psycopg.Error as error:
                raise translated(error) from error

    def close(self) -> None:
        """Lets idle connections go at once, the others when they are given back."""
        with self._lock:
            self._closed = True
        self._drop_idle()

    @contextmanager
    def _borrowed(self) -> Iterator[Connection[TupleRow]]:
        if not self._slots.acquire(timeout=CONNECTION_WAIT_S):
            raise persistence.OperationalError(
                f"All {CONNECTIONS_MAX} connections were in use for {CONNECTION_WAIT_S:.0f} s. Use fewer threads."
            )
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._slots.release()

    def _take(self) -> Connection[TupleRow]:
        with self._lock:
            if self._closed:
                raise persistence.InterfaceError("The application was closed. Make a new one.")
            if self._idle:
                return self._idle.pop()
        connection = psycopg.connect(autocommit=True, **self._parameters)
        arrays.register(connection.adapters)
        self._has_connected = True
        return connection

    def _give_back(self, connection: Connection[TupleRow]) -> None:
        with self._lock:
            if not self._closed and connection.info.transaction_status == pq.TransactionStatus.IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __del__(self) -> None:
        self.close()  # the package's applications are often just forgotten


def translated(error: psycopg.Error) -> persistence.PersistenceError:
    """The package's exception for one of psycopg."""
    return next(theirs for ours, theirs in _THEIRS if isinstance(error, ours))(str(error))
