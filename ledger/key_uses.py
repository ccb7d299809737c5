"""Keys of programs: whose a key is, and when it was used last."""

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import tenancy

KIND = "api key"
"""Of the secret whose owner is the key's id. Its value: the id of the account whose key it is (16 bytes), then the key's SHA-256."""

USE_KEY: LiteralString = "SELECT o_account FROM ledger.use_key(%s, %s, %s)"
LAST_USES: LiteralString = """
SELECT key_id, used_at FROM ledger.key_uses WHERE tenant_id = %(tenant)s AND key_id = ANY (%(keys)s)
"""

Connection = AsyncConnection[TupleRow]


async def use(connection: Connection, tenant_id: UUID, key_id: UUID, hashed: bytes) -> UUID | None:
    """The account whose key it is, None if there is no such key. That it was used is noted, once in five minutes."""
    row = await (await connection.execute(USE_KEY, (tenant_id, key_id, hashed), binary=True)).fetchone()
    return None if row is None else row[0]


async def last(connection: Connection, tenant_id: UUID, key_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """When these keys were used last, to within five minutes; those that were."""
    (rows,) = await tenancy.query(connection, tenant_id, {"keys": list(key_ids)}, LAST_USES)
    return dict(rows)
