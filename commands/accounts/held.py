"""What is held of a person besides the account as it is: for whoever asks for all of it."""

from datetime import datetime

import msgspec

from commands.accounts import email, mailed
from commands.accounts.mailed import Purpose
from domain import accounts
from ledger.store import Ledger

VERSIONS_MAX = 500
"""Of an account's history that is looked through, newest first; a person who changes something every day for a year has fewer."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Former ones are in the stream for good, until the person is erased. `asked_email`: to which a change was asked for and not
    confirmed, `asked_at`."""

    former_emails: list[str]
    former_names: list[str]
    asked_email: str | None
    asked_at: datetime | None


async def of(account: accounts.Account, ledger: Ledger) -> Held:
    emails: dict[str, None] = {}
    names: dict[str, None] = {}
    for version in range(account.version - 1, max(0, account.version - 1 - VERSIONS_MAX), -1):
        before = await ledger.load(accounts.Account, account.tenant_id, account.id, version)
        emails[before.email] = names[before.name] = None
    asked = await mailed.kept(account.tenant_id, account.id, Purpose.CHANGE, ledger)
    sealed = None if asked is None else asked.sealed
    clear = None if sealed is None else await ledger.unseal(account.tenant_id, account.id, email.NEW_ADDRESS, sealed)
    return Held(
        former_emails=[each for each in emails if each != account.email],
        former_names=[each for each in names if each != account.name],
        asked_email=None if clear is None else clear.decode(),
        asked_at=None if asked is None or clear is None else asked.made_at,
    )
