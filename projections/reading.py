"""What queries give back: rows together with the position that they show.

Rows are of a generation (`projections.generations`), which every statement names by `%(generation)s`. A query is sent with the
generation that was active when this process last looked, and says in the same snapshot which one is: once after each switch it
is sent a second time. Times come in UTC, the zone of all connections (`bitnexus.database`).
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, LiteralString, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import tenancy

PAGE_ROWS_MAX = 100
GENERATIONS_KNOWN_MAX = 100_000
"""Pairs of tenant and view of which the active generation is remembered, if it is not the first."""

# Beside the rows' own statement, in the same snapshot. A view that has not begun yet stands at 0.
ACTIVE: LiteralString = """
SELECT generation, position, parked FROM views.positions
WHERE tenant_id = %(tenant)s AND view = %(view)s AND state = 'active'
"""
FIRST_PARKED: LiteralString = """
SELECT min(k.position) FROM views.parked k
JOIN views.positions p ON p.tenant_id = k.tenant_id AND p.view = k.view AND p.generation = k.generation AND p.state = 'active'
WHERE k.tenant_id = %(tenant)s AND k.view = %(view)s
  AND (%(originator)s::uuid IS NULL OR k.originator_id = %(originator)s::uuid)
"""

Connection = AsyncConnection[TupleRow]
R = TypeVar("R")


class Many(msgspec.Struct, Generic[R], frozen=True):
    """`position` is the view's, in the same snapshot. Of `parked` originators the view lacks events."""

    rows: list[R]
    position: int
    parked: int = 0


class Page(msgspec.Struct, Generic[R], frozen=True):
    """`next` is what to pass for the page after this one, None at the end. The rest as in Many."""

    rows: list[R]
    next: UUID | None
    position: int
    parked: int = 0


class _Found(NamedTuple):
    rows: list[TupleRow]
    position: int
    parked: int


_generations: OrderedDict[tuple[UUID, str], int] = OrderedDict()  # what was seen last; a wrong one costs a repetition


async def _find(
    connection: Connection, view: str, tenant_id: UUID, statement: LiteralString, parameters: dict[str, Any]
) -> _Found:
    key = (tenant_id, view)
    while True:
        generation = _generations.get(key, 1)
        values = {**parameters, "view": view, "generation": generation}
        actives, rows = await tenancy.query(connection, tenant_id, values, ACTIVE, statement)
        if not actives:
            return _Found(rows, 0, 0)
        active, position, parked = actives[0]
        if active == generation:
            return _Found(rows, position, parked)
        _generations[key] = active
        if len(_generations) > GENERATIONS_KNOWN_MAX:
            _generations.popitem(last=False)


async def first_parked(connection: Connection, view: str, tenant_id: UUID, originator: UUID | None) -> int | None:
    """The position of the first event that waits, of the originator or of any; None if none does."""
    values = {"view": view, "originator": originator}
    (((position,),),) = await tenancy.query(connection, tenant_id, values, FIRST_PARKED)
    return None if position is None else int(position)


async def many(
    connection: Connection,
    view: str,
    tenant_id: UUID,
    row: Callable[..., R],
    statement: LiteralString,
    **parameters: Any,
) -> Many[R]:
    """All rows that the statement gives, each made by `row` of its columns. `connection` is the app role's, in autocommit."""
    found = await _find(connection, view, tenant_id, statement, parameters)
    return Many([row(*columns) for columns in found.rows], found.position, found.parked)


async def page(
    connection: Connection,
    view: str,
    tenant_id: UUID,
    row: Callable[..., R],
    statement: LiteralString,
    limit: int,
    **parameters: Any,
) -> Page[R]:
    """At most `limit` (1–100) rows of a statement that ends in `LIMIT %(limit)s` and whose first column is its key.

    Raises ValueError if the limit is out of range.
    """
    check_limit(limit)
    found = await _find(connection, view, tenant_id, statement, {**parameters, "limit": limit + 1})
    key = found.rows[limit - 1][0] if len(found.rows) > limit else None
    return Page([row(*columns) for columns in found.rows[:limit]], key, found.position, found.parked)


def check_limit(limit: int) -> None:
    """Raises ValueError."""
    if not 1 <= limit <= PAGE_ROWS_MAX:
        raise ValueError(f"limit {limit} is not in 1 … {PAGE_ROWS_MAX}")
