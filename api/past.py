"""Queries of the past: which position is meant by `at`, and work that does not outlive whoever asked for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from litestar.types import Receive

from api import asked, errors
from api.asked import HttpRequest, Reader
from domain import instants
from ledger import errors as ledger_errors
from ledger import replay

SECONDS_MAX = 60.0
"""Of one request: at half a core about 1.5 million events."""
REST = 1.0
"""Times as long as a batch took: a request for the past takes half a core."""

T = TypeVar("T")


async def position(reader: Reader, at: str | None) -> int:
    """The last position that `at` covers: itself, the last one recorded by an instant, or the head's if it is left out.

    Raises RequestRefused, TimeUnreadable, TimeWithoutZone, TimeOutOfRange.
    """
    head = await reader.head()
    if at is None:
        return head
    if ":" in at:  # stands in every time of RFC 3339, and in no position
        instant = instants.parsed(at, "at")
        async with reader.parts.pool.connection() as connection:
            return await replay.position_at(connection, reader.tenant_id, instant)
    try:
        found = asked.number(reader.parts, reader.who, at)
    except ledger_errors.PositionTokenInvalid:
        text = f"at is neither a position nor a time: {at[:40]!r}. Send an X-Position as it was given, or 2026-01-31T09:30:00Z."
        raise errors.RequestRefused(errors.INVALID, text, {"at": [text]}) from None
    if found > head:
        text = f"at lies beyond the end of the stream: {at[:40]!r}. Send a position up to {reader.shown(head)}, or leave it out."
        raise errors.RequestRefused(errors.INVALID, text, {"at": [text]})
    return found


async def while_asked(request: HttpRequest, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. It is cancelled when the caller leaves, and after SECONDS_MAX. Raises RequestRefused then."""
    doing = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request.receive))
    try:
        await asyncio.wait((doing, leaving), timeout=SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        text = f"The answer was not there after {SECONDS_MAX:.0f} seconds. Ask for an earlier position, or run `bitnexus projections at`."
        raise errors.RequestRefused(errors.UNAVAILABLE, text)  # nobody hears it who has left
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
