"""A tenant's security events: who logged in, whose rights changed, who was erased, what looked like an attack."""

from typing import LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import tenancy
from ledger.read import Entry

KINDS = ("account", "invitation", "person", "security", "service_account", "session", "tenant")
"""What begins their topics, before the first dot. The index events_security has the same list, in the same words: another kind needs
another index."""
ENTRIES_MAX = 1_000
"""In one read: a megabyte."""

# In the words of the index, which is found by them.
BEFORE: LiteralString = """
SELECT position, originator_id, originator_version, topic, recorded_at, state, metadata, hash FROM ledger.events
WHERE tenant_id = %(tenant)s AND position < %(before)s AND position > %(after)s
  AND split_part(topic, '.', 1) = ANY ('{account,invitation,person,security,service_account,session,tenant}'::text[])
ORDER BY position DESC LIMIT %(limit)s
"""

# Ids stand in the JSON as text. An aggregate's own id does not, nor does that of who asked.
OF_PERSON: LiteralString = """
SELECT position, originator_id, originator_version, topic, recorded_at, state, metadata, hash FROM ledger.events
WHERE tenant_id = %(tenant)s AND position < %(before)s
  AND split_part(topic, '.', 1) = ANY ('{account,invitation,person,security,service_account,session,tenant}'::text[])
  AND (originator_id = %(person)s
       OR position(convert_to(%(person)s::text, 'UTF8') IN state) > 0
       OR position(convert_to(%(person)s::text, 'UTF8') IN metadata) > 0)
ORDER BY position DESC LIMIT %(limit)s
"""


async def entries(
    connection: AsyncConnection[TupleRow], tenant_id: UUID, after: int, before: int, limit: int
) -> list[Entry]:
    """At most `limit` (1–1,000) between two positions, both not included, the last one first. `connection` is in autocommit."""
    if not 1 <= limit <= ENTRIES_MAX:
        raise ValueError(f"limit {limit} is not in 1 … {ENTRIES_MAX}")
    values = {"after": after, "before": before, "limit": limit}
    (rows,) = await tenancy.query(connection, tenant_id, values, BEFORE)
    return [Entry(tenant_id, *row) for row in rows]


async def of_person(
    connection: AsyncConnection[TupleRow], tenant_id: UUID, person: UUID, before: int, limit: int
) -> list[Entry]:
    """As `entries`, of those that are about an account, name it, or were caused by it. All are looked through."""
    if not 1 <= limit <= ENTRIES_MAX:
        raise ValueError(f"limit {limit} is not in 1 … {ENTRIES_MAX}")
    values = {"person": person, "before": before, "limit": limit}
    (rows,) = await tenancy.query(connection, tenant_id, values, OF_PERSON)
    return [Entry(tenant_id, *row) for row in rows]
