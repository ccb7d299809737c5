"""Forgetting a person. What is destroyed is outside the events; here stands only that it happened."""

from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates
from domain.meaning import meaning


class Erasure(aggregates.Aggregate):
    """That a person was erased, for ever. There is one at the most for each subject."""

    TOPIC = "erasure"

    class PersonErased(aggregates.Aggregate.Created):
        """A person is forgotten: the key of the subject is destroyed, and every reader sees `[erased]` from now on."""

        TOPIC = "person.erased"
        subject_id: Annotated[
            UUID, meaning("An account's id, or the random one under which a buyer's reference was kept")
        ]

    @event(PersonErased)
    def __init__(self, id: UUID, subject_id: UUID) -> None:
        self.subject_id = subject_id


def erase(*, id: UUID, subject_id: UUID) -> Erasure:
    """Nothing can be erased twice: `id` is derived from tenant and subject."""
    return Erasure(id=id, subject_id=subject_id)
