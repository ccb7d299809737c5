"""A session: it starts, it is refreshed while it may be, and it ends for good."""

from datetime import datetime, timedelta

import pytest

from domain import accounts
from tests.domain.given import ACCOUNT_ID, NOON, SESSION_ID, given, recorded

LIMITS = accounts.SessionLimits(lasts=timedelta(days=30), idle=timedelta(days=14))


def session() -> accounts.Session:
    return given(accounts.start_session(id=SESSION_ID, account_id=ACCOUNT_ID))


def test_a_session_starts_and_ends() -> None:
    started = accounts.start_session(id=SESSION_ID, account_id=ACCOUNT_ID)
    started.revoke("logged out")
    assert recorded(started) == [
        ("session.started", {"account_id": ACCOUNT_ID}),
        ("session.revoked", {"reason": "logged out"}),
    ]
    assert given(started).revoked


def test_a_revoked_session_cannot_be_refreshed() -> None:
    """A stolen token must end with its session."""
    revoked = session()
    revoked.revoke("logged out")
    with pytest.raises(accounts.SessionRevoked) as refused:
        revoked.check_refresh(NOON, NOON, LIMITS)
    assert refused.value.fields == {}


def test_revoking_twice_records_once() -> None:
    revoked = session()
    revoked.revoke("logged out")
    revoked.revoke("password changed")
    assert recorded(revoked) == [("session.revoked", {"reason": "logged out"})]


@pytest.mark.parametrize(
    ("seen_at", "now", "over"),
    [
        (NOON, NOON, False),
        (NOON, NOON + timedelta(days=14, seconds=-1), False),
        (NOON, NOON + timedelta(days=14), True),
        (NOON + timedelta(days=20), NOON + timedelta(days=30, seconds=-1), False),
        (NOON + timedelta(days=20), NOON + timedelta(days=30), True),
    ],
)
def test_a_session_is_over_after_its_time_and_when_it_was_not_used(
    seen_at: datetime, now: datetime, over: bool
) -> None:
    """A device that was lost must not stay logged in for ever, used or not."""
    assert accounts.is_over(NOON, seen_at, now, LIMITS) == over


def test_an_old_refresh_token_ends_the_session_and_says_so() -> None:
    replayed = session()
    replayed.end_replayed()
    assert recorded(replayed) == [
        ("security.refresh_token_replayed", {"account_id": ACCOUNT_ID}),
        ("session.revoked", {"reason": "refresh token replayed"}),
    ]


def test_replaying_again_records_nothing() -> None:
    """Whoever has an old token could fill the chain with it."""
    replayed = session()
    replayed.end_replayed()
    before = len(recorded(replayed))
    replayed.end_replayed()
    assert len(recorded(replayed)) == before
