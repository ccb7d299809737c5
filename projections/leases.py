"""Which process projects what: leases of (view, bucket of tenants), in a table, by the database's clock.

A process beats once a second: one statement says that it is alive, takes its share of what is free or was a dead process's,
and lets go what is more than its share. Whoever takes a lease raises its token, and the update that moves a view's position
checks it, so that a process that was paused and comes back late writes nothing.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from projections import cross_tenant, positions
from projections.view import View

BEAT_S = 1.0
LEASE_S = 6.0
"""Without a beat for so long a process is dead to the others; with a beat and a poll of theirs, its work goes on within 9 s."""
MARGIN_S = 1.0
"""So much earlier a process stops believing in its leases itself: clocks run at different speeds, if only a little."""
BUCKETS = 256


def bucket(tenant_id: UUID) -> int:
    """Of BUCKETS: the last byte of the id, which is random in a UUIDv7."""
    return tenant_id.bytes[15]


class Leases:
    """What this process holds. Touched by the event loop's thread only."""

    def __init__(self, process_id: UUID, views: Sequence[View]) -> None:
        self.process_id = process_id
        self._views = [view.name for view in views]
        self._versions = [view.version for view in views]
        self._tokens: dict[str, dict[int, int]] = {}  # view, bucket, token
        self._believed_until = 0.0  # in the loop's time

    def token(self, view: str, tenant_id: UUID) -> int | None:
        """None: another process's, or not certain any more."""
        if asyncio.get_running_loop().time() >= self._believed_until:
            return None
        held = self._tokens.get(view)
        return None if held is None else held.get(bucket(tenant_id))

    def held(self) -> int:
        """Leases, of all views."""
        return sum(len(tokens) for tokens in self._tokens.values())

    def lost(self, view: str, tenant_id: UUID) -> None:
        """Somebody else has it, as the database says; the next beat says what is left."""
        self._tokens.get(view, {}).pop(bucket(tenant_id), None)

    async def beat(self, connection: positions.Connection) -> bool:
        """Whether leases came that were not there before."""
        begun = asyncio.get_running_loop().time()
        values = {
            "process": self.process_id,
            "views": self._views,
            "versions": self._versions,
            "ttl": timedelta(seconds=LEASE_S),
        }
        rows = await (await connection.execute(cross_tenant.BEAT, values, prepare=True, binary=True)).fetchall()
        before = self._tokens
        self._tokens = {view: dict(zip(buckets, tokens, strict=True)) for view, buckets, tokens in rows}
        self._believed_until = begun + LEASE_S - MARGIN_S
        return any(not tokens.keys() <= before.get(view, {}).keys() for view, tokens in self._tokens.items())

    async def leave(self, connection: positions.Connection) -> None:
        """Let everything go, so that others need not wait for the end of the leases."""
        self._tokens, self._believed_until = {}, 0.0
        await release(connection, self.process_id)


async def release(connection: positions.Connection, process_id: UUID) -> None:
    """What a process holds is anybody's at once. Of one that is gone, or goes: whatever it still writes is refused as soon as
    somebody else has the lease, but until then it is as good as ever."""
    await connection.execute(cross_tenant.LEAVE, {"process": process_id})
