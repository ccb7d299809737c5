"""One log-in, from its start to its revocation."""

from datetime import datetime, timedelta
from typing import Annotated, NamedTuple
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, refusals, text
from domain.meaning import meaning

REASON_LENGTH_MAX = 200
REPLAYED = "refresh token replayed"
"""The reason of the revocation that follows RefreshTokenReplayed."""


class SessionRevoked(refusals.Conflict):
    kept_as = None

    def __init__(self, session_id: UUID) -> None:
        super().__init__("The session has been revoked", session_id, "Log in again")


class SessionExpired(refusals.Conflict):
    kept_as = None

    def __init__(self, session_id: UUID) -> None:
        super().__init__(
            "The session has lasted as long as one may, or was not used for too long", session_id, "Log in again"
        )


class SessionLimits(NamedTuple):
    """How long a session lasts from its start, and how long without a refresh."""

    lasts: timedelta = timedelta(days=30)
    idle: timedelta = timedelta(days=14)


SESSION_LIMITS = SessionLimits()
"""Where nobody said anything else."""


class Session(aggregates.Aggregate):
    """One log-in, from its start to its revocation: what a token's `sid` names. It has three events at the most: a refresh is none,
    it happens four times an hour and says nothing."""

    TOPIC = "session"

    class Started(aggregates.Aggregate.Created):
        """Somebody logged in. The session's originator id is the `sid` of its tokens."""

        TOPIC = "session.started"
        account_id: Annotated[UUID, meaning("The account that logged in")]

    class Refreshed(aggregates.Aggregate.Event):
        """A refresh token was exchanged for the next one. Not recorded any more."""

        TOPIC = "session.refreshed"

    class Revoked(aggregates.Aggregate.Event):
        """The session's tokens count no more. For good."""

        TOPIC = "session.revoked"
        reason: Annotated[str, meaning("Why, such as logged out")]

    class RefreshTokenReplayed(aggregates.Aggregate.Event):
        """A refresh token was used that had been exchanged before: two have it, and one may be a thief. The session ends."""

        TOPIC = "security.refresh_token_replayed"
        account_id: Annotated[UUID, meaning("The account whose session it is")]

    @event(Started)
    def __init__(self, id: UUID, account_id: UUID) -> None:
        self.account_id = account_id
        self.revoked = False

    def check_refresh(self, seen_at: datetime, now: datetime, limits: SessionLimits) -> None:
        """`seen_at`: of its last refresh, or its start. Raises SessionRevoked, SessionExpired."""
        if self.revoked:
            raise SessionRevoked(self.id)
        if is_over(self.created_on, seen_at, now, limits):
            raise SessionExpired(self.id)

    def end_replayed(self) -> None:
        """An old refresh token was used. One that is revoked already records nothing: whoever has the token could go on."""
        if not self.revoked:
            self._replayed(self.account_id)
            self._revoked(REPLAYED)

    def revoke(self, reason: str) -> None:
        """One that is revoked already records nothing. Raises TextBlank, TextTooLong, TextForbidden."""
        checked = text.line(reason, "reason", length_max=REASON_LENGTH_MAX)
        if not self.revoked:
            self._revoked(checked)

    @event(Refreshed)
    def _refreshed(self) -> None:
        """That it happened is all there is to know."""

    @event(RefreshTokenReplayed)
    def _replayed(self, account_id: UUID) -> None:
        """The revocation that follows is what counts."""

    @event(Revoked)
    def _revoked(self, reason: str) -> None:
        self.revoked = True


def start_session(*, id: UUID, account_id: UUID) -> Session:
    return Session(id=id, account_id=account_id)


def is_over(started_at: datetime, seen_at: datetime, now: datetime, limits: SessionLimits) -> bool:
    """Whether a session has lasted too long, or too long without a refresh."""
    return now >= started_at + limits.lasts or now >= seen_at + limits.idle
