"""Queries of the past: which position is meant by `at`, and work that does not outlive whoever asked for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from litestar.types import Receive

from api import asked, errors
from api.asked import HttpRequest, Reader
from domain import instants
from ledger import errors as ledger_errors
from ledger import replay
from projections import travel
from projections.view import View

SECONDS_MAX = 60.0
"""Of one request: at half a core about 1.5 million events."""
REST = 1.0
"""Times as long as a batch took: a request for the past takes half a core."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


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


@asynccontextmanager
async def stood(reader: Reader, view: View, position: int) -> AsyncIterator[travel.Past]:
    """The view of the caller's tenant as it stood. Raises RequestRefused, and what `travel.Travels.to` raises."""
    try:
        async with reader.parts.travels.to(view, reader.tenant_id, position, rest=REST) as found:
            yield found
    except travel.Undigested as error:
        _log.error("A view as it stood, of tenant %s: %s", reader.tenant_id, error)
        text = "An event up to there cannot be processed, and an operator has to look at it. Ask for an earlier position or time."
        raise errors.RequestRefused(errors.PARKED, text) from error


async def while_asked(request: HttpRequest, reader: Reader, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. It is cancelled when the caller leaves, when the process stops, and after SECONDS_MAX.

    Raises RequestRefused then, and what `work` raises.
    """
    doing = asyncio.create_task(work)
    ends = [asyncio.create_task(_left(request.receive)), asyncio.create_task(reader.parts.stopping.wait())]
    try:
        await asyncio.wait((doing, *ends), timeout=SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if reader.parts.stopping.is_set():
            raise errors.RequestRefused(errors.UNAVAILABLE, "This process stops. Send the request again.")
        text = f"The answer was not there after {SECONDS_MAX:.0f} seconds. Ask for an earlier position, or run `bitnexus projections at`."
        raise errors.RequestRefused(errors.UNAVAILABLE, text)  # nobody hears it who has left
    finally:
        for task in (doing, *ends):
            task.cancel()
        await asyncio.gather(doing, *ends, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
