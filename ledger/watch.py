"""Looks, again and again, at what another process may have changed and this one must know soon: on one connection, every LOOK_S."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import errors

LOOK_S = 0.5
"""Four looks fit into the 2 s after which nobody believes in what was seen, so that one may be late or lost."""
ANSWER_S_MAX = 2.0

Connection = AsyncConnection[TupleRow]
Connect = Callable[[], Awaitable[Connection]]

_log = logging.getLogger(__name__)


class Watched(Protocol):
    """What must be known soon."""

    async def look(self, connection: Connection) -> None:
        """Learns what changed since the last look. Raises psycopg.Error, LedgerError."""

    def lost(self) -> None:
        """The connection is gone; some looks will be missing."""


class Watch:
    """Lives from `start` to `close`. `connect` gives connections of the projector's role in autocommit."""

    def __init__(self, connect: Connect, *watched: Watched) -> None:
        self._connect = connect
        self._watched = watched
        self._first: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when all of them have looked once. Raises psycopg.OperationalError, LedgerError."""
        connection = await self._connect()
        try:
            await self._look(connection)
        except BaseException:
            await connection.close()
            raise
        self._first = connection
        self._task = asyncio.create_task(self._run(connection), name="watch")

    async def close(self) -> None:
        if self._task is not None and self._first is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._first.close()  # of a task that was cancelled before its first step

    async def _look(self, connection: Connection) -> None:
        for each in self._watched:
            await each.look(connection)

    async def _run(self, connection: Connection) -> None:
        while True:
            try:
                async with connection:
                    while True:
                        async with asyncio.timeout(ANSWER_S_MAX):
                            await self._look(connection)
                        await asyncio.sleep(LOOK_S)
            except (psycopg.Error, TimeoutError, errors.LedgerError) as error:
                _log.warning("What other processes changed cannot be read, trying again: %s", str(error).strip())
            except Exception:  # noqa: BLE001  the edge of a supervised task
                _log.exception("What other processes changed could not be taken in, trying again")
            for each in self._watched:
                each.lost()
            await asyncio.sleep(LOOK_S)
            try:  # in vain, the closed connection ends the next look at once
                async with asyncio.timeout(ANSWER_S_MAX):
                    connection = await self._connect()
            except (psycopg.OperationalError, TimeoutError):
                pass
            except Exception:  # noqa: BLE001  the edge of a supervised task
                _log.exception("What other processes changed cannot be asked for, trying again")
