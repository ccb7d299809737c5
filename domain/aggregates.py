"""The root of all aggregates."""

from typing import Any, Self
from uuid import UUID

from eventsourcing import domain as eventsourcing_domain
from eventsourcing.utils import get_topic


class Aggregate(eventsourcing_domain.Aggregate):
    """A unit that decides by itself. Aggregates and events say their TOPIC; ids and business times are passed in.

    Two ways lead to a state and neither calls the other: a factory or a method checks the rules and then triggers
    an event; `__init__` and the methods under `@event` only fold what an event says. Replay runs the second way
    alone, so a rule that is tightened later never makes an old event unreadable.
    """

    @classmethod
    def _create(cls, event_class: Any, *, id: UUID, **values: Any) -> Self:  # type: ignore[override]  # ids are passed in
        """The package's, in half the time: the event's fields are those of the aggregate's `__init__`, which is called with them here,
        and so need not be looked for in the event."""
        now = event_class.create_timestamp()
        created = object.__new__(event_class)
        first = {"originator_topic": get_topic(cls), "originator_id": id, "originator_version": cls.INITIAL_VERSION}
        vars(created).update(first, timestamp=now, **values)
        aggregate = cls.__new__(cls)
        aggregate.__base_init__(id, cls.INITIAL_VERSION, now)
        aggregate.__init__(id=id, **values)  # type: ignore[misc]  # each class has its own
        aggregate.pending_events.append(created)
        return aggregate


# A subclass gets its own copy of every event class in its base's namespace, and under a TOPIC each copy must have a
# topic. `Created` is abstract here, nothing is ever recorded as such; without the name in this namespace it is still
# there by inheritance, for events to derive from, and is not copied.
del Aggregate.Created
