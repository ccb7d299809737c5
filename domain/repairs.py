"""What a person did about an event that a view could not digest. Nothing of what is recorded changes by it."""

from enum import StrEnum
from typing import Annotated, Any
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
        class_version = 2
        view: Annotated[str, meaning("The view's name")]
        parked_id: Annotated[
            UUID | None, meaning("The aggregate whose events had been parked; null if the view itself had stopped")
        ]
        parked_from: Annotated[
            int | None, meaning("The position of the first of these events; null if the view itself had stopped")
        ]
        decision: Annotated[str, meaning("What was done: retry or skip")]
        reason: Annotated[str, meaning("Why, in the operator's words")]
        operator: Annotated[str, meaning("Whose decision it was: the id of an account, or: command line")]

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """It was not written down where the events began that had been parked."""
            state["parked_from"] = None

    @event(ViewRepaired)
    def __init__(
        self,
        id: UUID,
        view: str,
        parked_id: UUID | None,
        parked_from: int | None,
        decision: str,
        reason: str,
        operator: str,
    ) -> None:
        self.view = view
        self.parked_id = parked_id
        self.parked_from = parked_from
        self.decision = decision
        self.reason = reason
        self.operator = operator


def repair(
    *,
    id: UUID,
    view: str,
    parked_id: UUID | None,
    parked_from: int | None,
    decision: Decision,
    reason: str,
    account_id: UUID | None,
) -> Repair:
    """Raises TextBlank, TextTooLong, TextForbidden."""
    return Repair(
        id=id,
        view=view,
        parked_id=parked_id,
        parked_from=parked_from,
        decision=str(decision),
        reason=text.line(reason, "reason", length_max=REASON_LENGTH_MAX),
        operator=COMMAND_LINE if account_id is None else str(account_id),
    )
