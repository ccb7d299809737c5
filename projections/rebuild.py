"""Fill a view again from the first event, while readers go on seeing the old rows."""

from collections.abc import Callable
from uuid import UUID

from ledger import read
from projections import batches, columns, cross_tenant, positions
from projections.view import View

Progress = Callable[[UUID, int, int], None]
"""Called with tenant, position and where it will end."""


async def rebuild(
    connection: positions.Connection,
    source: batches.Source,
    view: View,
    tenant_id: UUID | None = None,
    progress: Progress = lambda tenant_id, position, head: None,
) -> None:
    """One tenant's rows, or everybody's, each tenant's in one transaction.

    `connection` is the projector's, in autocommit. Waits for a batch in flight; the runner leaves the tenant alone until
    the transaction ends, and goes on from there. What a projector raises leaves that tenant's rows as they were.
    """
    columns.register(connection.adapters)
    for each in await cross_tenant.tenants(connection) if tenant_id is None else [tenant_id]:
        await positions.begin(connection, view.name, each)
        async with connection.transaction():
            await _rebuild_one(connection, source, view, each, progress)


async def _rebuild_one(
    connection: positions.Connection, source: batches.Source, view: View, tenant_id: UUID, progress: Progress
) -> None:
    await positions.lock(connection, view.name, tenant_id)
    # Not before the stream's end at this moment, so that no reader sees the view go back.
    head = (await read.head(connection, tenant_id)).position
    await connection.execute(view.clear, {"tenant": tenant_id})
    await positions.move(connection, view.name, tenant_id, 0)
    position = 0
    progress(tenant_id, position, head)
    while position < head:
        position = await batches.apply(
            connection, source, view, tenant_id, position, min(batches.EVENTS_MAX, head - position)
        )
        progress(tenant_id, position, head)
