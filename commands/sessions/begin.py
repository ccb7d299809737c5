"""Beginning a session, and keeping it up by its refresh token."""

import logging
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import psycopg

from commands.sessions import devices, ending, refresh_tokens
from commands.sessions.devices import Device
from commands.sessions.ending import FENCE, LAST, REFRESH
from commands.sessions.refresh_tokens import RefreshToken, RefreshTokenInvalid, RefreshTokenReplayed
from domain import accounts
from ledger import codec, errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt, Secret

_log = logging.getLogger(__name__)

TRIES_MAX = 50
"""Each that fails met another log-in of the same account that stands. Ten were not enough for some ten clients of one account who
came back at once to several processes; two passwords at a time are hashed in a process, so that many more do not wait here."""


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """`refresh_token` is shown once; its hash is what is kept."""

    account: accounts.Account
    session: Receipt[accounts.Session]
    refresh_token: str


async def start(
    account: accounts.Account,
    before: UUID | None,
    device: Device,
    caller: Caller,
    ledger: Ledger,
    limits: accounts.SessionLimits = accounts.SESSION_LIMITS,
) -> LoggedIn:
    """For whoever was just let in; always a new session. `before` is the fence's.

    Raises SubjectErased, VersionConflict (all of the account's sessions were ended meanwhile).
    """
    session = accounts.start_session(id=ids.new_id(), account_id=account.id)
    token = refresh_tokens.new(caller.tenant_id, session.id, ledger.keyring.master)
    kept = await devices.seen(session, datetime.now(UTC), device, caller.tenant_id, ledger)
    receipt = await _start(session, before, token, kept, caller, ledger)
    try:
        await ending.tidy(account.id, caller, ledger, limits)
    except (psycopg.Error, errors.LedgerError) as error:  # the session stands; the next log-in does it
        _log.warning("Old sessions could not be ended at a log-in: %s", type(error).__name__)
    return LoggedIn(account=account, session=receipt, refresh_token=token.text)


async def _start(
    session: accounts.Session, before: UUID | None, token: RefreshToken, kept: Secret, caller: Caller, ledger: Ledger
) -> Receipt[accounts.Session]:
    """Raises VersionConflict: the fence is another one, or others kept logging in to the account."""
    account = str(session.account_id)
    for _ in range(TRIES_MAX):
        last = await ending.last_begun(session.account_id, caller.tenant_id, ledger)
        # The first log-in's fence is the account's id: known to its rivals.
        claims = [
            Claim(REFRESH, str(session.id), token.owner),
            Claim(FENCE, account, before or session.account_id),
            Claim(LAST, account, session.id),
        ]
        releases = [] if before is None else [Claim(FENCE, account, before)]
        if last is not None:
            releases.append(Claim(LAST, account, last))
        try:
            return await ledger.append(caller, session, claims=claims, releases=releases, secrets=[kept])
        except errors.ReservationTaken as taken:
            if taken.kind == LAST:
                continue
            if before is not None or taken.owner != session.account_id:
                raise errors.VersionConflict(session.account_id) from None
            before = session.account_id  # of two first log-ins at once, this one came second
    raise errors.VersionConflict(session.account_id)


async def refresh(
    text: str,
    device: Device,
    caller: Caller,
    ledger: Ledger,
    limits: accounts.SessionLimits = accounts.SESSION_LIMITS,
) -> LoggedIn:
    """A new token for the old one, which is good no longer. `caller.tenant_id` is the token's (`tenant_of`).

    A token that was exchanged before ends the session, and that is recorded. Of two uses at the same moment one wins and the
    other changes nothing.

    Raises RefreshTokenInvalid, RefreshTokenReplayed, SessionRevoked, SessionExpired, VersionConflict (used at the same moment).
    """
    token = refresh_tokens.parse(text, ledger.keyring.master)
    session, good = await _session(token, caller, ledger)
    if good != token.owner:
        session.end_replayed()
        await ending.end_now([session], caller, ledger)
        raise RefreshTokenReplayed
    account = await ledger.load(accounts.Account, caller.tenant_id, session.account_id)
    if account.email == codec.ERASED or not account.active:  # the session began while that was being done
        raise RefreshTokenInvalid
    kept = await devices.kept_of(session, caller.tenant_id, ledger)
    try:
        session.check_refresh(kept.seen_at, datetime.now(UTC), limits)
    except accounts.SessionExpired:
        session.revoke("expired")
        await ending.end_now([session], caller, ledger)
        raise
    renewed = refresh_tokens.new(caller.tenant_id, session.id, ledger.keyring.master)
    try:
        receipt = await ledger.append(
            caller,
            session,
            claims=[Claim(REFRESH, str(session.id), renewed.owner)],
            releases=[Claim(REFRESH, str(session.id), good)],
            secrets=[await devices.seen(session, kept.started_at, device, caller.tenant_id, ledger)],
        )
    except errors.ReservationTaken:
        raise errors.VersionConflict(session.id) from None
    except errors.SubjectErased:
        raise RefreshTokenInvalid from None
    return LoggedIn(account=account, session=receipt, refresh_token=renewed.text)


async def _session(token: RefreshToken, caller: Caller, ledger: Ledger) -> tuple[accounts.Session, UUID]:
    """The token's session and the owner of its good token. Raises RefreshTokenInvalid, SessionRevoked."""
    if token.tenant_id != caller.tenant_id:
        raise RefreshTokenInvalid
    try:
        session = await ledger.load(accounts.Session, token.tenant_id, token.session_id)
    except errors.NotFound:
        raise RefreshTokenInvalid from None
    if session.revoked:
        raise accounts.SessionRevoked(session.id)
    good = (await ledger.find(token.tenant_id, REFRESH, [str(session.id)])).get(str(session.id))
    if good is None:  # restored or imported: tokens do not travel
        raise RefreshTokenInvalid
    return session, good


def tenant_of(refresh_token: str, ledger: Ledger) -> UUID:
    """Raises RefreshTokenInvalid."""
    return refresh_tokens.parse(refresh_token, ledger.keyring.master).tenant_id
