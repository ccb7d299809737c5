"""Letting a view try again what it could not digest, or pass over it: what `views.parked` holds, and views that have stopped.

All of it with the generations' rows held, so that no batch of this view of the tenant is under way meanwhile. What is done is
written into the tenant's stream before they are let go: a view that has reached what was written shows what was done.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import LiteralString, TypeAlias
from uuid import UUID

import msgspec

from projections import batches, failures, generations, stream
from projections.view import View

FED = ("active", "ready")

PARKED: LiteralString = """
SELECT position, topic, error, attempts FROM views.parked
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s AND originator_id = %(originator)s
ORDER BY position
"""
UNPARK: LiteralString = """
DELETE FROM views.parked
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s AND originator_id = %(originator)s
  AND position = %(position)s
"""
AGAIN: LiteralString = """
UPDATE views.parked SET error = %(error)s, attempts = attempts + 1
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s AND originator_id = %(originator)s
  AND position = %(position)s
"""

Noted: TypeAlias = Callable[[int | None], Awaitable[None]]
"""Writes down what is about to be done: of the position of the first event that is parked, None of a view that has stopped."""


class NothingParked(Exception):
    def __init__(self, view: str, originator_id: UUID | None) -> None:
        what = "has not stopped" if originator_id is None else f"has parked nothing of {originator_id}"
        super().__init__(
            f"There is nothing to repair: the view {view} {what}. See what there is by `bitnexus projections parked`."
        )


class Repaired(msgspec.Struct, frozen=True):
    """What waited began at `position`. `left` events wait still, the first of them because of `error`; None if nothing waits."""

    position: int
    applied: int
    skipped: int
    left: int
    error: str | None


async def parked(
    connection: generations.Connection,
    source: stream.Source,
    view: View,
    tenant_id: UUID,
    originator_id: UUID,
    *,
    skip: bool,
    noted: Noted,
) -> Repaired:
    """Apply what is parked of an originator in order, as far as it goes; `skip` its first event.

    Counts those of the generation that is read. `connection` is the projector's, in autocommit, with the columns registered.
    Raises NothingParked, and what `noted` raises: then nothing is done.
    """
    repaired: Repaired | None = None
    async with connection.transaction():
        for generation in await generations.locked(connection, view.name, tenant_id):
            if generation.state in FED and generation.parked:
                done = await _of_generation(
                    connection, source, view, tenant_id, generation.generation, originator_id, skip=skip
                )
                if generation.state == "active" or repaired is None:
                    repaired = done or repaired
        if repaired is None:
            raise NothingParked(view.name, originator_id)
        await noted(repaired.position)
    return repaired


async def _of_generation(
    connection: generations.Connection,
    source: stream.Source,
    view: View,
    tenant_id: UUID,
    generation: int,
    originator_id: UUID,
    *,
    skip: bool,
) -> Repaired | None:
    """None if nothing of the originator is parked there."""
    key = {"tenant": tenant_id, "view": view.name, "generation": generation, "originator": originator_id}
    rows = await (await connection.execute(PARKED, key)).fetchall()
    if not rows:
        return None
    waiting = [position for position, _, _, _ in rows]
    skipped = waiting[:1] if skip else []
    for position in skipped:
        await connection.execute(UNPARK, {**key, "position": position})
    events = await stream.of_originator(connection, source, tenant_id, originator_id, waiting[len(skipped) :])
    applied, error = 0, None
    for event in events:
        error = await _apply(connection, view, tenant_id, generation, [event])
        if error is not None:
            await connection.execute(AGAIN, {**key, "position": event.position, "error": error})
            break
        await connection.execute(UNPARK, {**key, "position": event.position})
        applied += 1
    if error is None:
        await generations.add_parked(connection, view.name, tenant_id, generation, -1)
    return Repaired(waiting[0], applied, len(skipped), len(events) - applied, error)


async def _apply(
    connection: generations.Connection,
    view: View,
    tenant_id: UUID,
    generation: int,
    events: Sequence[stream.Event],
) -> str | None:
    """Why they cannot be applied, without personal data; None: they are. Raises what is nobody's fault."""
    try:
        async with connection.transaction():
            await batches.project(connection, view, tenant_id, generation, events)
    except Exception as error:
        if failures.is_outage(error):
            raise
        return failures.described(error)
    return None


async def stopped(
    connection: generations.Connection,
    source: stream.Source,
    view: View,
    tenant_id: UUID,
    *,
    skip: bool,
    noted: Noted,
) -> Repaired:
    """Let a view that has stopped try again; `skip` the event that it stands before. Raises as `parked`."""
    async with connection.transaction():
        found = await generations.locked(connection, view.name, tenant_id)
        active = generations.active(found)
        if active is None or not active.stopped:
            raise NothingParked(view.name, None)
        if skip:
            position = active.position
            stretch = await stream.read_stretch(connection, source, sorted(view.wanted), tenant_id, position, 1)
            for generation in found:
                if generation.state == "ready":  # it may be able to
                    await _apply(connection, view, tenant_id, generation.generation, stretch.events)
                if generation.state in FED:
                    await generations.set_position(
                        *(connection, view.name, tenant_id, generation.generation, stretch.to, generation.state)
                    )
        await generations.resume(connection, view.name, tenant_id)
        await noted(None)
    return Repaired(active.position + 1, 0, int(skip), 0, None)
