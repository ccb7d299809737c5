"""Around a log-in: whoever failed too often waits before the password is looked at, and whatever fails is counted."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import psycopg_pool

from api import asked, rates
from api.asked import HttpRequest
from api.parts import Parts
from commands import accounts as commands
from commands import attempts
from domain import accounts, refusals
from ledger import errors as ledger_errors

TELLING_MAX = 100
"""Events under way; what is not told now is told with the next failure."""

_log = logging.getLogger(__name__)
_telling: set[asyncio.Task[None]] = set()

_AWAY = (psycopg.Error, psycopg_pool.PoolTimeout, ledger_errors.LedgerError)


@asynccontextmanager
async def counted(tenant_id: UUID, email: str, request: HttpRequest, parts: Parts) -> AsyncIterator[None]:
    """The password is looked at inside. A name that nobody has is treated as one that somebody has, in the same time.

    Raises RateLimited, and what psycopg raises.
    """
    try:
        name = accounts.normalise_email(email)
    except refusals.Invalid:
        name = email[: accounts.EMAIL_LENGTH_MAX]
    address = request.client.host if request.client is not None else ""
    hashed = parts.rates.hashed
    attempted = attempts.Attempted(tenant_id, hashed(f"account {name}"), hashed(f"address {rates.network(address)}"))
    closed = await attempts.closed_for(attempted, parts.pool)
    if closed is not None:
        raise rates.RateLimited("log-in", f"too many attempts failed, of this {closed[0]}", closed[1])
    try:
        yield
    except commands.CredentialsWrong:
        if await attempts.failed(attempted, parts.pool) and len(_telling) < TELLING_MAX:
            # Not awaited: an account's failure would take longer than that of a name that nobody has.
            task = asyncio.create_task(_tell(attempted, name, request, parts))
            _telling.add(task)
            task.add_done_callback(_telling.discard)
        raise
    await attempts.succeeded(attempted, parts.pool)


async def _tell(attempted: attempts.Attempted, name: str, request: HttpRequest, parts: Parts) -> None:
    try:
        found = await parts.ledger.find(attempted.tenant_id, commands.EMAIL, [name])
        if name in found:
            caller = asked.nobody(request, attempted.tenant_id)
            await attempts.tell(attempted, found[name], caller, parts.ledger, parts.pool)
    except _AWAY as error:
        _log.warning("Failed attempts to log in could not be recorded: %s", type(error).__name__)
    except Exception:  # noqa: BLE001  the edge of a task
        _log.exception("Failed attempts to log in could not be recorded")


async def told() -> None:
    """Until nothing is under way: before the parts are closed."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*_telling, return_exceptions=True), 5.0)
