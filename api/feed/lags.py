"""What is told on `admin:projections`: how far the tenant's views are, whenever that has changed. It has no past."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from uuid import UUID

import msgspec
import psycopg

from api import projections
from api.feed import topics
from api.feed.messages import NOWHERE, Message
from api.feed.tail import Tail
from api.parts import Parts
from projections import catalogue, cross_tenant

LOOK_S = 1.0

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_NAMES = [view.name for view in catalogue.VIEWS]


class Lags:
    """Looks while somebody listens, once a second and tenant however many they are. Touched by the event loop's thread only."""

    def __init__(self, parts: Parts, tails: Callable[[], Iterable[Tail]]) -> None:
        self._parts = parts
        self._tails = tails
        self._told: dict[UUID, dict[str, bytes]] = {}  # by tenant and view
        self._task: asyncio.Task[None] | None = None

    def look(self, tenant_id: UUID) -> None:
        """Somebody of the tenant listens from now on: begin, unless it has begun, and tell how far the views are in any case."""
        self._told.pop(tenant_id, None)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="feed-lags")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while listened := [tail for tail in self._tails() if tail.index.has(topics.ADMIN_PROJECTIONS)]:
            self._told = {tail.tenant_id: self._told.get(tail.tenant_id, {}) for tail in listened}
            for tail in listened:
                try:
                    await self._tell(tail)
                except psycopg.Error as error:
                    _log.warning("How far views are could not be read, trying again: %s", str(error).strip())
            await asyncio.sleep(LOOK_S)
        self._told = {}

    async def _tell(self, tail: Tail) -> None:
        async with self._parts.pool.connection() as connection:
            lags = await cross_tenant.lag_of_tenant(connection, tail.tenant_id, _NAMES)
        told = self._told.setdefault(tail.tenant_id, {})
        for lag in lags:
            shown = projections.of_lag(lag, self._parts.tokens.token(tail.tenant_id, lag.position))
            data = _encode(shown)
            if told.get(lag.view) != data:
                told[lag.view] = data
                tail.index.tell(Message(NOWHERE, "", "projection", (topics.ADMIN_PROJECTIONS,), data))
