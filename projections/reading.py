"""What queries give back: rows together with the position that they show."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, LiteralString, TypeVar
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import tenancy

PAGE_ROWS_MAX = 100
IDS_MAX = 5_000
"""As many as a batch of events can touch."""

# Beside the rows' own statement, in the same snapshot. A view that has not begun yet stands at 0.
POSITION: LiteralString = "SELECT position FROM views.positions WHERE tenant_id = %(tenant)s AND view = %(view)s"

Connection = AsyncConnection[TupleRow]
R = TypeVar("R")


class One(msgspec.Struct, Generic[R], frozen=True):
    """`row` is None if there is none. `position` is the view's, in the same snapshot."""

    row: R | None
    position: int


class Many(msgspec.Struct, Generic[R], frozen=True):
    """`position` is the view's, in the same snapshot."""

    rows: list[R]
    position: int


class Page(msgspec.Struct, Generic[R], frozen=True):
    """`next` is what to pass for the page after this one, None at the end. `position` is the view's, in the same snapshot."""

    rows: list[R]
    next: UUID | None
    position: int


async def one(
    connection: Connection,
    view: str,
    tenant_id: UUID,
    row: Callable[..., R],
    statement: LiteralString,
    **parameters: Any,
) -> One[R]:
    """The first row that the statement gives."""
    found = await many(connection, view, tenant_id, row, statement, **parameters)
    return One(found.rows[0] if found.rows else None, found.position)


async def many(
    connection: Connection,
    view: str,
    tenant_id: UUID,
    row: Callable[..., R],
    statement: LiteralString,
    **parameters: Any,
) -> Many[R]:
    """All rows that the statement gives, each made by `row` of its columns. `connection` is the app role's, in autocommit."""
    positions, rows = await tenancy.query(connection, tenant_id, {**parameters, "view": view}, POSITION, statement)
    return Many([row(*columns) for columns in rows], positions[0][0] if positions else 0)


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
    if not 1 <= limit <= PAGE_ROWS_MAX:
        raise ValueError(f"limit {limit} is not in 1 … {PAGE_ROWS_MAX}")
    positions, rows = await tenancy.query(
        connection, tenant_id, {**parameters, "view": view, "limit": limit + 1}, POSITION, statement
    )
    key = rows[limit - 1][0] if len(rows) > limit else None
    return Page([row(*columns) for columns in rows[:limit]], key, positions[0][0] if positions else 0)


def checked_ids(ids: Sequence[UUID]) -> list[UUID]:
    """Raises ValueError if they are more than IDS_MAX."""
    if len(ids) > IDS_MAX:
        raise ValueError(f"{len(ids)} ids are more than {IDS_MAX}")
    return list(ids)


def in_utc(time: datetime) -> datetime:
    """The same instant: the server gives times in the session's zone."""
    return time.astimezone(UTC)
