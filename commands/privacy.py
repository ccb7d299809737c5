"""Erase a person: an account, or a buyer known by a reference.

In one transaction the event is appended, the key is destroyed, reservations are released and secrets deleted. Before it the
erasure is written down outside the database (`Noted`), so that a restored backup forgets the person again. And before that it
is made sure that somebody can still run the tenant (`admins.leave`).
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec

from commands import accounts as account_commands
from commands import admins, invitations, known_by, repeats, sessions
from commands.accounts import held
from commands.repeats import repeatable
from commands.transactions import BUYER
from domain import accounts, privacy, refusals, transactions
from ledger import codec, errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt

Noted = Callable[[UUID, UUID], Awaitable[None]]
"""Writes (tenant, subject) to the list of erasures outside the database. Durable when it returns. Raises NotNoted."""


class NotNoted(Exception):
    """The list of erasures could not be written. Nothing is wrong with the command: it may be sent again."""

    def __init__(self) -> None:
        super().__init__(
            "The erasure could not be noted outside the database, so nobody was erased. Tell the operator, whose log "
            "says why, and send the command again."
        )


class PersonUnknown(refusals.Invalid):
    """Says nothing of the reference: it may be an e-mail address, and this is what a log would keep of it."""

    def __init__(self) -> None:
        super().__init__(
            "There is no such person, or the person has been erased",
            "(not shown)",
            "Give the account's id or address, or the buyer_ref under which sales were recorded",
        )


class PersonNotNamed(refusals.Invalid):
    def __init__(self, given: int) -> None:
        super().__init__(
            "The command does not name one person",
            f"{given} names",
            "Give one of account_id, email, buyer_ref and subject_id",
        )


class Erase(msgspec.Struct, frozen=True, kw_only=True):
    """One of the four names the person. `subject_id` is for who has an id from the list of erasures: an account's, or a
    buyer's, who was erased before and stays so, also if it is the tenant's last admin. `version`: the account's, None if any will do."""

    account_id: UUID | None = None
    email: str | None = None
    buyer_ref: str | None = None
    subject_id: UUID | None = None
    version: int | None = None


async def noted_nowhere(tenant_id: UUID, subject_id: UUID) -> None:
    """For a database of which no backup is ever restored: a test's."""


@repeatable(privacy.Erasure)
async def erase(command: Erase, caller: Caller, ledger: Ledger, noted: Noted) -> Receipt[privacy.Erasure]:
    """Who was erased before stays so: nothing is appended, and the receipt shows that erasure.

    Raises NotFound (no such account), PersonUnknown (no such address or buyer), PersonNotNamed, EmailInvalid and what
    `checked_buyer_ref` raises, LastAdmin, NotNoted, VersionConflict.
    """
    subject_id = await _subject(command, caller.tenant_id, ledger)
    # Before the account: an address that it gets meanwhile would stay reserved, and what is known under it.
    since = await sessions.fenced(subject_id, caller.tenant_id, ledger)
    account = await _account(subject_id, caller.tenant_id, ledger)
    if account is None and command.account_id is not None:
        raise errors.NotFound(accounts.Account.TOPIC, subject_id)
    if account is not None:
        repeats.check_version(account, command.version)
        await admins.leave(account, caller, ledger, last_too=command.subject_id is not None)
    known = None if account is None else await known_by.of(account, await held.of(account, ledger), caller, ledger)
    erases = [subject_id, *([] if known is None else known.buyers)]
    erasure, *others = [await _erasure(each, caller.tenant_id, ledger) for each in erases]
    for each in erases:
        await noted(caller.tenant_id, each)
    if account is None or known is None:
        return await ledger.append(caller, erasure, erases=erases)
    ended = await sessions.ending_all(account.id, caller.tenant_id, "erased", ledger, since=since)
    invited = await invitations.forgetting(known.addresses, caller.tenant_id, ledger)
    return await sessions.append(
        ended,
        caller,
        ledger,
        erasure,
        others=[*others, *invited.revoked],
        releases=_address(account),
        secrets=invited.secrets,
        erases=erases,
    )


async def _erasure(subject_id: UUID, tenant_id: UUID, ledger: Ledger) -> privacy.Erasure:
    """The one that there is, too: what came back of the person, as a restored row of a key, must go again."""
    id = erasure_id(tenant_id, subject_id)
    before = (await ledger.load_many(privacy.Erasure, tenant_id, [id])).get(id)
    return before or privacy.erase(id=id, subject_id=subject_id)


def erasure_id(tenant_id: UUID, subject_id: UUID) -> UUID:
    """The id of the one erasure that a subject can have."""
    return ids.derived_id(b"erasure", tenant_id.bytes, subject_id.bytes)


async def _subject(command: Erase, tenant_id: UUID, ledger: Ledger) -> UUID:
    named = [command.account_id, command.email, command.buyer_ref, command.subject_id]
    given = sum(each is not None for each in named)
    if given != 1:
        raise PersonNotNamed(given)
    if command.email is not None:
        email = accounts.normalise_email(command.email)
        found = (await ledger.find(tenant_id, account_commands.EMAIL, [email])).get(email)
    elif command.buyer_ref is not None:
        found = await ledger.known_subject(tenant_id, BUYER, transactions.checked_buyer_ref(command.buyer_ref))
    else:
        found = command.account_id or command.subject_id
    if found is None:
        raise PersonUnknown
    return found


async def _account(subject_id: UUID, tenant_id: UUID, ledger: Ledger) -> accounts.Account | None:
    """None: the subject is a buyer, or nobody."""
    return (await ledger.load_many(accounts.Account, tenant_id, [subject_id])).get(subject_id)


def _address(account: accounts.Account) -> list[Claim]:
    """What is found by the account's address in clear, and so must be released before the key is destroyed."""
    legible = account.email not in (codec.ERASED, codec.UNREADABLE)
    key = accounts.normalise_email(account.email) if legible else ""
    return [Claim(account_commands.EMAIL, key, account.id)] if legible else []
