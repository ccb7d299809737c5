"""One aggregate as it was, version by version."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from eventsourcing.domain import Aggregate

from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.lookups import Pool

READ = "SELECT * FROM ledger.read_aggregates(%s, %s, %s)"
AT_ONCE_MAX = 500
"""Events folded in one step of the event loop: some 3 ms."""


async def fold(
    pool: Pool,
    codec: Codec,
    keyring: Keyring,
    tenant_id: UUID,
    id: UUID,
    version: int,
    at_each: Callable[[Aggregate], None] = lambda _: None,
) -> Aggregate | None:
    """As it was at that version, None before its first; it is shown to `at_each` at each version up to there, the same object each
    time. `pool` is the app role's. Raises what psycopg raises."""
    async with pool.connection() as connection:
        rows = await (await connection.execute(READ, (tenant_id, [id], version), binary=True)).fetchall()
        parsed = [codec.parse(topic, id, number, state) for _, _, number, topic, _, state in rows]
        subjects = {half.subject_id for half in parsed if half.subject_id is not None}
        keys = await keyring.find_as_tenant(connection, tenant_id, subjects) if subjects else {}
    folded: Any = None
    for (_, _, number, _, recorded_at, _), half in zip(rows, parsed, strict=True):
        folded = codec.finish(tenant_id, id, number, recorded_at, half, keys).mutate(folded)
        if folded is not None:
            at_each(folded)
        if number % AT_ONCE_MAX == 0:
            await asyncio.sleep(0)
    return folded  # type: ignore[no-any-return]  # what an event makes of nothing is its own kind of aggregate
