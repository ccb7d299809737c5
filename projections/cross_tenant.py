"""The statements of this package that look across tenants, on connections of the projector's role, and of the platform's
(`platform`). There are no others."""

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import tenancy
from projections import generations, platform
from projections.rebuild import Job
from projections.view import View

BEHIND_MAX = 10_000
"""Pairs of view and tenant that one poll finds; the next poll finds the rest."""

PARKED_MAX = 10_000
"""Originators that are listed."""

BEHIND: LiteralString = """
SELECT v.view, h.tenant_id, h.position
FROM ledger.heads h CROSS JOIN unnest(%(views)s::text[], %(versions)s::int[]) AS v (view, version)
JOIN views.leases l ON l.view = v.view AND l.bucket = views.bucket(h.tenant_id) AND l.holder = %(process)s
LEFT JOIN views.positions p ON p.tenant_id = h.tenant_id AND p.view = v.view AND p.state = 'active'
WHERE h.position > coalesce(p.position, 0) AND p.stopped IS NOT TRUE AND coalesce(p.version, 0) <= v.version LIMIT %(limit)s
"""

POSITIONS: LiteralString = """
SELECT p.tenant_id, p.view, p.position
FROM unnest(%(tenants)s::uuid[], %(views)s::text[]) AS x (tenant_id, view)
JOIN views.positions p ON p.tenant_id = x.tenant_id AND p.view = x.view AND p.state = 'active'
"""

LAG: LiteralString = """
SELECT v.view, h.tenant_id, coalesce(p.position, 0), h.position, e.recorded_at,
       coalesce(extract(epoch FROM clock_timestamp() - e.recorded_at), 0)::float8,
       coalesce(p.generation, 1), coalesce(p.version, 0), coalesce(p.parked, 0), coalesce(p.stopped, false), p.failure,
       coalesce(p.rate * exp(greatest(-extract(epoch FROM clock_timestamp() - p.moved_at)::float8 / %(fade_s)s, -50)), 0),
       (SELECT o.state FROM views.positions o WHERE o.tenant_id = h.tenant_id AND o.view = v.view AND o.state <> 'active' LIMIT 1)
FROM ledger.heads h CROSS JOIN unnest(%(views)s::text[]) AS v (view)
LEFT JOIN views.positions p ON p.tenant_id = h.tenant_id AND p.view = v.view AND p.state = 'active'
LEFT JOIN ledger.events e ON e.tenant_id = h.tenant_id AND e.position = coalesce(p.position, 0) + 1
WHERE %(tenants)s::uuid[] IS NULL OR h.tenant_id = ANY (%(tenants)s::uuid[])
ORDER BY v.view, h.tenant_id
"""

# The tenants with the longest streams by themselves, all others together: longest, because that changes seldom.
LAG_OF_BUSIEST: LiteralString = """
WITH busiest AS (SELECT tenant_id FROM ledger.heads ORDER BY position DESC, tenant_id LIMIT %(busiest)s)
SELECT v.view, b.tenant_id, sum(h.position - coalesce(p.position, 0))::bigint,
       coalesce(max(extract(epoch FROM clock_timestamp() - e.recorded_at)), 0)::float8,
       coalesce(sum(p.parked), 0)::bigint, count(*) FILTER (WHERE p.stopped),
       coalesce(sum(p.rate * exp(greatest(-extract(epoch FROM clock_timestamp() - p.moved_at)::float8 / %(fade_s)s, -50))), 0)
FROM ledger.heads h CROSS JOIN unnest(%(views)s::text[]) AS v (view)
LEFT JOIN busiest b ON b.tenant_id = h.tenant_id
LEFT JOIN views.positions p ON p.tenant_id = h.tenant_id AND p.view = v.view AND p.state = 'active'
LEFT JOIN LATERAL (SELECT x.recorded_at FROM ledger.events x
                   WHERE h.position > coalesce(p.position, 0)
                     AND x.tenant_id = h.tenant_id AND x.position = coalesce(p.position, 0) + 1) e ON true
GROUP BY v.view, b.tenant_id ORDER BY v.view, b.tenant_id
"""

# Rebuilds that nobody alive is at, of views that this process has in the version that they were begun with.
CLAIM: LiteralString = """
UPDATE views.rebuilds r SET holder = %(process)s, token = r.token + 1
FROM (SELECT k.tenant_id, k.view, k.generation
      FROM views.rebuilds k
      JOIN views.positions p ON p.tenant_id = k.tenant_id AND p.view = k.view AND p.generation = k.generation
      JOIN unnest(%(views)s::text[], %(versions)s::int[]) AS v (view, version) ON v.view = k.view AND v.version = p.version
      WHERE k.finished_at IS NULL AND NOT k.paused AND k.error IS NULL AND p.state IN ('filling', 'ready')
        AND NOT EXISTS (SELECT FROM views.processes x WHERE x.process_id = k.holder AND x.expires_at > clock_timestamp())
      ORDER BY k.requested_at, k.tenant_id LIMIT %(limit)s FOR UPDATE OF k SKIP LOCKED) AS c
WHERE r.tenant_id = c.tenant_id AND r.view = c.view AND r.generation = c.generation
RETURNING r.view, r.tenant_id, r.generation, r.token, r.compare_only
"""

BEAT: LiteralString = "SELECT * FROM views.beat(%(process)s, %(views)s, %(versions)s::int[], %(ttl)s)"
LEAVE: LiteralString = "SELECT views.leave(%(process)s)"

# Whether anybody alive keeps a view up.
FED: LiteralString = """
SELECT EXISTS (SELECT FROM views.processes WHERE %(view)s = ANY (views) AND expires_at > clock_timestamp())
"""

PARKED: LiteralString = """
SELECT DISTINCT ON (k.view, k.tenant_id, k.originator_id) k.view, k.tenant_id, k.originator_id, k.position,
       count(*) OVER (PARTITION BY k.view, k.tenant_id, k.originator_id), k.topic, k.error, k.attempts, k.parked_at
FROM views.parked k
JOIN views.positions p ON p.tenant_id = k.tenant_id AND p.view = k.view AND p.generation = k.generation AND p.state = 'active'
WHERE k.view = ANY (%(views)s) AND (%(tenants)s::uuid[] IS NULL OR k.tenant_id = ANY (%(tenants)s::uuid[]))
ORDER BY k.view, k.tenant_id, k.originator_id, k.position LIMIT %(limit)s
"""

MOVED: LiteralString = """
SELECT h.tenant_id FROM unnest(%(tenants)s::uuid[], %(positions)s::bigint[]) AS x (tenant_id, position)
JOIN ledger.heads h ON h.tenant_id = x.tenant_id WHERE h.position > x.position
"""

TENANTS: LiteralString = "SELECT tenant_id FROM ledger.heads ORDER BY tenant_id"

STATEMENTS = (
    BEHIND,
    POSITIONS,
    LAG,
    LAG_OF_BUSIEST,
    CLAIM,
    BEAT,
    LEAVE,
    FED,
    PARKED,
    MOVED,
    TENANTS,
    *platform.STATEMENTS,
)


class Parked(msgspec.Struct, frozen=True):
    """An originator that is parked in the generation that is read: its first event that waits and why, and how many do."""

    view: str
    tenant_id: UUID
    originator_id: UUID
    position: int
    events: int
    topic: str
    error: str | None
    attempts: int
    parked_at: datetime


Connection = AsyncConnection[TupleRow]


class Lag(msgspec.Struct, frozen=True):
    """How far the generation of a view that is read is behind its tenant's stream. `seconds_behind` is the age of the oldest
    event that is not in the view yet, 0 if there is none. `parked` counts originators, `rate` is in events/s, `version` 0 says
    that the view has not begun. `failure`: what it cannot get past, without personal data; `other`: the state of the
    generation beside it, if there is one."""

    view: str
    tenant_id: UUID
    position: int
    head: int
    oldest_recorded_at: datetime | None
    seconds_behind: float
    generation: int
    version: int
    parked: int
    stopped: bool
    failure: str | None
    rate: float
    other: str | None

    @property
    def behind(self) -> int:
        """Events."""
        return self.head - self.position


class LagOfBusiest(msgspec.Struct, frozen=True):
    """As `Lag`, of one tenant, or of all others together (None): `seconds_behind` is that of the one furthest behind, `stopped`
    counts tenants, and the rest is summed."""

    view: str
    tenant_id: UUID | None
    behind: int
    seconds_behind: float
    parked: int
    stopped: int
    rate: float


async def behind(connection: Connection, process_id: UUID, views: Sequence[View]) -> list[tuple[str, UUID, int]]:
    """View, tenant and position of the head wherever a view is behind that has not stopped, BEHIND_MAX at the most.

    Of the tenants that the process has a lease of.
    """
    parameters = {
        "views": [view.name for view in views],
        "versions": [view.version for view in views],
        "process": process_id,
        "limit": BEHIND_MAX,
    }
    cursor = await connection.execute(BEHIND, parameters, binary=True)
    return [(view, tenant_id, head) for view, tenant_id, head in await cursor.fetchall()]


async def positions(connection: Connection, wanted: Sequence[tuple[UUID, str]]) -> list[tuple[UUID, str, int]]:
    """The positions of these tenants' views; a view that has not begun is left out."""
    parameters = {"tenants": [tenant_id for tenant_id, _ in wanted], "views": [view for _, view in wanted]}
    cursor = await connection.execute(POSITIONS, parameters, binary=True)
    return [(tenant_id, view, position) for tenant_id, view, position in await cursor.fetchall()]


async def moved(connection: Connection, known: Sequence[tuple[UUID, int]]) -> list[UUID]:
    """The tenants whose streams are beyond the known positions."""
    parameters = {"tenants": [tenant_id for tenant_id, _ in known], "positions": [position for _, position in known]}
    cursor = await connection.execute(MOVED, parameters, binary=True)
    return [tenant_id for (tenant_id,) in await cursor.fetchall()]


async def lag(connection: Connection, views: Sequence[str], tenants: Sequence[UUID] | None = None) -> list[Lag]:
    """Of each view and tenant, in order of view and tenant; only of these tenants, None: of all."""
    parameters = {
        "views": list(views),
        "tenants": None if tenants is None else list(tenants),
        "fade_s": generations.RATE_S,
    }
    cursor = await connection.execute(LAG, parameters, binary=True)
    return [Lag(*row) for row in await cursor.fetchall()]


async def lag_of_busiest(connection: Connection, views: Sequence[str], busiest: int) -> list[LagOfBusiest]:
    """Of each view: of so many tenants, those with the longest streams, and of all others together if there are any."""
    parameters = {"views": list(views), "busiest": busiest, "fade_s": generations.RATE_S}
    cursor = await connection.execute(LAG_OF_BUSIEST, parameters, binary=True)
    return [LagOfBusiest(*row) for row in await cursor.fetchall()]


async def parked(connection: Connection, views: Sequence[str], tenants: Sequence[UUID] | None = None) -> list[Parked]:
    """PARKED_MAX at the most, in order of view, tenant and originator; only of these tenants, None: of all."""
    parameters = {
        "views": list(views),
        "tenants": None if tenants is None else list(tenants),
        "limit": PARKED_MAX,
    }
    cursor = await connection.execute(PARKED, parameters, binary=True)
    return [Parked(*row) for row in await cursor.fetchall()]


async def claim(
    connection: Connection,
    process_id: UUID,
    views: Sequence[View],
    limit: int,
) -> list[Job]:
    """At most `limit` rebuilds that are this live process's from now on."""
    parameters = {
        "process": process_id,
        "views": [view.name for view in views],
        "versions": [view.version for view in views],
        "limit": limit,
    }
    cursor = await connection.execute(CLAIM, parameters, binary=True)
    return [Job(*row) for row in await cursor.fetchall()]


async def lag_of_tenant(connection: Connection, tenant_id: UUID, views: Sequence[str]) -> list[Lag]:
    """As `lag`, of one tenant, on a connection of the app role, which sees that one alone."""
    parameters = {"views": list(views), "tenants": [tenant_id], "fade_s": generations.RATE_S}
    (rows,) = await tenancy.query(connection, tenant_id, parameters, LAG)
    return [Lag(*row) for row in rows]


async def is_fed(connection: Connection, view: str) -> bool:
    """Whether a live process keeps the view up."""
    row = await (await connection.execute(FED, {"view": view})).fetchone()
    return row is not None and row[0]


async def tenants(connection: Connection) -> list[UUID]:
    """Whoever has a stream."""
    cursor = await connection.execute(TENANTS, binary=True)
    return [tenant_id for (tenant_id,) in await cursor.fetchall()]
