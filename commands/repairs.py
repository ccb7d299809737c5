"""Write down what an operator does about an event that a view cannot digest; `projections.repairing` does it."""

from uuid import UUID

import msgspec

from domain import accounts, repairs
from ledger import ids
from ledger.caller import Caller
from ledger.store import Ledger, Receipt


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """`parked_id`: whose events had been parked, from `parked_from` on; None: the view itself had stopped. `account_id`: whose decision
    it is; None: of whoever has the machine."""

    view: str
    parked_id: UUID | None
    parked_from: int | None
    decision: repairs.Decision
    reason: str
    account_id: UUID | None


async def repair(command: Repair, caller: Caller, ledger: Ledger) -> Receipt[repairs.Repair]:
    """Raises NotFound (of the account), TextBlank, TextTooLong, TextForbidden."""
    if command.account_id is not None:
        await ledger.load(accounts.Account, caller.tenant_id, command.account_id)
    noted = repairs.repair(
        id=ids.new_id(),
        view=command.view,
        parked_id=command.parked_id,
        parked_from=command.parked_from,
        decision=command.decision,
        reason=command.reason,
        account_id=command.account_id,
    )
    return await ledger.append(caller, noted)
