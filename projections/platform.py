"""The statements of the platform's pages: across tenants, on connections of the platform's role, which can read no person's data.

They are among those of `cross_tenant.STATEMENTS`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import LiteralString
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

TENANTS_VIEW, ACCOUNTS_VIEW, SALES_VIEW = "tenants", "accounts", "sales"
"""The views' names, spelled out: their modules stand on what this one is a part of."""
PAGE_ROWS_MAX = 100
CURRENCIES_MAX = 500
"""There are fewer in the world."""

# A tenant with whatever of it a view shows: rows of the generation that is read.
TENANTS: LiteralString = """
SELECT t.tenant_id, t.slug, t.name, t.currency, t.status, t.inserted_at, t.updated_at
FROM views.tenants t
JOIN views.positions p ON p.tenant_id = t.tenant_id AND p.view = %(view)s AND p.generation = t.generation AND p.state = 'active'
WHERE t.tenant_id > %(after)s AND (%(status)s::text IS NULL OR t.status = %(status)s::text)
ORDER BY t.tenant_id LIMIT %(limit)s
"""

TENANTS_BY_STATUS: LiteralString = """
SELECT t.status, count(*) FROM views.tenants t
JOIN views.positions p ON p.tenant_id = t.tenant_id AND p.view = %(view)s AND p.generation = t.generation AND p.state = 'active'
GROUP BY t.status ORDER BY t.status
"""

USERS: LiteralString = """
SELECT a.role, count(*) FROM views.accounts a
JOIN views.positions p ON p.tenant_id = a.tenant_id AND p.view = %(view)s AND p.generation = a.generation AND p.state = 'active'
WHERE a.status = 'active' GROUP BY a.role ORDER BY a.role
"""

VOLUMES: LiteralString = """
SELECT s.currency, sum(s.count)::bigint, sum(s.gross_minor), sum(s.refunded_minor) FROM views.sales_by_day s
JOIN views.positions p ON p.tenant_id = s.tenant_id AND p.view = %(view)s AND p.generation = s.generation AND p.state = 'active'
GROUP BY s.currency ORDER BY s.currency LIMIT %(limit)s
"""

LAGS: LiteralString = """
SELECT p.view, count(*) FILTER (WHERE p.position < h.position), coalesce(max(h.position - p.position), 0), sum(h.position)::bigint
FROM ledger.heads h JOIN views.positions p ON p.tenant_id = h.tenant_id AND p.state = 'active'
GROUP BY p.view ORDER BY p.view
"""

STATEMENTS = (TENANTS, TENANTS_BY_STATUS, USERS, VOLUMES, LAGS)

Connection = AsyncConnection[TupleRow]
_FIRST = UUID(int=0)


class TenantRow(msgspec.Struct, frozen=True):
    """`status`: active, suspended, closed."""

    id: UUID
    slug: str
    name: str
    currency: str
    status: str
    inserted_at: datetime
    updated_at: datetime


class Volume(msgspec.Struct, frozen=True):
    """What all tenants sold in a currency, in its minor units. `count` counts sales, not refunds."""

    currency: str
    count: int
    gross_minor: int
    refunded_minor: int


class ViewLag(msgspec.Struct, frozen=True):
    """A view over all tenants: how many of its tenants are behind, by how many events the one that is most."""

    view: str
    tenants_behind: int
    events_behind_max: int


class Figures(msgspec.Struct, frozen=True):
    """`users`: active accounts by role. `events`: of all streams."""

    tenants: dict[str, int]
    users: dict[str, int]
    volumes: Sequence[Volume]
    lags: Sequence[ViewLag]
    events: int


async def page(
    connection: Connection, after: UUID | None, limit: int, *, status: str | None = None
) -> tuple[list[TenantRow], UUID | None]:
    """At most `limit` (1–100) tenants in id order, the oldest first, those after `after`; and what to pass for the next page.

    Raises ValueError for another limit.
    """
    if not 1 <= limit <= PAGE_ROWS_MAX:
        raise ValueError(f"limit {limit} is not in 1 … {PAGE_ROWS_MAX}")
    values = {"view": TENANTS_VIEW, "after": after or _FIRST, "status": status and str(status), "limit": limit + 1}
    rows = await (await connection.execute(TENANTS, values, binary=True)).fetchall()
    found = [
        TenantRow(id, slug, name, currency, kept, inserted_at.astimezone(UTC), updated_at.astimezone(UTC))
        for id, slug, name, currency, kept, inserted_at, updated_at in rows[:limit]
    ]
    return found, found[-1].id if len(rows) > limit else None


async def figures(connection: Connection) -> Figures:
    """Each of its moment: the views of many tenants stand at no common position."""

    async def rows(statement: LiteralString, **values: object) -> list[TupleRow]:
        return await (await connection.execute(statement, values, binary=True)).fetchall()

    lags = await rows(LAGS)
    return Figures(
        tenants=dict(await rows(TENANTS_BY_STATUS, view=TENANTS_VIEW)),
        users=dict(await rows(USERS, view=ACCOUNTS_VIEW)),
        volumes=[
            Volume(currency, count, int(gross), int(refunded))
            for currency, count, gross, refunded in await rows(VOLUMES, view=SALES_VIEW, limit=CURRENCIES_MAX)
        ],
        lags=[ViewLag(view, behind, most) for view, behind, most, _ in lags],
        events=max((events for *_, events in lags), default=0),
    )
