"""From events to the rows of a view's generation, inside the caller's transaction."""

from collections.abc import Sequence
from uuid import UUID

from domain import privacy
from ledger import codec, read
from projections import generations, parking, stream
from projections.view import Batch, View


class GenerationFailed(Exception):
    """The events could not be projected into a generation; the cause says why."""

    def __init__(self, generation: generations.Generation, cause: Exception) -> None:
        super().__init__(f"generation {generation.generation}: {type(cause).__name__}")
        self.generation = generation
        self.cause = cause


async def apply(
    connection: generations.Connection,
    view: View,
    tenant_id: UUID,
    generation: generations.Generation,
    events: Sequence[stream.Event],
) -> None:
    """Project events of the view's topics. Those of originators that are parked there are parked behind them.

    The caller holds the generation's row, has moved its position, and rolls back on an error: GenerationFailed.
    """
    try:
        if generation.parked and events:
            parked = await parking.originators(connection, view.name, tenant_id, generation.generation)
            waiting = [event for event in events if stream.originator(event) in parked]
            if waiting:
                behind = [parking.behind_another(event) for event in waiting]
                await parking.park(connection, view.name, tenant_id, generation.generation, behind)
                events = [event for event in events if stream.originator(event) not in parked]
        await project(connection, view, tenant_id, generation.generation, events)
    except Exception as error:
        raise GenerationFailed(generation, error) from error


async def project(
    connection: generations.Connection, view: View, tenant_id: UUID, generation: int, events: Sequence[stream.Event]
) -> None:
    """Project events of the view's topics, parked or not. Raises what the projector raises, and what an event could not be
    decoded for."""
    if not events:
        return
    readable: list[read.Recorded] = []
    for event in events:
        if isinstance(event, stream.Unreadable):
            raise event.error
        readable.append(event)
    batch = Batch(tenant_id, generation, readable)
    async with connection.cursor(binary=True) as cursor:
        await view.project(batch, cursor)
    await _erase(connection, view, batch)


async def _erase(connection: generations.Connection, view: View, batch: Batch) -> None:
    """After all of the batch was projected: what came before an erasure goes, what came after it was decoded to the marker.

    In all generations, also one that stands still.
    """
    subjects = [recorded.event.subject_id for recorded in batch.of(privacy.Erasure.PersonErased)]
    if view.erase is not None and subjects:
        values = {"tenant": batch.tenant_id, "subjects": subjects, "marker": codec.ERASED}
        await connection.execute(view.erase, values)
