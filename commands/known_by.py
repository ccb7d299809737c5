"""By which addresses an account's person is known besides, and as which buyers.

What an erasure takes and what an export gives beside the account itself is found here and nowhere else, so that whoever asked for
all of it before the end has had all that went.

Anybody can register under an address that is somebody else's. So who acts upon the own account is, as a buyer, only who has shown to
receive mail there: else it would be a way to read what a stranger bought, or to have it forgotten. An admin answers for whom it is.
"""

from typing import NamedTuple
from uuid import UUID

from commands.accounts.held import Held
from commands.accounts.registering import EMAIL
from commands.transactions import BUYER
from domain import accounts
from ledger import codec
from ledger.caller import Caller
from ledger.store import Ledger


class KnownBy(NamedTuple):
    """`addresses`: the account's own and former ones, as they were written, but what is another account's by now. `buyers`: the
    subjects of whoever bought under one of them, each once."""

    addresses: list[str]
    buyers: list[UUID]


async def of(account: accounts.Account, held: Held, caller: Caller, ledger: Ledger) -> KnownBy:
    """`held`: of the account. What of it was erased, or cannot be read, leads nowhere."""
    legible = [each for each in (account.email, *held.former_emails) if each not in (codec.ERASED, codec.UNREADABLE)]
    keys = {each: accounts.normalise_email(each) for each in legible}
    holders = await ledger.find(account.tenant_id, EMAIL, list(dict.fromkeys(keys.values())))
    addresses = [each for each in legible if holders.get(keys[each], account.id) == account.id]
    shown = held.shown_emails if caller.actor_id == account.id else addresses
    bought_under = [each for each in addresses if each in shown]
    spellings = dict.fromkeys((*bought_under, *(keys[each] for each in bought_under)))
    found = [await ledger.known_subject(account.tenant_id, BUYER, each) for each in spellings]
    return KnownBy(addresses, list(dict.fromkeys(each for each in found if each is not None)))
