"""That somebody from outside a tenant looked into it, or from the platform at all of them."""

from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates
from domain.meaning import meaning


class Look(aggregates.Aggregate):
    """One look. In the stream of the tenant that was looked at; in the platform's if it was at all of them."""

    TOPIC = "look"

    class LookedInto(aggregates.Aggregate.Created):
        """A super admin read something of the tenant; in the platform's own stream: of all tenants together."""

        TOPIC = "tenant.looked_into"
        account_id: Annotated[UUID, meaning("The super admin's account, which is the platform's")]
        what: Annotated[str, meaning("What was read, as the operation is called")]

    @event(LookedInto)
    def __init__(self, id: UUID, account_id: UUID, what: str) -> None:
        self.account_id = account_id
        self.what = what


def look(*, id: UUID, account_id: UUID, what: str) -> Look:
    return Look(id=id, account_id=account_id, what=what)
