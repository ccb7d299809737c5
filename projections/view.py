"""What a view is, and what its projector is given."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, LiteralString, TypeAlias
from uuid import UUID

import msgspec
from eventsourcing.utils import get_topic
from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from ledger import read
from projections import failures

Cursor: TypeAlias = AsyncCursor[TupleRow]


class Batch:
    """Consecutive events of one tenant, in order of position: those of its topics, as far as the view wants them.

    `generation` is that of the rows that are to be written.
    """

    def __init__(self, tenant_id: UUID, generation: int, events: Sequence[read.Recorded]) -> None:
        self.tenant_id = tenant_id
        self.generation = generation
        self.events = events
        self._by_class: defaultdict[type, list[read.Recorded]] = defaultdict(list)
        for recorded in events:
            self._by_class[type(recorded.event)].append(recorded)

    def of(self, *event_classes: type) -> list[read.Recorded]:
        """The events of these classes, in order of position."""
        if len(event_classes) == 1:
            return self._by_class.get(event_classes[0], [])
        return sorted(
            (recorded for each in event_classes for recorded in self._by_class.get(each, ())),
            key=lambda recorded: recorded.position,
        )

    def last_of(self, event_class: type) -> list[read.Recorded]:
        """Of each originator its last event of the class."""
        return list({recorded.event.originator_id: recorded for recorded in self.of(event_class)}.values())

    def by_originator(self, *event_classes: type) -> dict[UUID, list[read.Recorded]]:
        """The events of these classes by originator, each originator's in order of position."""
        found: dict[UUID, list[read.Recorded]] = {}
        for recorded in self.of(*event_classes):
            found.setdefault(recorded.event.originator_id, []).append(recorded)
        return found


Project: TypeAlias = Callable[[Batch, Cursor], Awaitable[None]]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table of a view, in the schema `views`, with the columns tenant_id and generation and a primary key that they lead.

    `key` is the rest of that key. `personal` names the columns that a person's erasure overwrites. `since` says of columns
    that came with a later version of the view which one it was: an older generation is not compared by them.
    """

    name: str
    key: tuple[str, ...]
    personal: tuple[str, ...] = ()
    since: Mapping[str, int] = msgspec.field(default_factory=dict)


class View(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A read model. `version` goes up with every change after which the stored rows are no longer right.

    `project` MUST be set-based, touch nothing but the rows of the batch's tenant and generation in `tables`, and leave them
    as they are when it is given events that it was given before. `on_failure` says what to do about an event that it
    cannot digest. A view whose rows come out the same in whichever order the originators' events come, as long as each
    originator's own are in order, says so by `commutes`; only such a view may park.

    A view that keeps a personal field of an event MUST have PersonErased among its topics, and `erase`: it puts the marker
    (`marker`) in place of what the view holds of some persons (`subjects`, an array) in one tenant (`tenant`), in all
    generations. It runs after `project`, in the same transaction.
    """

    name: str
    version: int
    tables: tuple[Table, ...]
    topics: tuple[type[Any], ...]
    project: Project
    on_failure: failures.Policy
    commutes: bool = False
    erase: LiteralString | None = None

    @cached_property
    def wanted(self) -> frozenset[str]:
        """The topics as they are stored."""
        return frozenset(get_topic(each) for each in self.topics)
