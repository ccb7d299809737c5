"""The version of what a view showed, for its ETag."""

from uuid import UUID

from ledger.store import Ledger


async def at(ledger: Ledger, tenant_id: UUID, position: int) -> int:
    """The originator's version after the event at `position`, the last one that was applied to a row: exactly the row's
    version, however far the stream has gone since."""
    (entry,) = await ledger.entries(tenant_id, position - 1, 1)
    return entry.originator_version
