"""Log in. The session that follows is of commands/sessions."""

from uuid import UUID

import msgspec

from commands import sessions
from commands.accounts import challenges
from commands.accounts.registering import EMAIL, PASSWORD, strengthen
from commands.passwords import Passwords
from domain import accounts, refusals
from ledger import codec, errors
from ledger.caller import Caller
from ledger.store import Ledger


class CredentialsWrong(refusals.Refusal):
    """The same for an unknown address and a wrong password, after the same time."""

    def __init__(self, email: str) -> None:
        super().__init__("Address and password do not belong together", email, "Check both, and the tenant")


class LogIn(msgspec.Struct, frozen=True, kw_only=True):
    email: str
    password: str


async def log_in(
    command: LogIn,
    caller: Caller,
    ledger: Ledger,
    passwords: Passwords,
    device: sessions.Device = sessions.Device(),
    limits: accounts.SessionLimits = accounts.SESSION_LIMITS,
) -> sessions.LoggedIn:
    """Raises CredentialsWrong, SecondFactorNeeded, HashingOverloaded, VersionConflict (the account's sessions were all ended
    meanwhile)."""
    passwords.check_room()  # whoever is one too many learns it before anything is looked up for them
    try:
        email = accounts.normalise_email(command.email)
        accounts.normalise_password(command.password)
    except refusals.Invalid:
        raise CredentialsWrong(command.email) from None
    account_id = (await ledger.find(caller.tenant_id, EMAIL, [email])).get(email)
    before = None if account_id is None else await sessions.fence(account_id, caller.tenant_id, ledger)
    hashed = None if account_id is None else await ledger.secret(caller.tenant_id, account_id, PASSWORD)
    if not await passwords.matches(command.password, hashed) or account_id is None or hashed is None:
        raise CredentialsWrong(email)
    await strengthen(account_id, command.password, hashed, caller.tenant_id, ledger, passwords)
    account = await ledger.load(accounts.Account, caller.tenant_id, account_id)
    if not account.active:
        raise CredentialsWrong(email)
    await challenges.ask(account, before, ledger)
    return await start_session(account, before, device, caller, ledger, limits)


async def start_session(
    account: accounts.Account,
    before: UUID | None,
    device: sessions.Device,
    caller: Caller,
    ledger: Ledger,
    limits: accounts.SessionLimits = accounts.SESSION_LIMITS,
) -> sessions.LoggedIn:
    """For an account whose password was just checked or set; `before` as for `sessions.start`.

    Raises CredentialsWrong: the person is erased by now, or the account deactivated.
    """
    if account.email == codec.ERASED or not account.active:
        raise CredentialsWrong(account.email)
    try:
        return await sessions.start(account, before, device, caller, ledger, limits)
    except errors.SubjectErased:
        raise CredentialsWrong(account.email) from None
