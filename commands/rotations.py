"""Write down in the platform's stream that a key of the installation is changed. Whoever changes one calls this first."""

from commands import tenants
from domain import rotations
from domain.tenants import PLATFORM_ID
from ledger import ids
from ledger.caller import Caller
from ledger.store import Ledger


async def record(of: rotations.Rotated, key_id: str, ledger: Ledger, *, at_once: bool = False) -> None:
    """Raises what an append raises."""
    await tenants.ensure_platform(ledger)
    caller = Caller(tenant_id=PLATFORM_ID, actor_id=None, role="system", command_id=ids.new_id())
    await ledger.append(caller, rotations.rotate(id=ids.new_id(), of=of, key_id=key_id, at_once=at_once))
