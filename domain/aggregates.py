"""The root of all aggregates."""

from eventsourcing import domain as eventsourcing_domain


class Aggregate(eventsourcing_domain.Aggregate):
    """A unit that decides by itself. Aggregates and events say their TOPIC; ids and business times are passed in.

    Two ways lead to a state and neither calls the other: a factory or a method checks the rules and then triggers
    an event; `__init__` and the methods under `@event` only fold what an event says. Replay runs the second way
    alone, so a rule that is tightened later never makes an old event unreadable.
    """


# A subclass gets its own copy of every event class in its base's namespace, and under a TOPIC each copy must have a
# topic. `Created` is abstract here, nothing is ever recorded as such; without the name in this namespace it is still
# there by inheritance, for events to derive from, and is not copied.
del Aggregate.Created
