"""Fill a view anew beside the rows that are read, then compare the two and read the new one.

A new generation is filled from position 1 in batches of its own, and never goes past the active one. Once it is close, both
are held for a moment, it gets the rest, and from then on both are fed in the same transactions. Then they are compared, and
unless only that was asked for, switched.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from eventsourcing.utils import get_topic
from psycopg.types.json import Jsonb

from domain.privacy import Erasure
from projections import batches, columns, comparison, failures, generations, parking, positions, stream, switching
from projections.rebuild import Job
from projections.view import View

BATCH_EVENTS = 200
"""Some 3 ms of a core, and as long one of the database's: whoever sells meanwhile has a turn in between."""
JOIN_EVENTS_MAX = 200
"""What is left for the moment in which the feeding of the tenant's view is held: some 20 ms."""
PAUSE_S_MAX = 5.0
"""Between two attempts at an event."""
ERASURES_S_MAX = 10.0
"""For the views to come to erasures that are recorded. It takes them milliseconds; longer, and they are behind or stand still."""
ERASURES_LOOK_S = 0.25

MOVE: LiteralString = """
UPDATE views.positions
SET position = %(to)s, moved_at = clock_timestamp(),
    rate = rate * exp(greatest(-extract(epoch FROM clock_timestamp() - moved_at)::float8 / %(fade_s)s, -50))
         + (%(to)s - %(after)s) / %(fade_s)s
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s AND state = 'filling' AND position = %(after)s
  AND EXISTS (SELECT FROM views.rebuilds r WHERE r.tenant_id = %(tenant)s AND r.view = %(view)s
              AND r.generation = %(generation)s AND r.token = %(token)s AND NOT r.paused)
RETURNING generation, version, state, position, fed, parked, stopped, failure
"""
HELD: LiteralString = """
SELECT FROM views.rebuilds WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
  AND token = %(token)s AND NOT paused AND finished_at IS NULL FOR UPDATE
"""
FINISH: LiteralString = """
UPDATE views.rebuilds SET finished_at = clock_timestamp(), holder = NULL, comparison = %(comparison)s
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
"""
FAIL: LiteralString = """
UPDATE views.rebuilds SET error = %(error)s, holder = NULL
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s AND token = %(token)s
"""
ERASURE_AHEAD: LiteralString = """
SELECT FROM ledger.events WHERE tenant_id = %(tenant)s AND position > %(position)s AND topic = %(topic)s LIMIT 1
"""
_ERASED = get_topic(Erasure.PersonErased)

_log = logging.getLogger(__name__)

Progress = Callable[[UUID, int, int], None]
"""Called with tenant, position and where it will end."""


class Lost(Exception):
    """Another process has the rebuild now, or it was paused or dropped."""

    def __init__(self, view: str, tenant_id: UUID) -> None:
        super().__init__(
            f"The rebuild of {view} of tenant {tenant_id} is no longer this process's. Look at its status."
        )


def _silent(tenant_id: UUID, position: int, end: int) -> None:
    pass


def rest_of(share_percent: int) -> float:
    """The `rest` of `work` with which it takes that much of the time (1–100)."""
    return 100 / share_percent - 1


async def work(
    connect: positions.Connect,
    source: stream.Source,
    view: View,
    job: Job,
    *,
    batch_events: int = BATCH_EVENTS,
    rest: float = 0.0,
    progress: Progress = _silent,
) -> comparison.Comparison | None:
    """Do it to its end; the comparison, or None if it stands still because of an event: `views.rebuilds.error` says which.

    `rest`: how many times as long as a batch takes nothing is done after it. Raises Lost, and what psycopg raises.
    """
    events = stream.Stream(source, connect, view.wanted)
    try:
        async with await connect() as connection:
            columns.register(connection.adapters)
            filler = _Filler(connection, events, view, job, batch_events)
            if not await filler.fill(rest, progress):
                return None
            return await _end(connection, view, job)
    finally:
        await events.close()


async def _end(connection: generations.Connection, view: View, job: Job) -> comparison.Comparison:
    compared = await _compared(connection, view, job.tenant_id)
    values = {**_key(job), "comparison": Jsonb(msgspec.to_builtins(compared))}
    async with connection.transaction():
        if await (await connection.execute(HELD, _key(job))).fetchone() is None:
            raise Lost(view.name, job.tenant_id)  # whoever has it now switches, or has switched
        if not job.compare_only:
            await switching.switch(connection, view, job.tenant_id, back=False)
        await connection.execute(FINISH, values)
    return compared


async def _compared(connection: generations.Connection, view: View, tenant_id: UUID) -> comparison.Comparison:
    """Of a person whose erasure the views have yet to come to, the old rows still tell what the new ones were made without: that
    is no difference, and is gone as soon as they have come to it."""
    compared = await comparison.compare(connection, view, tenant_id)
    until = time.monotonic() + ERASURES_S_MAX
    while not compared.equal and time.monotonic() < until:
        values = {"tenant": tenant_id, "position": compared.position, "topic": _ERASED}
        if await (await connection.execute(ERASURE_AHEAD, values)).fetchone() is None:
            break
        await asyncio.sleep(ERASURES_LOOK_S)
        compared = await comparison.compare(connection, view, tenant_id)
    return compared


def _key(job: Job) -> dict[str, Any]:
    return {"tenant": job.tenant_id, "view": job.view, "generation": job.generation, "token": job.token}


class _Elsewhere(Exception):
    """The last batch of whoever had the rebuild before came to its end meanwhile: from where it left off."""


class _Filler:
    """From where the generation is to where the active one is."""

    def __init__(
        self, connection: generations.Connection, events: stream.Stream, view: View, job: Job, batch_events: int
    ) -> None:
        self._connection = connection
        self._stream = events
        self._view = view
        self._job = job
        self._batch_events = batch_events
        self._limit = batch_events
        self._until = 0  # a batch failed: in steps of _limit up to here, until the event stands alone
        self._attempts = 0

    async def fill(self, rest: float, progress: Progress) -> bool:
        """True once both are fed together. False: an event is in the way."""
        while True:
            begun = time.monotonic()
            found = await generations.all_of(self._connection, self._view.name, self._job.tenant_id)
            own = next((each for each in found if each.generation == self._job.generation), None)
            active = generations.active(found)
            if own is None or active is None:
                raise Lost(self._view.name, self._job.tenant_id)
            progress(self._job.tenant_id, own.position, active.position)
            if own.state == "ready":
                return True
            if active.position - own.position <= JOIN_EVENTS_MAX and self._until <= own.position:
                if await self._join():
                    continue
            elif not await self._step(own.position, active.position):
                return False
            await asyncio.sleep((time.monotonic() - begun) * rest)

    async def _step(self, position: int, end: int) -> bool:
        """One batch. False: an event is in the way."""
        limit = min(self._limit, end - position)
        stretch = await self._stream.after(self._job.tenant_id, position, limit, ahead=True)
        try:
            await self._apply(stretch)
        except _Elsewhere:
            return True
        except batches.GenerationFailed as failed:
            if failures.is_outage(failed.cause):
                raise failed.cause from failed
            return await self._failed(stretch, failed.cause)
        self._attempts = 0
        if stretch.to >= self._until:
            self._limit = self._batch_events
        return True

    async def _apply(self, stretch: stream.Stretch, parked: parking.Waiting | None = None) -> None:
        """The stretch's events, or one of them that is parked instead."""
        view, job = self._view, self._job
        async with self._connection.transaction():
            generation = await self._move(stretch)
            if parked is None:
                events = stretch.of(view.wanted)
                await batches.apply(self._connection, view, job.tenant_id, generation, events)
            else:
                await parking.park(self._connection, view.name, job.tenant_id, job.generation, [parked])
                await generations.add_parked(self._connection, view.name, job.tenant_id, job.generation, 1)

    async def _move(self, stretch: stream.Stretch) -> generations.Generation:
        values = {**_key(self._job), "after": stretch.after, "to": stretch.to, "fade_s": generations.RATE_S}
        row = await (await self._connection.execute(MOVE, values, binary=True)).fetchone()
        if row is None:
            if await (await self._connection.execute(HELD, _key(self._job))).fetchone() is not None:
                raise _Elsewhere
            raise Lost(self._view.name, self._job.tenant_id)
        return generations.Generation(*row)

    async def _failed(self, stretch: stream.Stretch, error: Exception) -> bool:
        self._until = max(self._until, stretch.to)
        if stretch.to - stretch.after > 1:
            self._limit = (stretch.to - stretch.after) // 2
            return True
        self._attempts += 1
        decision = self._view.on_failure(error, self._attempts)
        if decision == failures.Decision.RETRY:
            await asyncio.sleep(min(0.5 * 2 ** (self._attempts - 1), PAUSE_S_MAX))
            return True
        (event,) = stretch.of(self._view.wanted)
        described = failures.described(error)
        _log.error(
            "The rebuild of the view %s of tenant %s cannot digest the event at %s: %s",
            *(self._view.name, self._job.tenant_id, event.position, failures.logged(error)),
        )
        found = await generations.all_of(self._connection, self._view.name, self._job.tenant_id)
        own = next(each for each in found if each.generation == self._job.generation)
        if decision == failures.Decision.PARK and self._view.commutes and own.parked < parking.ORIGINATORS_MAX:
            waiting = parking.Waiting(stream.originator(event), event.position, event.topic, described, self._attempts)
            with suppress(_Elsewhere):
                await self._apply(stretch, waiting)
            self._attempts = 0
            return True
        text = f"It cannot digest the event at {event.position}: {described}"
        await self._connection.execute(FAIL, {**_key(self._job), "error": text})
        return False

    async def _join(self) -> bool:
        """The rest, with both generations held: from now on they are fed together. False: it has become too much again."""
        view, job = self._view, self._job
        end = 0
        try:
            async with self._connection.transaction():
                found = await generations.locked(self._connection, view.name, job.tenant_id)
                held = await self._connection.execute(HELD, _key(job))
                own = next((each for each in found if each.generation == job.generation), None)
                active = generations.active(found)
                if own is None or active is None or own.state != "filling" or await held.fetchone() is None:
                    raise Lost(view.name, job.tenant_id)
                end = active.position
                if end - own.position > JOIN_EVENTS_MAX:
                    return False
                at = own.position
                while at < end:  # a stretch that was read ahead may be shorter
                    stretch = await self._stream.after(job.tenant_id, at, end - at)
                    if stretch.to == at:  # the database was restored to an earlier moment
                        raise Lost(view.name, job.tenant_id)
                    await batches.apply(self._connection, view, job.tenant_id, own, stretch.of(view.wanted))
                    at = stretch.to
                await generations.set_fed(self._connection, view.name, job.tenant_id, 2)
                await generations.set_position(
                    self._connection, view.name, job.tenant_id, job.generation, active.position, "ready"
                )
        except batches.GenerationFailed as failed:
            if failures.is_outage(failed.cause):
                raise failed.cause from failed
            self._until = end  # by steps, which find the event
        return True
