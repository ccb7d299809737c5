"""Write down what an operator does about an event that a view cannot digest; `projections.parking` then does it."""

from uuid import UUID

import msgspec

from domain import repairs
from ledger import ids
from ledger.caller import Caller
from ledger.store import Ledger, Receipt


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """`parked_id`: whose events had been parked; None: the view itself had stopped."""

    view: str
    parked_id: UUID | None
    decision: repairs.Decision
    reason: str
    operator: str


async def repair(command: Repair, caller: Caller, ledger: Ledger) -> Receipt[repairs.Repair]:
    """Raises TextBlank, TextTooLong, TextForbidden."""
    noted = repairs.repair(
        id=ids.new_id(),
        view=command.view,
        parked_id=command.parked_id,
        decision=command.decision,
        reason=command.reason,
        operator=command.operator,
    )
    return await ledger.append(caller, noted)
