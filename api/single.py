"""Resources of a view's rows: what is kept of them, and who may see one that is asked for by its id."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from api import etags, kept
from api.asked import Reader
from api.sent import Found
from ledger import codec
from ledger import errors as ledger_errors
from projections import rows

HOLE: Any = msgspec.Raw(b"\0")
"""Stands in a resource where something is filled in at each request. No JSON has this byte, not even in a string."""

_ENCODER = msgspec.json.Encoder()


class Resource(NamedTuple):
    """A kind of resource. `render` makes it of a row's columns, with HOLEs for `personal` columns, in their order, and then for
    the position. `people` gives who may see it besides those who may see all; None: everybody of the tenant."""

    view: str
    name: str
    render: Callable[[tuple[Any, ...]], Any]
    personal: tuple[int, ...] = ()
    people: Callable[[tuple[Any, ...]], tuple[UUID | None, ...]] | None = None
    whole_view_if_absent: bool = False


async def show(reader: Reader, resource: Resource, id: UUID, *, sees_all: bool = True) -> Found[Any]:
    """200 or 304. Raises NotFound, also for who may not see it, RequestRefused for what is parked, and what `Reader.row` raises."""
    key = kept.key(resource.view, reader.tenant_id, id.int)
    entry = reader.parts.kept.get(key)
    found = await reader.row(resource.view, id, rows.NO_STAMP if entry is None else entry.stamp)
    row = found.row
    if row is not None and (entry is None or not row.same):
        entry = _rendered(resource, row.stamp, row.columns)
        reader.parts.kept.put(key, entry)
    is_seen = entry is not None and (sees_all or entry.people is None or reader.who.account_id in entry.people)
    if found.parked and (row is None or is_seen):
        originator = None if resource.whole_view_if_absent else id
        if row is None or originator is not None:
            reader.check_whole(await reader.first_parked(resource.view, originator))
    if row is None or entry is None or not is_seen:
        raise ledger_errors.NotFound(resource.name, id)
    personal = [row.columns[column] for column in resource.personal]
    body = b'{"data":%b}' % _filled(entry.pieces, [*personal, reader.shown(row.columns[-1])])
    version = etags.version(row.version, erased=codec.ERASED in personal, generation=row.stamp.generation)
    return Found(body, reader.shown(found.position), version)


def listed(reader: Reader, resource: Resource, found: Sequence[rows.PageRow]) -> list[Any]:
    """Each as JSON (msgspec.Raw), of what was kept if it is still that. The reader may see all of them."""
    return [msgspec.Raw(_listed(reader, resource, row)) for row in found]


def _listed(reader: Reader, resource: Resource, row: rows.PageRow) -> bytes:
    columns = row.columns
    key = kept.key(resource.view, reader.tenant_id, columns[0].int)
    entry = reader.parts.kept.get(key)
    if entry is None or entry.stamp != row[:3]:
        entry = _rendered(resource, rows.Stamp(row.generation, bytes(row.transaction), row.era), columns)
        reader.parts.kept.put(key, entry)
    return _filled(entry.pieces, [*(columns[each] for each in resource.personal), reader.shown(columns[-1])])


def _rendered(resource: Resource, stamp: rows.Stamp, columns: tuple[Any, ...]) -> kept.Rendered:
    pieces = _ENCODER.encode(resource.render(columns)).split(b"\0")
    return kept.Rendered(stamp, pieces, None if resource.people is None else resource.people(columns))


def _filled(pieces: list[bytes], values: list[Any]) -> bytes:
    parts = [pieces[0]]
    for value, piece in zip(values, pieces[1:], strict=True):
        parts += (_ENCODER.encode(value), piece)
    return b"".join(parts)
