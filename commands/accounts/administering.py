"""What admins do about accounts: rename them, give them another role, deactivate and reactivate them.

Whoever gets another role or is deactivated has no session any more: what a token says of them would not be so.
"""

from uuid import UUID

import msgspec

from commands import admins, sessions
from commands.accounts import mailed, registering
from commands.repeats import repeatable
from domain import accounts
from ledger import codec, errors
from ledger.caller import Caller
from ledger.store import Ledger, Receipt, Secret


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is None stays as it is. `version`: the one that this was decided upon, None if any will do."""

    account_id: UUID
    name: str | None = None
    role: str | None = None
    version: int | None = None


class Deactivate(msgspec.Struct, frozen=True, kw_only=True):
    account_id: UUID
    version: int | None = None


class Reactivate(msgspec.Struct, frozen=True, kw_only=True):
    account_id: UUID
    version: int | None = None


@repeatable(accounts.Account)
async def change(command: Change, caller: Caller, ledger: Ledger) -> Receipt[accounts.Account]:
    """Another role ends the account's sessions.

    Raises NotFound, AccountDeactivated, RoleUnknown, RoleNotHere, LastAdmin, VersionConflict and what `text.line` raises.
    """
    account = await _load(command.account_id, command.version, caller, ledger)
    before = account.role
    _decide(account, command)  # all refusals come before anybody leaves
    if account.role == before:
        return await ledger.append(caller, account)
    if before in accounts.RUNNING and account.role not in accounts.RUNNING:
        account = await _left(command.account_id, command.version, caller, ledger)
        _decide(account, command)
    ended = await sessions.ending_all(account.id, caller.tenant_id, "other role", ledger)
    secrets = await _running(account, caller.tenant_id, ledger)
    return await sessions.append(ended, caller, ledger, account, secrets=secrets)


@repeatable(accounts.Account)
async def deactivate(command: Deactivate, caller: Caller, ledger: Ledger) -> Receipt[accounts.Account]:
    """Nobody logs in with it, and its sessions end. Doing it again changes nothing. Raises NotFound, LastAdmin, VersionConflict."""
    account = await _load(command.account_id, command.version, caller, ledger)
    if account.active:
        account = await _left(command.account_id, command.version, caller, ledger)
    account.deactivate()
    ended = await sessions.ending_all(account.id, caller.tenant_id, "deactivated", ledger)
    secrets = mailed.used(account.id, *mailed.BEGUN_BY_PASSWORD)
    return await sessions.append(ended, caller, ledger, account, secrets=secrets)


@repeatable(accounts.Account)
async def reactivate(command: Reactivate, caller: Caller, ledger: Ledger) -> Receipt[accounts.Account]:
    """The person may log in again. Raises NotFound, VersionConflict."""
    account = await _load(command.account_id, command.version, caller, ledger)
    account.reactivate()
    return await ledger.append(caller, account, secrets=await _running(account, caller.tenant_id, ledger))


def _decide(account: accounts.Account, command: Change) -> None:
    if command.name is not None:
        account.rename(command.name)
    if command.role is not None:
        account.change_role(command.role)


async def _load(account_id: UUID, version: int | None, caller: Caller, ledger: Ledger) -> accounts.Account:
    """Raises NotFound (also for an erased person's), VersionConflict."""
    account = await ledger.load(accounts.Account, caller.tenant_id, account_id)
    if account.email == codec.ERASED:
        raise errors.NotFound(accounts.Account.TOPIC, account_id)
    if version is not None and account.version != version:
        raise errors.VersionConflict(account_id)
    return account


async def _left(account_id: UUID, version: int | None, caller: Caller, ledger: Ledger) -> accounts.Account:
    """The account, loaded anew and nothing decided, once somebody else runs the tenant. Raises LastAdmin."""
    account = await _load(account_id, version, caller, ledger)
    await admins.leave(account, caller, ledger)
    return account


async def _running(account: accounts.Account, tenant_id: UUID, ledger: Ledger) -> list[Secret]:
    """The mark of an account that runs the tenant and has a password."""
    if account.role not in accounts.RUNNING:
        return []
    if await ledger.secret(tenant_id, account.id, registering.PASSWORD) is None:
        return []
    return [Secret(tenant_id, registering.admin_kind(account.id), b"\1")]
