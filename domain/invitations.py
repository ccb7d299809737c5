"""Invitations into a tenant. Whom they are for stands outside the events, and only while they are open."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import accounts, aggregates, refusals, tenants
from domain.meaning import meaning


class Status(StrEnum):
    OPEN = "open"
    ACCEPTED = "accepted"
    REVOKED = "revoked"


class InvitationClosed(refusals.Conflict):
    def __init__(self, invitation_id: UUID, status: str) -> None:
        super().__init__(f"The invitation was {status} before", invitation_id, "Ask for another one")


class Invitation(aggregates.Aggregate):
    """An admin's word that somebody may make an account, with which role. Good once."""

    TOPIC = "invitation"

    class Issued(aggregates.Aggregate.Created):
        """An admin has invited somebody. The address is not part of it: it is kept outside until the invitation is answered."""

        TOPIC = "invitation.issued"
        tenant_id: tenants.TenantId
        role: Annotated[str, meaning("What the account will be allowed to do")]
        good_until: Annotated[datetime, meaning("When it ends by itself", unit="UTC", form="date-time")]

    class Accepted(aggregates.Aggregate.Event):
        """Whoever was invited has made an account."""

        TOPIC = "invitation.accepted"
        account_id: Annotated[UUID, meaning("The account that was made")]

    class Revoked(aggregates.Aggregate.Event):
        """The invitation counts no more."""

        TOPIC = "invitation.revoked"

    @event(Issued)
    def __init__(self, id: UUID, tenant_id: UUID, role: str, good_until: datetime) -> None:
        self.tenant_id = tenant_id
        self.role = role
        self.good_until = good_until
        self.status = Status.OPEN

    def accept(self, account_id: UUID) -> None:
        """Raises InvitationClosed."""
        if self.status != Status.OPEN:
            raise InvitationClosed(self.id, self.status)
        self._accepted(account_id)

    def revoke(self) -> None:
        """One that is revoked records nothing. Raises InvitationClosed (it was accepted)."""
        if self.status == Status.ACCEPTED:
            raise InvitationClosed(self.id, self.status)
        if self.status == Status.OPEN:
            self._revoked()

    @event(Accepted)
    def _accepted(self, account_id: UUID) -> None:
        self.status = Status.ACCEPTED

    @event(Revoked)
    def _revoked(self) -> None:
        self.status = Status.REVOKED


def issue(*, id: UUID, tenant_id: UUID, role: str, good_until: datetime) -> Invitation:
    """Raises RoleUnknown, RoleNotHere."""
    accounts.check_role(role, tenant_id)
    return Invitation(id=id, tenant_id=tenant_id, role=str(role), good_until=good_until)
