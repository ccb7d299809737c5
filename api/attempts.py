"""Around whatever looks at a password: whoever failed too often waits before it is looked at, and whatever fails is counted."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import psycopg
import psycopg_pool

from api import asked, rates
from api.asked import HttpRequest, Sender
from api.parts import Parts
from commands import accounts as commands
from commands import attempts
from commands.accounts import challenges, password
from commands.attempts import Attempted, Begun
from domain import accounts, refusals
from ledger import errors as ledger_errors

TELLING_MAX = 100
"""Events under way; what is not told now is told a minute later."""
LATER_MAX = 1_000
"""Accounts with failures that wait to be told; of further ones they are told with the next failure."""

_log = logging.getLogger(__name__)
_Tell = Callable[[], Awaitable[bool]]
"""Whether anything is left to be told."""
_telling: set[asyncio.Task[None]] = set()
_later: dict[Attempted, asyncio.TimerHandle] = {}

_AWAY = (psycopg.Error, psycopg_pool.PoolTimeout, ledger_errors.LedgerError)


@asynccontextmanager
async def counted(tenant_id: UUID, email: str, request: HttpRequest, parts: Parts) -> AsyncIterator[None]:
    """The password of a log-in is looked at inside. A name that nobody has is treated as one that somebody has, in the same time.

    Raises RateLimited, and what psycopg raises.
    """
    try:
        name = accounts.normalise_email(email)
    except refusals.Invalid:
        name = email[: accounts.EMAIL_LENGTH_MAX]
    address = request.client.host if request.client is not None else ""
    hashed = parts.rates.hashed
    attempted = Attempted(tenant_id, hashed(f"account {name}"), hashed(f"address {rates.network(address)}"))
    caller = asked.nobody(request, tenant_id)

    async def tell() -> bool:
        account_id = (await parts.ledger.find(tenant_id, commands.EMAIL, [name])).get(name)
        if account_id is None:
            return False
        return await attempts.tell(attempted, account_id, caller, parts.ledger, parts.pool)

    async with _counted(attempted, "log-in", tell, parts):
        yield


@asynccontextmanager
async def counted_current(sender: Sender) -> AsyncIterator[None]:
    """The password of somebody who is logged in is looked at inside. Apart from log-ins: whoever makes an account wait there must not
    keep its owner from another password. Raises RateLimited, and what psycopg raises."""
    who, parts = sender.who, sender.parts
    attempted = Attempted(who.tenant_id, parts.rates.hashed(f"current password {who.account_id}"), None)
    tell = partial(attempts.tell, attempted, who.account_id, sender.caller, parts.ledger, parts.pool)
    async with _counted(attempted, "current password", tell, parts):
        yield


@asynccontextmanager
async def _counted(attempted: Attempted, limit: str, tell: _Tell, parts: Parts) -> AsyncIterator[None]:
    begun = await attempts.begin(attempted, parts.pool)
    if begun.closed is not None:
        raise rates.RateLimited(limit, f"too many attempts failed, of this {begun.closed[0]}", begun.closed[1])
    try:
        yield
    except (commands.CredentialsWrong, password.PasswordWrong):
        # Not awaited: an account's failure would take longer than that of a name that nobody has.
        if await attempts.failed(attempted, parts.pool, begun):
            _tell_now(attempted, tell)
        else:
            _tell_later(attempted, tell)
        raise
    except challenges.SecondFactorNeeded:
        await _done(attempted, begun, parts, right=True)
        raise
    except Exception:  # a wrong password is told before anything else can go wrong
        await _done(attempted, begun, parts, right=False)
        raise
    await _done(attempted, begun, parts, right=True)


async def _done(attempted: Attempted, begun: Begun, parts: Parts, *, right: bool) -> None:
    """What was done inside stands, whether this can be noted or not."""
    try:
        await attempts.done(attempted, parts.pool, begun, right=right)
    except _AWAY as error:
        _log.warning("An attempt to log in could not be taken back: %s", type(error).__name__)


def _tell_now(attempted: Attempted, tell: _Tell) -> None:
    if len(_telling) >= TELLING_MAX:
        _tell_later(attempted, tell)
        return
    task = asyncio.create_task(_tell(attempted, tell))
    _telling.add(task)
    task.add_done_callback(_telling.discard)


def _tell_later(attempted: Attempted, tell: _Tell) -> None:
    """Once for all that fail until then."""
    key = attempted._replace(address=None)

    def now() -> None:
        del _later[key]
        _tell_now(attempted, tell)

    if key not in _later and len(_later) < LATER_MAX:
        _later[key] = asyncio.get_running_loop().call_later(attempts.TOLD_EVERY_S + 1, now)


async def _tell(attempted: Attempted, tell: _Tell) -> None:
    try:
        left = await tell()
    except _AWAY as error:
        _log.warning("Failed attempts to log in could not be recorded: %s", type(error).__name__)
        left = True
    except Exception:  # noqa: BLE001  the edge of a task
        _log.exception("Failed attempts to log in could not be recorded")
        return
    if left:
        _tell_later(attempted, tell)


async def told() -> None:
    """Until nothing is under way."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*_telling, return_exceptions=True), 5.0)


async def close() -> None:
    """Before the parts are closed. What was to be told later is told with the next failure."""
    await told()
    for timer in _later.values():
        timer.cancel()
    _later.clear()
