"""That a key of the installation was changed. The keys themselves are never in an event, only what they are called."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates
from domain.meaning import meaning


class Rotated(StrEnum):
    """What the key is for."""

    PERSONS = "persons"
    TOKENS = "tokens"


class KeyRotation(aggregates.Aggregate):
    """One rotation, in the platform's stream."""

    TOPIC = "key_rotation"

    class KeyRotated(aggregates.Aggregate.Created):
        """Somebody changed a key of the installation; recorded before."""

        TOPIC = "security.key_rotated"
        of: Annotated[str, meaning("What the key is for: persons (the master key that wraps theirs) or tokens")]
        key_id: Annotated[str, meaning("What the new key is called; of tokens it is the `kid`")]
        at_once: Annotated[bool, meaning("Whether the tokens of the keys before it count no more from then on")]

    @event(KeyRotated)
    def __init__(self, id: UUID, of: str, key_id: str, at_once: bool) -> None:
        self.of = of
        self.key_id = key_id
        self.at_once = at_once


def rotate(*, id: UUID, of: Rotated, key_id: str, at_once: bool = False) -> KeyRotation:
    return KeyRotation(id=id, of=of.value, key_id=key_id, at_once=at_once)
