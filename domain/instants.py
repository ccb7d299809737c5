"""Business times: when something happened in the world, as opposed to when it was recorded."""

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import msgspec

from domain import refusals
from domain.meaning import meaning

# Whatever is outside is a slip of the pen (a year 0212 or 20261), and far inside what any calendar can compute with.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

# The type of an event's field.
OccurredAt: TypeAlias = Annotated[
    datetime,
    meaning("When it happened in the world, which may be long before it was recorded", unit="UTC", form="date-time"),
]


class TimeUnreadable(refusals.Invalid):
    def __init__(self, field: str, value: str) -> None:
        super().__init__(
            f"{field} is no time",
            value,
            "Write it as 2026-01-31T09:30:00Z, or with an offset such as +02:00 (in an address the + is %2B)",
            field=field,
        )


class TimeWithoutZone(refusals.Invalid):
    def __init__(self, field: str, value: datetime) -> None:
        super().__init__(
            f"The time {field} does not say its offset from UTC",
            value.isoformat(),
            "Add Z for UTC, or an offset such as +02:00",
            field=field,
        )


class TimeOutOfRange(refusals.Invalid):
    def __init__(self, field: str, value: datetime) -> None:
        super().__init__(
            f"The time {field} lies outside the calendar",
            value.isoformat(),
            f"Give a time from {EARLIEST.year} to {LATEST.year}",
            field=field,
        )


def in_utc(value: datetime, field: str) -> datetime:
    """The same instant in UTC. Raises TimeWithoutZone, TimeOutOfRange."""
    if value.utcoffset() is None:
        raise TimeWithoutZone(field, value)
    if not EARLIEST <= value <= LATEST:  # compares instants, and first: converting the year 1 overflows
        raise TimeOutOfRange(field, value)
    return value.astimezone(UTC)


def parsed(text: str, field: str) -> datetime:
    """The instant, in UTC, that a text of RFC 3339 names. Raises TimeUnreadable, TimeWithoutZone, TimeOutOfRange."""
    try:
        found = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise TimeUnreadable(field, text) from None
    return in_utc(found, field)
