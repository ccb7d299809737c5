"""Another password: by who knows the one before, or by who received a mail. Both end the account's sessions."""

from uuid import UUID

import msgspec

from commands import mails, repeats, sessions
from commands.accounts import mailed
from commands.accounts.mailed import MailedTokenInvalid, Purpose
from commands.accounts.registering import PASSWORD, passworded
from commands.passwords import Passwords
from commands.repeats import repeatable
from domain import accounts, refusals
from ledger import codec
from ledger.caller import Caller
from ledger.store import Ledger, Receipt, Secret


class PasswordWrong(refusals.Refusal):
    """Of a person who is logged in. Says nothing of the password."""

    def __init__(self) -> None:
        super().__init__("The current password is another one", "(not shown)", "Check it", field="current_password")


class ChangePassword(msgspec.Struct, frozen=True, kw_only=True):
    """`session_id`: the session that goes on, all others end. `version`: the account's that this was decided upon, None if any will do."""

    account_id: UUID
    session_id: UUID
    current: str
    new: str
    version: int | None = None


class ResetPassword(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    new: str


@repeatable(accounts.Account)
async def change_password(
    command: ChangePassword, caller: Caller, ledger: Ledger, passwords: Passwords
) -> Receipt[accounts.Account]:
    """Raises PasswordWrong, AccountDeactivated, HashingOverloaded, VersionConflict and what `accounts.check_password` raises."""
    fenced = await sessions.fenced(command.account_id, caller.tenant_id, ledger)  # both before the hash is looked at
    account = await ledger.load(accounts.Account, caller.tenant_id, command.account_id)
    repeats.check_version(account, command.version)
    await check_current(account, command.current, ledger, passwords)
    accounts.check_password(command.new, email=account.email, name=account.name)
    hashed = await passwords.hash(command.new)
    account.change_password(accounts.PasswordSet.CHANGED)
    return await _set(account, hashed, "password changed", fenced, caller, ledger, keep=command.session_id)


@repeatable(accounts.Account)
async def reset_password(
    command: ResetPassword, caller: Caller, ledger: Ledger, passwords: Passwords
) -> Receipt[accounts.Account]:
    """By a token that came by mail, which also shows that the address is the person's. `caller.tenant_id` is the token's.

    Raises MailedTokenInvalid, AccountDeactivated, HashingOverloaded and what `accounts.check_password` raises.
    """
    _, account_id = mailed.parse(command.token)
    fenced = await sessions.fenced(account_id, caller.tenant_id, ledger)  # both before the token is looked at
    account = await ledger.load_many(accounts.Account, caller.tenant_id, [account_id])
    _, _, kept = await mailed.find(command.token, Purpose.RESET, ledger)
    found = account.get(account_id)
    if found is None or found.email == codec.ERASED:
        raise MailedTokenInvalid
    await mailed.check_address(found, kept, ledger)
    accounts.check_password(command.new, email=found.email, name=found.name)
    hashed = await passwords.hash(command.new)
    found.change_password(accounts.PasswordSet.RESET)
    found.verify_email()
    return await _set(found, hashed, "password reset", fenced, caller, ledger)


async def check_current(account: accounts.Account, password: str, ledger: Ledger, passwords: Passwords) -> None:
    """For what only the person may do, and not who found an open browser. Raises PasswordWrong, HashingOverloaded."""
    hashed = await ledger.secret(account.tenant_id, account.id, PASSWORD)
    try:
        matches = await passwords.matches(password, hashed)
    except refusals.Invalid:
        matches = False
    if not matches:
        raise PasswordWrong


async def _set(
    account: accounts.Account,
    hashed: bytes,
    reason: str,
    fenced: sessions.Ending,
    caller: Caller,
    ledger: Ledger,
    keep: UUID | None = None,
) -> Receipt[accounts.Account]:
    """The account's version makes sure that nobody else set a password since the old one, or the token, was checked, and the fence
    that nobody erased the person."""
    ended = await sessions.ending_all(account.id, caller.tenant_id, reason, ledger, keep=keep, since=fenced)
    notice = mails.Mail(template=mails.Template.PASSWORD_CHANGED, to=account.email, name=account.name)
    secrets: list[Secret] = [
        *passworded(account, hashed),
        *mailed.used(account.id, *mailed.BEGUN_BY_PASSWORD),
        await mails.to_send(notice, caller.tenant_id, account.id, ledger),
    ]
    return await sessions.append(ended, caller, ledger, account, secrets=secrets)
