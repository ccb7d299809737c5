"""Ending sessions: one, all of an account's, or those whose time is over."""

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

import msgspec
from eventsourcing.domain import Aggregate

from commands import repeats
from commands.sessions import devices
from domain import accounts
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import A, Claim, Ledger, Receipt, Secret

REFRESH = "refresh token"
"""The kind of reservation whose owner says which of a session's refresh tokens is good; its key is the session."""
FENCE = "sessions"
"""The kind of reservation whose owner changes whenever all sessions of an account, its key, are ended, or it gets another address."""
LAST = "last session"
"""The kind of reservation whose owner is the session of an account, its key, that was begun last."""
SESSIONS_MAX = 50
"""Of one account at a time: more devices than anybody has, and few enough to be ended by one command. The next log-in ends those
that were not seen for longest."""
ENDED_AT_ONCE_MAX = 20
"""Old sessions that a log-in ends on its way."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    session_id: UUID
    account_id: UUID
    reason: str


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What an append carries that ends sessions: `append` takes it along."""

    sessions: list[accounts.Session]
    claims: list[Claim]
    releases: list[Claim]
    secrets: list[Secret]
    revokes: list[UUID]


async def fence(account_id: UUID, tenant_id: UUID, ledger: Ledger) -> UUID | None:
    """What `start` needs. MUST be read before the password is looked at, or whatever else lets the person in."""
    return (await ledger.find(tenant_id, FENCE, [str(account_id)])).get(str(account_id))


async def fenced(account_id: UUID, tenant_id: UUID, ledger: Ledger) -> Ending:
    """Ends none: for a command that looks at the password, which reads this first and `append`s it. The append is refused if all of the
    account's sessions were ended meanwhile, as by another password."""
    return unmoved(account_id, await fence(account_id, tenant_id, ledger))


def unmoved(account_id: UUID, before: UUID | None) -> Ending:
    """As `fenced`, for who knows the fence as it was when the password was looked at."""
    same = Claim(FENCE, str(account_id), before or account_id)
    return Ending(sessions=[], claims=[same], releases=[] if before is None else [same], secrets=[], revokes=[])


def moved(account_id: UUID, since: Ending) -> Ending:
    """Ends none either, and refuses the append of whoever read the fence before: for a command after which others that are under way
    would stand on what is no more. `since`: what was `fenced`."""
    return msgspec.structs.replace(since, claims=[Claim(FENCE, str(account_id), ids.new_id())])


async def last_begun(account_id: UUID, tenant_id: UUID, ledger: Ledger) -> UUID | None:
    """The account's last session; its own id if all were ended before there was one."""
    return (await ledger.find(tenant_id, LAST, [str(account_id)])).get(str(account_id))


async def end(
    session_id: UUID, account_id: UUID, reason: str, caller: Caller, ledger: Ledger
) -> Receipt[accounts.Session]:
    """One session of this account; one that has ended stays so. Raises NotFound, also for somebody else's, and VersionConflict."""
    return await _end(End(session_id=session_id, account_id=account_id, reason=reason), caller, ledger)


@repeats.repeatable(accounts.Session)
async def _end(command: End, caller: Caller, ledger: Ledger) -> Receipt[accounts.Session]:
    session = await ledger.load(accounts.Session, caller.tenant_id, command.session_id)
    if session.account_id != command.account_id:
        raise errors.NotFound(accounts.Session.TOPIC, command.session_id)
    session.revoke(command.reason)
    return await append(await of([session], caller.tenant_id, ledger), caller, ledger, session)


async def ending_all(
    account_id: UUID,
    tenant_id: UUID,
    reason: str,
    ledger: Ledger,
    *,
    keep: UUID | None = None,
    since: Ending | None = None,
) -> Ending:
    """The end of all of an account's sessions (but `keep`), for a command that changes what they were begun with: `append` it
    together with what the command decided. Of a session that is being begun at the same moment either the beginning is refused,
    or it is among them, or the append is. `since`: what was `fenced` by a command that looked at the password, or a token, before.
    """
    # Both before the sessions are listed. Whoever commits one between here and this command's commit moves the last one, and this
    # command is refused; whoever would commit one later finds another fence.
    since = since or await fenced(account_id, tenant_id, ledger)
    last = await last_begun(account_id, tenant_id, ledger)
    found = await ledger.load_many(accounts.Session, tenant_id, await devices.ids(account_id, tenant_id, ledger))
    sessions = [session for session in found.values() if session.id != keep]
    for session in sessions:
        session.revoke(reason)
    ended = await of(sessions, tenant_id, ledger)
    ended.claims.extend([Claim(FENCE, str(account_id), ids.new_id()), Claim(LAST, str(account_id), last or account_id)])
    ended.releases.extend(since.releases)
    if last is not None:
        ended.releases.append(Claim(LAST, str(account_id), last))
    return ended


async def end_all(account_id: UUID, reason: str, caller: Caller, ledger: Ledger) -> int:
    """Logs the account out everywhere; the position where that stands. Raises VersionConflict (others kept logging in or out)."""
    for left in reversed(range(repeats.DECIDED_MAX)):
        ended = await ending_all(account_id, caller.tenant_id, reason, ledger)
        if not ended.sessions:
            return (await ledger.head(caller.tenant_id)).position
        try:
            return (await append(ended, caller, ledger, ended.sessions[0])).position
        except errors.VersionConflict:
            first = await ledger.recall(accounts.Session, caller)
            if first is not None:
                return first.position
            if not left:
                raise
    raise AssertionError


async def append(
    ended: Ending,
    caller: Caller,
    ledger: Ledger,
    aggregate: A,
    *,
    others: Sequence[Aggregate] = (),
    claims: Sequence[Claim] = (),
    releases: Sequence[Claim] = (),
    secrets: Sequence[Secret] = (),
    erases: Sequence[UUID] = (),
) -> Receipt[A]:
    """As `Ledger.append`, and in the same transaction these sessions end; `aggregate` may be one of them.

    Raises as it does, and VersionConflict where somebody else ended all of the account's sessions at the same moment, or began one.
    """
    their = [session for session in ended.sessions if session is not aggregate]
    try:
        return await ledger.append(
            caller,
            aggregate,
            *others,
            *their,
            claims=[*claims, *ended.claims],
            releases=[*releases, *ended.releases],
            secrets=[*secrets, *ended.secrets],
            erases=erases,
            revokes=ended.revokes,
        )
    except errors.ReservationTaken as taken:
        if taken.kind in (FENCE, LAST):
            raise errors.VersionConflict(aggregate.id) from None
        raise


async def of(sessions: Sequence[accounts.Session], tenant_id: UUID, ledger: Ledger) -> Ending:
    """Of sessions that have just been revoked, each by its own method."""
    good = await ledger.find(tenant_id, REFRESH, [str(session.id) for session in sessions])
    return Ending(
        sessions=list(sessions),
        claims=[],
        releases=[Claim(REFRESH, session_id, owner) for session_id, owner in good.items()],
        secrets=[devices.forgotten(session) for session in sessions],
        revokes=[session.id for session in sessions],
    )


async def end_now(sessions: Sequence[accounts.Session], caller: Caller, ledger: Ledger) -> None:
    """Those that have just been revoked. If somebody else was quicker, so be it."""
    with suppress(errors.VersionConflict):
        await append(await of(sessions, caller.tenant_id, ledger), caller, ledger, sessions[0])


async def tidy(account_id: UUID, caller: Caller, ledger: Ledger, limits: accounts.SessionLimits) -> None:
    """Ends sessions whose time is over, and the longest unseen of too many. The log-in that it is done for stands already."""
    found = await devices.kept(account_id, caller.tenant_id, ledger)
    over = [id for id, kept in found.items() if kept is None or kept.is_over(limits)]
    live = sorted((kept.seen_at, id) for id, kept in found.items() if kept is not None and id not in over)
    too_many = [id for _, id in live[:-SESSIONS_MAX]]
    for some, reason in ((over, "expired"), (too_many, "too many sessions")):
        wanted = some[:ENDED_AT_ONCE_MAX]
        sessions = list((await ledger.load_many(accounts.Session, caller.tenant_id, wanted)).values())
        for session in sessions:
            session.revoke(reason)
        if sessions:
            another = msgspec.structs.replace(caller, command_id=ids.new_id(), fingerprint=b"")
            await end_now(sessions, another, ledger)
