"""What events changed in rows, folded to one change a row: for `UPDATE … FROM unnest(…)`, where NULL leaves a column as it is."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from ledger import arrays, read
from projections.columns import Int8s, Texts, Times, Uuids


def columns(
    changed: Mapping[UUID, list[read.Recorded]], said: Callable[[Any], Mapping[str, str]], *names: str
) -> list[arrays.PackedArray]:
    """The ids; of each name what was `said` last (of an event: by the column's name), None if nothing was; time and position of the
    last event."""
    rows = []
    for happened in changed.values():
        row: dict[str, str] = {}
        for recorded in happened:
            row.update(said(recorded.event))
        rows.append(row)
    last = [happened[-1] for happened in changed.values()]
    return [
        Uuids.of(list(changed)),
        *(Texts.of([row.get(name) for row in rows]) for name in names),
        Times.of([recorded.recorded_at for recorded in last]),
        Int8s.of([recorded.position for recorded in last]),
    ]
