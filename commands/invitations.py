"""Invite somebody, and what becomes of it.

The address is sealed among the secrets while the invitation is open, all of a tenant's under one owner, so that they are found
together. It goes when the invitation is accepted or revoked; of one that ended by itself when the next is issued or looked at. Whoever has
an account of that address and is erased is forgotten here, too.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from commands import limits, mails
from commands.accounts import mailed, registering
from commands.accounts.mailed import MailedTokenInvalid, Purpose
from commands.passwords import Passwords
from commands.repeats import repeatable
from domain import accounts, invitations, refusals
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt, Secret

ENTRY = "invitation "
"""Of the kind of a secret that holds an open invitation, before its id."""
OPEN_MAX = 500
"""Of a tenant at a time: they are shown on one page."""
MAILED = "invited "
"""Of the kind of a secret that counts the mails of a day to an address, before its keyed hash."""
DAY = timedelta(days=1)
TO_ONE_MAX = 3
"""Mails to one address within a day: an invitation, and two more for who mislaid it."""
A_DAY_MAX = 500
"""Mails of a tenant within a day, whatever becomes of the invitations: nobody else's are to wait for them."""


class TooManyOpen(refusals.Conflict):
    def __init__(self) -> None:
        super().__init__("The tenant has as many open invitations as it can have", OPEN_MAX, "Revoke some")


class InvitedOtherwise(refusals.Invalid):
    """Says nothing of the address that was invited."""

    def __init__(self, email: str) -> None:
        advice = "Register with the address to which the invitation came"
        super().__init__("The invitation is for another address", email, advice, field="email")


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    email: str
    role: str = accounts.Role.USER


class Accept(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    email: str
    name: str
    password: str


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation that can be accepted."""

    id: UUID
    email: str
    role: str
    issued_at: datetime
    good_until: datetime


class Forgetting(NamedTuple):
    """What an append carries that forgets whom invitations were for."""

    revoked: list[invitations.Invitation]
    secrets: list[Secret]


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    sealed: bytes
    role: str
    issued_at: datetime
    good_until: datetime


class _Mailed(msgspec.Struct, frozen=True, kw_only=True):
    """How many mails since then."""

    since: datetime
    count: int


_DECODER = msgspec.json.Decoder(_Entry)
_MAILED_DECODER = msgspec.json.Decoder(_Mailed)


@repeatable(invitations.Invitation)
async def issue(command: Issue, caller: Caller, ledger: Ledger) -> Receipt[invitations.Invitation]:
    """A mail goes to the address.

    Raises EmailInvalid, EmailTaken, RegistrationNotOpen, TooManyOpen, MailedTooOften, RoleUnknown, RoleNotHere.
    """
    email = accounts.written_email(command.email)
    key = accounts.normalise_email(email)
    if await ledger.find(caller.tenant_id, registering.EMAIL, [key]):
        raise registering.EmailTaken(email)
    await registering.check_mode(caller.tenant_id, ledger, invited=True)
    found = await ledger.secrets(caller.tenant_id, owner_of(caller.tenant_id))
    there, gone = _entries(caller.tenant_id, found)
    if len(there) >= OPEN_MAX:
        raise TooManyOpen
    counted = _counted(caller.tenant_id, key, found, ledger)
    id, everybody = ids.new_id(), owner_of(caller.tenant_id)
    made = mailed.make(caller.tenant_id, id, Purpose.INVITATION)
    invitation = invitations.issue(id=id, tenant_id=caller.tenant_id, role=command.role, good_until=made.good_until)
    sealed = await ledger.seal(caller.tenant_id, everybody, ENTRY, email.encode())
    entry = _Entry(sealed=sealed, role=command.role, issued_at=datetime.now(UTC), good_until=made.good_until)
    mail = mails.Mail(template=mails.Template.INVITATION, to=email, token=made.token, good_until=made.good_until)
    secrets = [
        *gone,
        *counted,
        made.secret,
        Secret(everybody, f"{ENTRY}{id}", msgspec.json.encode(entry)),
        await mails.to_send(mail, caller.tenant_id, everybody, ledger),
    ]
    return await ledger.append(caller, invitation, secrets=secrets)


@repeatable(invitations.Invitation)
async def revoke(command: UUID, caller: Caller, ledger: Ledger) -> Receipt[invitations.Invitation]:
    """Raises NotFound, InvitationClosed (it was accepted)."""
    invitation = await ledger.load(invitations.Invitation, caller.tenant_id, command)
    invitation.revoke()
    return await ledger.append(caller, invitation, secrets=_over(caller.tenant_id, command))


@repeatable(accounts.Account)
async def accept(command: Accept, caller: Caller, ledger: Ledger, passwords: Passwords) -> Receipt[accounts.Account]:
    """The account of whom the invitation was mailed to, with the role that the admin gave. `caller.tenant_id` is the token's.

    Raises MailedTokenInvalid, InvitedOtherwise, InvitationClosed, EmailTaken, LimitReached, HashingOverloaded and what
    `accounts.register` and `accounts.check_password` raise.
    """
    _, id = mailed.parse(command.token)
    found = (await ledger.load_many(invitations.Invitation, caller.tenant_id, [id])).get(id)  # before the token
    await mailed.find(command.token, Purpose.INVITATION, ledger)
    invited = await _invited(caller.tenant_id, id, ledger)
    if found is None or invited is None:
        raise MailedTokenInvalid
    key = accounts.normalise_email(command.email)
    if key != accounts.normalise_email(invited):
        raise InvitedOtherwise(command.email)
    accounts.check_password(command.password, email=command.email, name=command.name)
    await limits.check_users(caller.tenant_id, ledger)
    account = accounts.register(
        id=ids.new_id(),
        tenant_id=caller.tenant_id,
        email=command.email,
        name=command.name,
        role=found.role,
    )
    account.verify_email()  # the token came there
    found.accept(account.id)
    hashed = await passwords.hash(command.password)
    secrets = [*registering.passworded(account, hashed), *_over(caller.tenant_id, id)]
    try:
        claims = [Claim(registering.EMAIL, key, account.id)]
        return await limits.append_account(caller, ledger, account, found, claims=claims, secrets=secrets)
    except errors.ReservationTaken:
        raise registering.EmailTaken(command.email) from None


async def open_to(addresses: Sequence[str], tenant_id: UUID, ledger: Ledger) -> list[Open]:
    """Of everybody who has one of these addresses: what `forgetting` revokes. The newest first."""
    keys = {accounts.normalise_email(each) for each in addresses}
    return [each for each in await still_open(tenant_id, ledger) if accounts.normalise_email(each.email) in keys]


async def still_open(tenant_id: UUID, ledger: Ledger) -> list[Open]:
    """The newest first."""
    there, _ = _entries(tenant_id, await ledger.secrets(tenant_id, owner_of(tenant_id)))
    shown = []
    for id, entry in there.items():
        email = await ledger.unseal(tenant_id, owner_of(tenant_id), ENTRY, entry.sealed)
        if email is not None:
            shown.append(
                Open(
                    id=id,
                    email=email.decode(),
                    role=entry.role,
                    issued_at=entry.issued_at,
                    good_until=entry.good_until,
                )
            )
    return sorted(shown, key=lambda each: each.id, reverse=True)


async def forgetting(addresses: Sequence[str], tenant_id: UUID, ledger: Ledger) -> Forgetting:
    """Of everybody who has one of these addresses: open invitations, mails that wait, how many were sent."""
    keys, everybody = {accounts.normalise_email(each) for each in addresses}, owner_of(tenant_id)
    if not keys:
        return Forgetting([], [])
    found = await ledger.secrets(tenant_id, everybody)
    there, gone = _entries(tenant_id, found)
    open_to = {id: await ledger.unseal(tenant_id, everybody, ENTRY, entry.sealed) for id, entry in there.items()}
    ids = [
        id for id, email in open_to.items() if email is not None and accounts.normalise_email(email.decode()) in keys
    ]
    revoked = list((await ledger.load_many(invitations.Invitation, tenant_id, ids)).values())
    for invitation in revoked:
        invitation.revoke()
    counted = [MAILED + ledger.keyring.master.reference(tenant_id, MAILED, key).hex() for key in keys]
    waiting = [kind for kind, value in found.items() if await _is_mail_to(keys, kind, value, tenant_id, ledger)]
    kinds = [*(kind for kind in counted if kind in found), *waiting]
    secrets = [*gone, *(secret for id in ids for secret in _over(tenant_id, id))]
    return Forgetting(revoked, [*secrets, *(Secret(everybody, kind, None) for kind in kinds)])


async def _is_mail_to(keys: Collection[str], kind: str, value: bytes, tenant_id: UUID, ledger: Ledger) -> bool:
    if not kind.startswith(mails.KIND):
        return False
    clear = await ledger.unseal(tenant_id, owner_of(tenant_id), mails.PURPOSE, value)
    return clear is not None and accounts.normalise_email(mails.DECODER.decode(clear).to) in keys


def owner_of(tenant_id: UUID) -> UUID:
    """Whose secrets a tenant's open invitations are, and the subject of the key that seals their addresses."""
    return ids.derived_id(b"invitations", tenant_id.bytes)


async def _invited(tenant_id: UUID, id: UUID, ledger: Ledger) -> str | None:
    value = await ledger.secret(tenant_id, owner_of(tenant_id), f"{ENTRY}{id}")
    if value is None:
        return None
    email = await ledger.unseal(tenant_id, owner_of(tenant_id), ENTRY, _DECODER.decode(value).sealed)
    return None if email is None else email.decode()


def _entries(tenant_id: UUID, found: Mapping[str, bytes]) -> tuple[dict[UUID, _Entry], list[Secret]]:
    """Those that are good still, and what an append carries that forgets the others. `found`: by kind."""
    now = datetime.now(UTC)
    entries = {
        UUID(kind.removeprefix(ENTRY)): _DECODER.decode(value)
        for kind, value in found.items()
        if kind.startswith(ENTRY)
    }
    gone = [secret for id, entry in entries.items() if entry.good_until <= now for secret in _over(tenant_id, id)]
    return {id: entry for id, entry in entries.items() if entry.good_until > now}, gone


def _counted(tenant_id: UUID, key: str, found: Mapping[str, bytes], ledger: Ledger) -> list[Secret]:
    """What an append carries that counts one more mail to the address, and forgets those of days gone by. Raises MailedTooOften."""
    now, owner = datetime.now(UTC), owner_of(tenant_id)
    mine = MAILED + ledger.keyring.master.reference(tenant_id, MAILED, key).hex()
    known = {kind: _MAILED_DECODER.decode(value) for kind, value in found.items() if kind.startswith(MAILED)}
    recent = {kind: each for kind, each in known.items() if each.since + DAY > now}
    before = recent.get(mine, _Mailed(since=now, count=0))
    if before.count >= TO_ONE_MAX:
        raise mailed.MailedTooOften(before.since + DAY - now)
    if sum(each.count for each in recent.values()) >= A_DAY_MAX:
        raise mailed.MailedTooOften(min(each.since for each in recent.values()) + DAY - now)
    counted = msgspec.json.encode(_Mailed(since=before.since, count=before.count + 1))
    return [
        *(Secret(owner, kind, None) for kind in known.keys() - recent.keys() - {mine}),
        Secret(owner, mine, counted),
    ]


def _over(tenant_id: UUID, id: UUID) -> list[Secret]:
    return [*mailed.used(id, Purpose.INVITATION), Secret(owner_of(tenant_id), f"{ENTRY}{id}", None)]
