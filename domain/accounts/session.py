"""One log-in, from its start to its revocation."""

from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, refusals, text
from domain.meaning import meaning

REASON_LENGTH_MAX = 200


class SessionRevoked(refusals.Conflict):
    def __init__(self, session_id: UUID) -> None:
        super().__init__("The session has been revoked", session_id, "Log in again")


class Session(aggregates.Aggregate):
    """One log-in, from its start to its revocation: what a token's `sid` names."""

    TOPIC = "session"

    class Started(aggregates.Aggregate.Created):
        """Somebody logged in. The session's originator id is the `sid` of its tokens."""

        TOPIC = "session.started"
        account_id: Annotated[UUID, meaning("The account that logged in")]

    class Refreshed(aggregates.Aggregate.Event):
        """A refresh token was exchanged for the next one."""

        TOPIC = "session.refreshed"

    class Revoked(aggregates.Aggregate.Event):
        """The session's tokens count no more. For good."""

        TOPIC = "session.revoked"
        reason: Annotated[str, meaning("Why, such as logged out")]

    @event(Started)
    def __init__(self, id: UUID, account_id: UUID) -> None:
        self.account_id = account_id
        self.revoked = False

    def refresh(self) -> None:
        """Raises SessionRevoked."""
        if self.revoked:
            raise SessionRevoked(self.id)
        self._refreshed()

    def revoke(self, reason: str) -> None:
        """One that is revoked already records nothing. Raises TextBlank, TextTooLong, TextForbidden."""
        checked = text.line(reason, "reason", length_max=REASON_LENGTH_MAX)
        if not self.revoked:
            self._revoked(checked)

    @event(Refreshed)
    def _refreshed(self) -> None:
        """That it happened is all there is to know."""

    @event(Revoked)
    def _revoked(self, reason: str) -> None:
        self.revoked = True


def start_session(*, id: UUID, account_id: UUID) -> Session:
    return Session(id=id, account_id=account_id)
