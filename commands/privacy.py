"""Erase a person: an account, or a buyer known by a reference.

In one transaction the event is appended, the key is destroyed, reservations are released and secrets deleted. Before it the
erasure is written down outside the database (`Noted`), so that a restored backup forgets the person again.
"""

import uuid
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec

from commands import accounts as account_commands
from commands.repeats import repeatable
from commands.transactions import BUYER
from domain import accounts, privacy, refusals, transactions
from ledger import codec, errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt, Secret

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
            "Give account_id, or the buyer_ref under which sales were recorded",
        )


class PersonNotNamed(refusals.Invalid):
    def __init__(self, given: int) -> None:
        super().__init__(
            "The command does not name one person",
            f"{given} names",
            "Give one of account_id, buyer_ref and subject_id",
        )


class Erase(msgspec.Struct, frozen=True, kw_only=True):
    """One of the three names the person. `subject_id` is for who has an id from a list: an account's, or a buyer's."""

    account_id: UUID | None = None
    buyer_ref: str | None = None
    subject_id: UUID | None = None


async def noted_nowhere(tenant_id: UUID, subject_id: UUID) -> None:
    """For a database of which no backup is ever restored: a test's."""


@repeatable(privacy.Erasure)
async def erase(command: Erase, caller: Caller, ledger: Ledger, noted: Noted) -> Receipt[privacy.Erasure]:
    """Who was erased before stays so: nothing is appended, and the receipt shows that erasure.

    Raises NotFound (no such account), PersonUnknown (no such buyer), PersonNotNamed, NotNoted, VersionConflict.
    """
    subject_id = await _subject(command, caller.tenant_id, ledger)
    releases, secrets = await _of_account(subject_id, caller.tenant_id, ledger, required=command.account_id is not None)
    id = erasure_id(caller.tenant_id, subject_id)
    before = (await ledger.load_many(privacy.Erasure, caller.tenant_id, [id])).get(id)
    await noted(caller.tenant_id, subject_id)
    return await ledger.append(
        caller,
        before or privacy.erase(id=id, subject_id=subject_id),
        releases=releases,
        secrets=secrets,
        erases=[subject_id],  # also of an erasure that is there: a restored row of a key must go again
    )


def erasure_id(tenant_id: UUID, subject_id: UUID) -> UUID:
    """The id of the one erasure that a subject can have."""
    return ids.derived_id(b"erasure", tenant_id.bytes, subject_id.bytes)


async def _subject(command: Erase, tenant_id: UUID, ledger: Ledger) -> UUID:
    named = [each for each in (command.account_id, command.buyer_ref, command.subject_id) if each is not None]
    if len(named) != 1:
        raise PersonNotNamed(len(named))
    (one,) = named
    if isinstance(one, uuid.UUID):
        return one
    found = await ledger.known_subject(tenant_id, BUYER, transactions.checked_buyer_ref(one))
    if found is None:
        raise PersonUnknown
    return found


async def _of_account(
    subject_id: UUID, tenant_id: UUID, ledger: Ledger, *, required: bool
) -> tuple[list[Claim], list[Secret]]:
    """What an account leaves outside the events: its address's reservation, its sessions' secrets.

    Nothing for a buyer. Must come before the key is destroyed: the reservation is found by the address in clear.
    """
    try:
        account = await ledger.load(accounts.Account, tenant_id, subject_id)
    except errors.NotFound:
        if required:
            raise
        return [], []
    legible = account.email not in (codec.ERASED, codec.UNREADABLE)
    releases = [Claim(account_commands.EMAIL, account.email, account.id)] if legible else []
    sessions = await account_commands.sessions_of(account.id, tenant_id, ledger)
    return releases, [Secret(session_id, account_commands.REFRESH, None) for session_id in sessions]
