"""From the stream to a view: one batch, inside the caller's transaction."""

from uuid import UUID

import msgspec

from domain import privacy
from ledger import codec, keyring, read
from projections import positions
from projections.view import Batch, View

EVENTS_MAX = 1_000
"""A batch's size. Larger ones are hardly faster, hold the event loop for longer while they are decoded, and at 64 KiB an
event this is 64 MiB already."""


class Source(msgspec.Struct, frozen=True):
    """What decodes events."""

    codec: codec.Codec
    keyring: keyring.Keyring


async def apply(
    connection: positions.Connection, source: Source, view: View, tenant_id: UUID, after: int, limit: int = EVENTS_MAX
) -> int:
    """Project at most `limit` events after `after`, which the caller holds locked; the position that the view has then.

    Raises EventUnreadable, MasterKeyMissing and whatever the projector raises; the caller rolls back.
    """
    entries = await read.entries(connection, tenant_id, after, limit)
    if not entries:
        return after
    wanted = [entry for entry in entries if entry.topic in view.wanted]
    if wanted:
        events = await read.decode(source.codec, source.keyring, connection, tenant_id, wanted, to_store=True)
        batch = Batch(tenant_id, events)
        async with connection.cursor(binary=True) as cursor:
            await view.project(batch, cursor)
        await _erase(connection, view, batch)
    position = entries[-1].position
    await positions.move(connection, view.name, tenant_id, position)
    return position


async def _erase(connection: positions.Connection, view: View, batch: Batch) -> None:
    """After all of the batch was projected: what came before an erasure goes, what came after it was decoded to the marker."""
    subjects = [recorded.event.subject_id for recorded in batch.of(privacy.Erasure.PersonErased)]
    if view.erase is not None and subjects:
        values = {"tenant": batch.tenant_id, "subjects": subjects, "marker": codec.ERASED}
        await connection.execute(view.erase, values)
