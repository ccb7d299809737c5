"""Whether the persons' data of a tenant can be deciphered, field by field. The chain does not tell: it covers ciphertext.

A ciphertext that was recorded corrupt stands in a good chain; one that was changed afterwards breaks the chain as well.
"""

from collections.abc import Callable
from typing import LiteralString
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import errors
from ledger.codec import Codec
from ledger.keyring import Keyring

EVENTS_PER_READ = 1_000
"""At 64 KiB an event this is 64 MiB at the most."""
UNREADABLE_NAMED_MAX = 1_000
"""Findings of a tenant that are named; all are counted."""

EVENTS: LiteralString = """
SELECT position, originator_id, originator_version, topic, state FROM ledger.events
WHERE tenant_id = %(tenant)s AND position > %(after)s AND topic = ANY (%(topics)s)
ORDER BY position LIMIT %(limit)s
"""

Progress = Callable[[int], None]
"""Called with the position that has been reached."""


class Unreadable(msgspec.Struct, frozen=True):
    """A personal field that cannot be deciphered. `field` is None if the event's whole state cannot be read."""

    position: int
    topic: str
    field: str | None


class Legibility(msgspec.Struct):
    """Personal fields that hold something, counted by what readers see; `named` are the first of those `unreadable`."""

    clear: int = 0
    erased: int = 0
    unreadable: int = 0
    named: list[Unreadable] = msgspec.field(default_factory=list)

    def blame(self, position: int, topic: str, field: str | None) -> None:
        """Count it, and name it if there is room."""
        self.unreadable += 1
        if len(self.named) < UNREADABLE_NAMED_MAX:
            self.named.append(Unreadable(position, topic, field))


async def check(
    connection: AsyncConnection[TupleRow],
    codec: Codec,
    keyring: Keyring,
    tenant_id: UUID,
    progress: Progress = lambda position: None,
) -> Legibility:
    """Of all events of the tenant; those of topics that the codec does not know hold no personal data that it knows of.

    `connection` is the projector's, in autocommit. Raises MasterKeyMissing.
    """
    found, after = Legibility(), 0
    values = {"tenant": tenant_id, "topics": codec.personal_topics, "limit": EVENTS_PER_READ}
    while True:
        rows = await (await connection.execute(EVENTS, {**values, "after": after}, binary=True)).fetchall()
        if not rows:
            return found
        await _look(connection, codec, keyring, tenant_id, rows, found)
        after = rows[-1][0]
        progress(after)


async def _look(
    connection: AsyncConnection[TupleRow],
    codec: Codec,
    keyring: Keyring,
    tenant_id: UUID,
    rows: list[TupleRow],
    found: Legibility,
) -> None:
    readable = []
    for position, originator_id, version, topic, state in rows:
        try:
            parsed = codec.parse(topic, originator_id, version, state)
        except errors.EventUnreadable:
            found.blame(position, topic, None)
        else:
            readable.append((position, originator_id, version, topic, parsed))
    subjects = [parsed.subject_id for *_, parsed in readable if parsed.subject_id is not None]
    keys = await keyring.find(connection, tenant_id, subjects)
    for position, originator_id, version, topic, parsed in readable:
        fields = sum(sealed is not None for sealed in parsed.ciphertexts().values())
        unreadable = codec.unreadable(tenant_id, originator_id, version, parsed, keys)
        if parsed.subject_id is not None and parsed.subject_id.int not in keys:
            found.erased += fields
            continue
        found.clear += fields - len(unreadable)
        for field in unreadable:
            found.blame(position, topic, field)
