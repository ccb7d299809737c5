"""By which addresses an account's person is known besides, and as which buyers.

What an erasure takes and what an export gives beside the account itself is found here and nowhere else, so that whoever asked for
all of it before the end has had all that went.
"""

from typing import NamedTuple
from uuid import UUID

from commands.accounts.held import Held
from commands.transactions import BUYER
from domain import accounts
from ledger import codec
from ledger.store import Ledger


class KnownBy(NamedTuple):
    """`addresses`: the account's own and former ones, as they were written. `buyers`: the subjects of whoever bought under one of
    them, each once."""

    addresses: list[str]
    buyers: list[UUID]


async def of(account: accounts.Account, held: Held, ledger: Ledger) -> KnownBy:
    """`held`: of the account. What of it was erased, or cannot be read, leads nowhere."""
    addresses = [each for each in (account.email, *held.former_emails) if each not in (codec.ERASED, codec.UNREADABLE)]
    spellings = dict.fromkeys((*addresses, *(accounts.normalise_email(each) for each in addresses)))
    found = [await ledger.known_subject(account.tenant_id, BUYER, each) for each in spellings]
    return KnownBy(addresses, list(dict.fromkeys(each for each in found if each is not None)))
