"""What is held of a person besides the account as it is: for whoever asks for all of it."""

from datetime import datetime

import msgspec

from commands.accounts import email, mailed
from commands.accounts.mailed import Purpose
from domain import accounts
from ledger.store import Ledger


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Former ones, the last first, are in the stream for good, until the person is erased. `asked_email`: to which a change was
    asked for and not confirmed, `asked_at`. `shown_emails`: where the person has shown to receive mail, at any time."""

    former_emails: list[str]
    former_names: list[str]
    shown_emails: frozenset[str]
    asked_email: str | None
    asked_at: datetime | None


async def of(account: accounts.Account, ledger: Ledger) -> Held:
    emails: dict[str, None] = {}
    names: dict[str, None] = {}
    shown: set[str] = set()

    def remember(before: accounts.Account) -> None:
        for known, value in ((emails, before.email), (names, before.name)):
            known.pop(value, None)  # the last time counts
            known[value] = None
        if before.email_verified:
            shown.add(before.email)

    await ledger.look_back(accounts.Account, account.tenant_id, account.id, account.version, remember)
    asked = await mailed.kept(account.tenant_id, account.id, Purpose.CHANGE, ledger)
    sealed = None if asked is None else asked.sealed
    clear = None if sealed is None else await ledger.unseal(account.tenant_id, account.id, email.NEW_ADDRESS, sealed)
    return Held(
        former_emails=[each for each in reversed(emails) if each != account.email],
        former_names=[each for each in reversed(names) if each != account.name],
        shown_emails=frozenset(shown),
        asked_email=None if clear is None else clear.decode(),
        asked_at=None if asked is None or clear is None else asked.made_at,
    )
