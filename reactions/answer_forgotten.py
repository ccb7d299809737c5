"""When somebody has forgotten a password, let a mail go to the address if it has an account."""

from collections.abc import Awaitable, Callable

from commands.accounts import forgotten
from ledger import errors, ids
from ledger.store import Ledger
from reactions.outbox import TriedInVain, Waiting


def doer(ledger: Ledger) -> Callable[[Waiting], Awaitable[None]]:
    async def do(waiting: Waiting) -> None:
        command_id = ids.derived_id(b"answer forgotten", waiting.tenant_id.bytes, waiting.owner.bytes, waiting.value)
        try:  # of a second try the command id is the same, and nothing is appended twice
            await forgotten.answer(
                waiting.owner, waiting.value, forgotten.caller_of(waiting.tenant_id, command_id), ledger
            )
        except (errors.VersionConflict, errors.TenantBusy, errors.Overloaded, errors.DatabaseAway) as error:
            raise TriedInVain(type(error).__name__) from error

    return do
