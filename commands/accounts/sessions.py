"""Log in, refresh, log out. Only the hashes of passwords and refresh tokens are kept, outside the events."""

import base64
import binascii
import hashlib
import hmac
import os
from uuid import UUID

import msgspec

from commands.accounts.registering import EMAIL, PASSWORD, strengthen
from commands.passwords import Passwords
from domain import accounts, refusals
from ledger import codec, errors, ids
from ledger.caller import Caller
from ledger.store import Ledger, Receipt, Secret

REFRESH = "refresh"
SESSION_PREFIX = "session "
"""Of the kind of an account's secret that names one of its sessions, so that all of them are found without a search."""
REFRESH_SECRET_BYTES = 32
REFRESH_BYTES = 16 + 16 + REFRESH_SECRET_BYTES  # tenant, session, secret


class CredentialsWrong(refusals.Refusal):
    """The same for an unknown address and a wrong password, after the same time."""

    def __init__(self, email: str) -> None:
        super().__init__("Address and password do not belong together", email, "Check both, and the tenant")


class RefreshTokenInvalid(refusals.Refusal):
    """Says nothing of the token."""

    def __init__(self) -> None:
        super().__init__("The refresh token is not valid", "(not shown)", "Log in again")


class LogIn(msgspec.Struct, frozen=True, kw_only=True):
    email: str
    password: str


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """`refresh_token` is shown once; its hash is what is kept."""

    account: accounts.Account
    session: Receipt[accounts.Session]
    refresh_token: str


async def log_in(command: LogIn, caller: Caller, ledger: Ledger, passwords: Passwords) -> LoggedIn:
    """Raises CredentialsWrong, HashingOverloaded."""
    passwords.check_room()  # whoever is one too many learns it before anything is looked up for them
    try:
        email = accounts.normalise_email(command.email)
        accounts.normalise_password(command.password)
    except refusals.Invalid:
        raise CredentialsWrong(command.email) from None
    account_id = (await ledger.find(caller.tenant_id, EMAIL, [email])).get(email)
    hashed = None if account_id is None else await ledger.secret(caller.tenant_id, account_id, PASSWORD)
    if not await passwords.matches(command.password, hashed) or account_id is None or hashed is None:
        raise CredentialsWrong(email)
    await strengthen(account_id, command.password, hashed, caller.tenant_id, ledger, passwords)
    account = await ledger.load(accounts.Account, caller.tenant_id, account_id)
    return await start_session(account, caller, ledger)


async def start_session(account: accounts.Account, caller: Caller, ledger: Ledger) -> LoggedIn:
    """For an account whose password was just checked or set. Raises CredentialsWrong: the person is erased by now."""
    if account.email == codec.ERASED:
        raise CredentialsWrong(account.email)
    session = accounts.start_session(id=ids.new_id(), account_id=account.id)
    token, hashed = _new_refresh_token(caller.tenant_id, session.id)
    secrets = [Secret(session.id, REFRESH, hashed), Secret(account.id, _session_kind(session.id), b"\1")]
    receipt = await ledger.append(caller, session, secrets=secrets)
    return LoggedIn(account=account, session=receipt, refresh_token=token)


async def refresh(token: str, caller: Caller, ledger: Ledger) -> LoggedIn:
    """A new token for the old one, which is good no longer. `caller.tenant_id` is the token's (`tenant_of`).

    Raises RefreshTokenInvalid, SessionRevoked, VersionConflict (it was used at the same moment elsewhere).
    """
    _, session_id = _parse(token)
    try:  # before the secret is read: whoever uses the token meanwhile then makes this version a conflict
        session = await ledger.load(accounts.Session, caller.tenant_id, session_id)
    except errors.NotFound:
        raise RefreshTokenInvalid from None
    stored = await ledger.secret(caller.tenant_id, session_id, REFRESH)
    if stored is None or not hmac.compare_digest(stored, _hash(token)):
        raise RefreshTokenInvalid
    session.refresh()
    account = await ledger.load(accounts.Account, caller.tenant_id, session.account_id)
    if account.email == codec.ERASED:  # the session began while the person was being erased
        raise RefreshTokenInvalid
    renewed, hashed = _new_refresh_token(caller.tenant_id, session_id)
    receipt = await ledger.append(caller, session, secrets=[Secret(session_id, REFRESH, hashed)])
    return LoggedIn(account=account, session=receipt, refresh_token=renewed)


async def log_out(session_id: UUID, caller: Caller, ledger: Ledger) -> Receipt[accounts.Session]:
    """The session's refresh token is good no longer. Raises NotFound, VersionConflict."""
    session = await ledger.load(accounts.Session, caller.tenant_id, session_id)
    session.revoke("logged out")
    secrets = [Secret(session_id, REFRESH, None), Secret(session.account_id, _session_kind(session_id), None)]
    return await ledger.append(caller, session, secrets=secrets)


async def sessions_of(account_id: UUID, tenant_id: UUID, ledger: Ledger) -> list[UUID]:
    """The account's sessions that were not logged out."""
    kinds = await ledger.secret_kinds(tenant_id, account_id)
    return [UUID(kind.removeprefix(SESSION_PREFIX)) for kind in kinds if kind.startswith(SESSION_PREFIX)]


def _session_kind(session_id: UUID) -> str:
    return f"{SESSION_PREFIX}{session_id}"


def tenant_of(refresh_token: str) -> UUID:
    """Raises RefreshTokenInvalid."""
    return _parse(refresh_token)[0]


def _parse(token: str) -> tuple[UUID, UUID]:
    try:
        raw = base64.urlsafe_b64decode(token + "==")
    except (binascii.Error, ValueError):
        raise RefreshTokenInvalid from None
    if len(raw) != REFRESH_BYTES:
        raise RefreshTokenInvalid
    return UUID(bytes=raw[:16]), UUID(bytes=raw[16:32])


def _new_refresh_token(tenant_id: UUID, session_id: UUID) -> tuple[str, bytes]:
    """base64url of tenant (16) ‖ session (16) ‖ 256 random bits, and its SHA-256."""
    raw = tenant_id.bytes + session_id.bytes + os.urandom(REFRESH_SECRET_BYTES)
    token = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return token, _hash(token)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
