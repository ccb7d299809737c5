"""The statements of this package that look across tenants, on connections of the projector's role. There are no others."""

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

BEHIND_MAX = 10_000
"""Pairs of view and tenant that one poll finds; the next poll finds the rest."""

BEHIND: LiteralString = """
SELECT v.view, h.tenant_id, h.position
FROM ledger.heads h CROSS JOIN unnest(%(views)s::text[]) AS v (view)
LEFT JOIN views.positions p ON p.tenant_id = h.tenant_id AND p.view = v.view
WHERE h.position > coalesce(p.position, 0) LIMIT %(limit)s
"""

POSITIONS: LiteralString = """
SELECT p.tenant_id, p.view, p.position
FROM unnest(%(tenants)s::uuid[], %(views)s::text[]) AS x (tenant_id, view)
JOIN views.positions p ON p.tenant_id = x.tenant_id AND p.view = x.view
"""

LAG: LiteralString = """
SELECT v.view, h.tenant_id, coalesce(p.position, 0), h.position, e.recorded_at,
       coalesce(extract(epoch FROM clock_timestamp() - e.recorded_at), 0)::float8
FROM ledger.heads h CROSS JOIN unnest(%(views)s::text[]) AS v (view)
LEFT JOIN views.positions p ON p.tenant_id = h.tenant_id AND p.view = v.view
LEFT JOIN ledger.events e ON e.tenant_id = h.tenant_id AND e.position = coalesce(p.position, 0) + 1
ORDER BY v.view, h.tenant_id
"""

TENANTS: LiteralString = "SELECT tenant_id FROM ledger.heads ORDER BY tenant_id"

STATEMENTS = (BEHIND, POSITIONS, LAG, TENANTS)

Connection = AsyncConnection[TupleRow]


class Lag(msgspec.Struct, frozen=True):
    """How far a view is behind its tenant's stream. `seconds_behind` is the age of the oldest event that is not in the view
    yet, 0 if there is none."""

    view: str
    tenant_id: UUID
    position: int
    head: int
    oldest_recorded_at: datetime | None
    seconds_behind: float

    @property
    def behind(self) -> int:
        """Events."""
        return self.head - self.position


async def behind(connection: Connection, views: Sequence[str]) -> list[tuple[str, UUID, int]]:
    """View, tenant and position of the head wherever a view is behind, BEHIND_MAX at the most."""
    cursor = await connection.execute(BEHIND, {"views": list(views), "limit": BEHIND_MAX}, binary=True)
    return [(view, tenant_id, head) for view, tenant_id, head in await cursor.fetchall()]


async def positions(connection: Connection, wanted: Sequence[tuple[UUID, str]]) -> list[tuple[UUID, str, int]]:
    """The positions of these tenants' views; a view that has not begun is left out."""
    parameters = {"tenants": [tenant_id for tenant_id, _ in wanted], "views": [view for _, view in wanted]}
    cursor = await connection.execute(POSITIONS, parameters, binary=True)
    return [(tenant_id, view, position) for tenant_id, view, position in await cursor.fetchall()]


async def lag(connection: Connection, views: Sequence[str]) -> list[Lag]:
    """Of each view and tenant, in order of view and tenant."""
    cursor = await connection.execute(LAG, {"views": list(views)}, binary=True)
    return [Lag(*row) for row in await cursor.fetchall()]


async def tenants(connection: Connection) -> list[UUID]:
    """Whoever has a stream."""
    cursor = await connection.execute(TENANTS, binary=True)
    return [tenant_id for (tenant_id,) in await cursor.fetchall()]
