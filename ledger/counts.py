"""How much a tenant has: reservations or secrets of a kind, and events of a stretch of its stream."""

from collections.abc import Sequence
from typing import LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import tenancy

RESERVATIONS: LiteralString = """
SELECT count(*) FROM (SELECT FROM ledger.reservations WHERE tenant_id = %(tenant)s AND kind = %(kind)s LIMIT %(most)s) AS x
"""
# Of a kind that begins with "outbox ", which has an index.
SECRETS: LiteralString = """
SELECT count(*) FROM (SELECT FROM ledger.secrets WHERE tenant_id = %(tenant)s AND kind = %(kind)s LIMIT %(most)s) AS x
"""
# Of what the topics say before their first dot.
EVENTS: LiteralString = """
SELECT count(*) FILTER (WHERE split_part(e.topic, '.', 1) <> ALL (%(without)s)), coalesce(max(e.position), %(after)s)
FROM ledger.events e WHERE e.tenant_id = %(tenant)s AND e.position > %(after)s
"""

Connection = AsyncConnection[TupleRow]


async def reservations(connection: Connection, tenant_id: UUID, kind: str, most: int) -> int:
    """No more than `most` are counted."""
    (((count,),),) = await tenancy.query(connection, tenant_id, {"kind": kind, "most": most}, RESERVATIONS)
    return int(count)


async def secrets(connection: Connection, tenant_id: UUID, kind: str, most: int) -> int:
    """No more than `most` are counted."""
    (((count,),),) = await tenancy.query(connection, tenant_id, {"kind": kind, "most": most}, SECRETS)
    return int(count)


async def events(connection: Connection, tenant_id: UUID, after: int, without: Sequence[str]) -> tuple[int, int]:
    """How many there are after that position, without these kinds of topics, and the position of the last of all."""
    values = {"after": after, "without": list(without)}
    (((count, position),),) = await tenancy.query(connection, tenant_id, values, EVENTS)
    return int(count), int(position)
