"""The cache of resources: what was rendered of a view's row, for as long as the row is the same.

The rule: **what is kept is used only for a question that the database answered after it was asked, by saying that the
row is still the one that was rendered.** The question goes to the rows anyway (`projections.rows`); what is
saved is reading the long columns and rendering them. Because nothing is believed for any time, nothing has to be
invalidated, whoever projects, on whichever node:

1. An entry belongs to one version of one row of one tenant: its key is (view, tenant, id), and its stamp the generation and
   the transaction that wrote that version. Every change of a row, by events, by an erasure, by `projections retry`, by a
   rebuild, is another transaction's or another generation's. After a crash of the database a transaction may get the id of one
   that the crash took: a stamp ends with the connection that gave it (`rows.Stamp`).
2. An answer is made of an entry only if the row had the entry's stamp in a snapshot taken after the request came. So it
   never shows less than the view showed at that moment to anybody, and what X-Position asked for is checked against the
   view's position in the same snapshot.
3. Who may see a resource is decided at each request, from the caller's token and the people of the row that the entry is of.
4. Nothing of a person is in an entry: personal fields and positions, which not everybody sees alike, are holes that
   are filled at each request, from the row. An erasure finds nothing here, and what must be gone in 2 s never was here.
5. `BYTES_MAX` bounds all entries together; the least recently used go first.
"""

from collections import OrderedDict
from typing import NamedTuple
from uuid import UUID

from projections import rows

BYTES_MAX = 32 * 1024 * 1024
"""Some 20,000 resources a process."""
ENTRY_BYTES = 600
"""What an entry weighs beside its body: key, stamp, people, and a place in the table. More than in truth."""
BODY_BYTES_MAX = 64 * 1024
"""A resource that is larger is rendered each time: one of them would push out a hundred others."""

Key = tuple[str, int, int]


class Rendered(NamedTuple):
    """A resource's JSON cut at its holes; `people` may see it, None: everybody of the tenant."""

    stamp: rows.Stamp
    pieces: list[bytes]
    people: tuple[UUID | None, ...] | None


def key(view: str, tenant_id: UUID, id: int) -> Key:
    """`id` as a number; UUIDs are hashed in Python."""
    return view, tenant_id.int, id


class Kept:
    """Touched by the event loop's thread only. `bytes_max` 0 keeps nothing."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[Key, tuple[Rendered, int]] = OrderedDict()  # least recently used first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What the entries weigh, at the most."""
        return self._bytes

    def get(self, key: Key) -> Rendered | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, rendered: Rendered) -> None:
        body = sum(map(len, rendered.pieces))
        self.drop(key)
        if body > BODY_BYTES_MAX or not self._bytes_max:
            return
        self._entries[key] = (rendered, body + ENTRY_BYTES)
        self._bytes += body + ENTRY_BYTES
        while self._bytes > self._bytes_max:
            _, (_, size) = self._entries.popitem(last=False)
            self._bytes -= size

    def drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]
