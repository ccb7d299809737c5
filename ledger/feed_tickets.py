"""Tickets: each opens one stream, once, within GOOD_S, in any process on the database. What a ticket is good for is its issuer's
word, opaque here.

A ticket is base64url of the tenant's id and 32 random bytes: 64 characters. Only their SHA-256 reaches the database.
"""

import base64
import binascii
import hashlib
import os
from typing import LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

GOOD_S = 30
UNUSED_MAX = 20
"""Of one session: a page opens a few streams at once. The oldest go."""
TICKET_CHARACTERS = 64

ISSUE: LiteralString = "SELECT ledger.issue_feed_ticket(%s, %s, %s, %s, %s, %s)"
REDEEM: LiteralString = "SELECT o_holder FROM ledger.redeem_feed_ticket(%s, %s)"

Connection = AsyncConnection[TupleRow]


async def issue(connection: Connection, tenant_id: UUID, session_id: UUID, holder: bytes) -> str:
    """A new ticket. `redeem` gives back the holder."""
    secret = os.urandom(32)
    row = (tenant_id, hashlib.sha256(secret).digest(), session_id, holder, GOOD_S, UNUSED_MAX)
    await connection.execute(ISSUE, row)
    return base64.urlsafe_b64encode(tenant_id.bytes + secret).decode()


async def redeem(connection: Connection, ticket: str) -> bytes | None:
    """The holder; None for what is no ticket, was used, or is older than GOOD_S."""
    try:
        if len(ticket) != TICKET_CHARACTERS:
            return None
        raw = base64.b64decode(ticket.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    tenant_id, digest = UUID(bytes=raw[:16]), hashlib.sha256(raw[16:]).digest()
    row = await (await connection.execute(REDEEM, (tenant_id, digest))).fetchone()
    return None if row is None else bytes(row[0])
