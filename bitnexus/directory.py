"""Which tenants there are, by the platform's own stream: for the command line, which shows slugs and not ids."""

from contextlib import suppress
from typing import LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from domain import tenants
from ledger import errors
from ledger.codec import Codec

REGISTERED: LiteralString = """
SELECT originator_id, originator_version, state FROM ledger.events
WHERE tenant_id = %(tenant)s AND topic = 'tenant.registered' ORDER BY position
"""


async def slugs(connection: AsyncConnection[TupleRow], codec: Codec) -> dict[UUID, str]:
    """Slugs by tenant, the platform's among them. `connection` is the projector's.

    A registration that cannot be read is left out: the audit asks, and says itself what was tampered with.
    """
    found = {tenants.PLATFORM_ID: tenants.PLATFORM_SLUG}
    cursor = await connection.execute(REGISTERED, {"tenant": tenants.PLATFORM_ID})
    for originator_id, version, state in await cursor.fetchall():
        with suppress(errors.EventUnreadable):
            parsed = codec.parse(tenants.Registration.Registered.TOPIC, originator_id, version, state)
            found[originator_id] = parsed.state.slug
    return found
