"""Getting past an event that a projector cannot digest: into each generation that can, parked in the others."""

import logging
from collections.abc import Sequence
from uuid import UUID

import psycopg

from projections import batches, failures, generations, parking, stream
from projections.view import View

_log = logging.getLogger(__name__)


async def settle(
    connection: generations.Connection,
    view: View,
    tenant_id: UUID,
    moved: Sequence[generations.Generation],
    events: Sequence[stream.Event],
    attempts: int,
    *,
    parks: bool,
) -> None:
    """One event, into generations that the caller holds and has moved past it.

    Where it must not be parked (`parks`, and ORIGINATORS_MAX) a generation that is not read is broken from now on; of the
    one that is read GenerationFailed is raised, and of any for an outage.
    """
    for generation in moved:
        try:
            async with connection.transaction():
                await batches.apply(connection, view, tenant_id, generation, events)
        except batches.GenerationFailed as failed:
            if failures.is_outage(failed.cause):
                raise
            if parks and generation.parked < parking.ORIGINATORS_MAX:
                await _park(connection, view, tenant_id, generation, events[0], failed.cause, attempts)
            elif generation.state == "active":
                raise
            else:
                await _break(connection, view, tenant_id, generation, failed.cause)


async def _park(
    connection: generations.Connection,
    view: View,
    tenant_id: UUID,
    generation: generations.Generation,
    event: stream.Event,
    error: Exception,
    attempts: int,
) -> None:
    originator_id = stream.originator(event)
    _log.error(
        "The view %s of tenant %s (generation %s) parks %s from position %s on, all others go on: %s. Look at it with "
        "`bitnexus projections parked`.",
        *(view.name, tenant_id, generation.generation, originator_id, event.position, failures.logged(error)),
        exc_info=None if isinstance(error, psycopg.Error) else error,
    )
    waiting = parking.Waiting(originator_id, event.position, event.topic, failures.described(error), attempts)
    await parking.park(connection, view.name, tenant_id, generation.generation, [waiting])
    await generations.add_parked(connection, view.name, tenant_id, generation.generation, 1)


async def _break(
    connection: generations.Connection,
    view: View,
    tenant_id: UUID,
    generation: generations.Generation,
    error: Exception,
) -> None:
    _log.error(
        "The generation %s of view %s of tenant %s cannot be fed any longer, the one that is read goes on: %s. "
        "Correct the view, then drop and rebuild it.",
        *(generation.generation, view.name, tenant_id, failures.logged(error)),
    )
    described = failures.described(error)
    await generations.set_fed(connection, view.name, tenant_id, 1)
    await generations.set_state(connection, view.name, tenant_id, generation.generation, "broken", described)
