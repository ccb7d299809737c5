"""That somebody tried to log in to an account and failed. Never of a name that nobody has: an attacker would fill the stream."""

from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates
from domain.meaning import meaning


class FailedLogIns(aggregates.Aggregate):
    """Those of one account that were not counted yet, at most once a minute."""

    TOPIC = "failed_log_ins"

    class Counted(aggregates.Aggregate.Created):
        """Attempts to log in to the account failed: as many since the last such event."""

        TOPIC = "security.log_ins_failed"
        account_id: Annotated[UUID, meaning("The account that was tried")]
        attempts: Annotated[int, meaning("How often, 1 or more")]

    @event(Counted)
    def __init__(self, id: UUID, account_id: UUID, attempts: int) -> None:
        self.account_id = account_id
        self.attempts = attempts


def count(*, id: UUID, account_id: UUID, attempts: int) -> FailedLogIns:
    return FailedLogIns(id=id, account_id=account_id, attempts=attempts)
