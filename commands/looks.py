"""Write down that a super admin looked into a tenant. Whoever shows something of it calls this first: what was not recorded is not
shown."""

from uuid import UUID

import msgspec

from domain import looks
from ledger import ids
from ledger.caller import Caller
from ledger.store import Ledger, Receipt


async def look(tenant_id: UUID, what: str, caller: Caller, ledger: Ledger) -> Receipt[looks.Look]:
    """In that tenant's stream. `caller` is the super admin's, of the platform. Raises TenantUnknown."""
    assert caller.actor_id is not None
    there = msgspec.structs.replace(caller, tenant_id=tenant_id, command_id=ids.new_id(), fingerprint=b"")
    return await ledger.append(there, looks.look(id=ids.new_id(), account_id=caller.actor_id, what=what))
