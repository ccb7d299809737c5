"""Write down that data leave. Whoever hands them out calls this first: what was not recorded is not handed out."""

import time
from uuid import UUID

import msgspec

from domain import exports
from ledger import ids
from ledger.caller import Caller
from ledger.store import Ledger

RECORDED_EVERY_S = 60
"""One event for each person and who asks: somebody who asks for the own data in a loop must not fill the stream."""


async def of_person(account_id: UUID, caller: Caller, ledger: Ledger) -> None:
    """Raises what an append raises."""
    actor = b"" if caller.actor_id is None else caller.actor_id.bytes
    minute = int(time.time()) // RECORDED_EVERY_S
    # The id of the command is that of the minute: whoever asks again in it appends nothing, also on another node.
    command_id = ids.derived_id(b"export", caller.tenant_id.bytes, account_id.bytes, actor, b"%d" % minute)
    once = msgspec.structs.replace(caller, command_id=command_id, fingerprint=b"")
    await ledger.append(once, exports.export_person(id=ids.new_id(), account_id=account_id))


async def of_tenant(caller: Caller, ledger: Ledger, *, with_keys: bool) -> None:
    """Raises TenantUnknown and what else an append raises."""
    await ledger.append(caller, exports.export_tenant(id=ids.new_id(), with_keys=with_keys))
