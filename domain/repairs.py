"""What a person did about an event that a view could not digest. Nothing of what is recorded changes by it."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, text
from domain.meaning import meaning

REASON_LENGTH_MAX = 500
COMMAND_LINE = "command line"
"""Whoever has the machine, and names no account. Not the operating system's name of them: it is a person's, and stays for ever."""


class Decision(StrEnum):
    """`RETRY`: apply what waits. `SKIP`: pass over the first event that waits, and apply the rest."""

    RETRY = "retry"
    SKIP = "skip"


class Repair(aggregates.Aggregate):
    """One decision about one view of a tenant."""

    TOPIC = "repair"

    class ViewRepaired(aggregates.Aggregate.Created):
        """An operator let a view try again, or pass over an event, that it could not digest."""

        TOPIC = "view.repaired"
        view: Annotated[str, meaning("The view's name")]
        parked_id: Annotated[
            UUID | None, meaning("The aggregate whose events had been parked; null if the view itself had stopped")
        ]
        decision: Annotated[str, meaning("What was done: retry or skip")]
        reason: Annotated[str, meaning("Why, in the operator's words")]
        operator: Annotated[str, meaning("Whose decision it was: the id of an account, or: command line")]

    @event(ViewRepaired)
    def __init__(self, id: UUID, view: str, parked_id: UUID | None, decision: str, reason: str, operator: str) -> None:
        self.view = view
        self.parked_id = parked_id
        self.decision = decision
        self.reason = reason
        self.operator = operator


def repair(
    *, id: UUID, view: str, parked_id: UUID | None, decision: Decision, reason: str, account_id: UUID | None
) -> Repair:
    """Raises TextBlank, TextTooLong, TextForbidden."""
    return Repair(
        id=id,
        view=view,
        parked_id=parked_id,
        decision=str(decision),
        reason=text.line(reason, "reason", length_max=REASON_LENGTH_MAX),
        operator=COMMAND_LINE if account_id is None else str(account_id),
    )
