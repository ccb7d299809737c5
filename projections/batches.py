"""From the stream to a view: one batch, inside the caller's transaction."""

from uuid import UUID

import msgspec

from ledger import codec, keys, read
from projections import positions
from projections.view import Batch, View

EVENTS_MAX = 1_000
"""A batch's size. Larger ones are hardly faster, hold the event loop for longer while they are decoded, and at 64 KiB an
event this is 64 MiB already."""


class Source(msgspec.Struct, frozen=True):
    """What decodes events."""

    codec: codec.Codec
    keyring: keys.Keyring


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
        events = await read.decode(source.codec, source.keyring, connection, tenant_id, wanted)
        async with connection.cursor(binary=True) as cursor:
            await view.project(Batch(tenant_id, events), cursor)
    position = entries[-1].position
    await positions.move(connection, view.name, tenant_id, position)
    return position
