"""Events that a view could not digest: the rows of `views.parked`, and the later events of the same originators behind them."""

from collections.abc import Sequence
from typing import LiteralString
from uuid import UUID

import msgspec

from projections import generations, stream

ORIGINATORS_MAX = 100
"""Parked at one time of a tenant in one view. Beyond it is no event's fault but the projector's, and the view stops."""

ORIGINATORS: LiteralString = """
SELECT DISTINCT originator_id FROM views.parked
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
"""
PARK: LiteralString = """
INSERT INTO views.parked (tenant_id, view, generation, originator_id, position, topic, error, attempts)
SELECT %(tenant)s, %(view)s, %(generation)s, x.originator_id, x.position, x.topic, x.error, x.attempts
FROM unnest(%(originators)s::uuid[], %(positions)s::bigint[], %(topics)s::text[], %(errors)s::text[], %(attempts)s::int[])
     AS x (originator_id, position, topic, error, attempts)
ON CONFLICT DO NOTHING
"""


class Waiting(msgspec.Struct, frozen=True):
    """An event that is to be parked. `error` is None if it only waits behind an earlier one."""

    originator_id: UUID
    position: int
    topic: str
    error: str | None = None
    attempts: int = 0


def behind_another(event: stream.Event) -> Waiting:
    """An event whose originator is parked already."""
    return Waiting(stream.originator(event), event.position, event.topic)


async def originators(connection: generations.Connection, view: str, tenant_id: UUID, generation: int) -> set[UUID]:
    """Those that are parked."""
    values = {"tenant": tenant_id, "view": view, "generation": generation}
    cursor = await connection.execute(ORIGINATORS, values, binary=True)
    return {originator for (originator,) in await cursor.fetchall()}


async def park(
    connection: generations.Connection, view: str, tenant_id: UUID, generation: int, events: Sequence[Waiting]
) -> None:
    """The caller holds the generation's row, and counts the originators in it."""
    values = {
        **{"tenant": tenant_id, "view": view, "generation": generation},
        "originators": [event.originator_id for event in events],
        "positions": [event.position for event in events],
        "topics": [event.topic for event in events],
        "errors": [event.error for event in events],
        "attempts": [event.attempts for event in events],
    }
    await connection.execute(PARK, values)
