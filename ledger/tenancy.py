"""Queries inside one tenant: all statements in one string, one round trip, one snapshot.

Every statement names the tenant itself (`tenant_id = %(tenant)s`); the tenant set here is what row-level security checks,
the second lock. Values are bound by the client (psycopg.AsyncClientCursor), which quotes them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.rows import TupleRow

_BEGIN: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT ledger.set_tenant(%(tenant)s);\n"


async def query(
    connection: AsyncConnection[TupleRow], tenant_id: UUID, parameters: Mapping[str, Any], *statements: LiteralString
) -> list[list[TupleRow]]:
    """The rows of each statement, all of one snapshot. `connection` is in autocommit; `tenant` is among the parameters."""
    text: LiteralString = _BEGIN + ";\n".join(statements) + ";\nCOMMIT"
    async with AsyncClientCursor(connection) as cursor:
        try:
            await cursor.execute(text, {**parameters, "tenant": tenant_id})
        except BaseException:
            await connection.rollback()  # a failed statement leaves the explicit transaction open
            raise
        results: list[list[TupleRow]] = []
        cursor.nextset()  # BEGIN
        cursor.nextset()  # set_tenant
        for _ in statements:
            results.append(await cursor.fetchall())
            cursor.nextset()
    return results


def one(results: Sequence[list[TupleRow]], index: int = 0) -> TupleRow | None:
    """The first row of a statement's result, if any."""
    rows = results[index]
    return rows[0] if rows else None
