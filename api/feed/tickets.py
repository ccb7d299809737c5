"""Tickets of the feed: for clients that cannot send a header. Never logged: an error names none, and no log shows a query."""

import time
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers.base import BaseRouteHandler

from api import headers, rights, tokens
from api.parts import Parts
from api.rights import Who
from ledger import feed_tickets

PARAMETERS_MAX = 100

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Who)


class TicketInvalid(rights.Unauthenticated):
    """Says nothing of why: whoever has it had it from us."""

    def __init__(self) -> None:
        super().__init__(
            f"The ticket is not valid: it was used, or is older than {feed_tickets.GOOD_S} s. "
            "Get a new one by POST /api/v1/feed/tickets."
        )


class TicketIssued(msgspec.Struct, frozen=True):
    """Good for one stream, opened within `expires_in` seconds."""

    ticket: str
    expires_in: int


async def issue(parts: Parts, who: Who) -> TicketIssued:
    """Raises what psycopg raises."""
    async with parts.pool.connection() as connection:
        ticket = await feed_tickets.issue(connection, who.tenant_id, who.session_id, _ENCODER.encode(who))
    return TicketIssued(ticket, feed_tickets.GOOD_S)


async def redeem(state: State, ticket: str) -> Who:
    """Whoever it was issued to, with what they may do; `state` is the application's. It is used up, whatever comes of it.

    Raises TicketInvalid, TokenExpired, SessionEnded, TenantSuspended, RevocationsUnknown and what psycopg raises.
    """
    parts: Parts = state.parts
    access_tokens: tokens.AccessTokens = state.access_tokens
    async with parts.pool.connection() as connection:
        holder = await feed_tickets.redeem(connection, ticket)
    if holder is None:
        raise TicketInvalid
    who = _DECODER.decode(holder)
    if who.expires_at <= time.time():
        raise tokens.TokenExpired
    access_tokens.check_counts(who)
    return who


def of(query_string: bytes) -> str | None:
    """The ticket in a query. Raises TicketInvalid for a query that cannot be read."""
    if b"ticket=" not in query_string:
        return None
    try:
        query = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=PARAMETERS_MAX))
    except ValueError:
        raise TicketInvalid from None
    return query.get("ticket")


class ByTicket(rights.Guard):
    """Takes a ticket where no header says who asks. Raises what `redeem` raises too."""

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        scope = connection.scope
        ticket = None if headers.first(scope, b"authorization") is not None else of(scope["query_string"])
        if ticket is None:
            await super().__call__(connection, handler)
        else:
            await self.admit(connection, await redeem(scope["litestar_app"].state, ticket))
