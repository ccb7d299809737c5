"""`ledger.append` decides each command of a call by itself, in order, and writes all of one or nothing of it."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import chain, ids
from tests.ledger import calls
from tests.ledger.calls import (
    APPENDED,
    ID_REUSED,
    REPLAYED,
    RESERVATION_TAKEN,
    TENANT_UNKNOWN,
    TOO_LARGE,
    VERSION_CONFLICT,
    Answer,
    Command,
    Event,
    Key,
    Secret,
)

App = Connection[TupleRow]

pytestmark = pytest.mark.usefixtures("through")
X, Y, Z = (UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + n) for n in (1, 2, 3))
"""Originators, in the order of their ids."""
ANN, BOB, CYD = X, Y, Z
"""Owners of reservations."""

PATHS = ["nothing else collides", "something else collides"]
both_paths = pytest.mark.parametrize("path", PATHS)
"""A call without a collision is written at once; the other way is taken when anything collides. The answers are the same."""


def append(app: App, path: str, tenant: UUID, *commands: Command) -> list[Answer]:
    """The answers to `commands`, alone or together with one that conflicts."""
    if path == PATHS[0]:
        return calls.append(app, *commands)
    once = Command(tenant=tenant, id=ids.new_id())
    assert calls.statuses(calls.append(app, once)) == [APPENDED]
    replayed, *answers = calls.append(app, once, *commands)
    assert replayed.status == REPLAYED
    return answers


def made(tenant: UUID, *originators: UUID, version: int = 1) -> Command:
    return Command(tenant=tenant, events=[Event(each, version) for each in originators])


def holders(owner: App, tenant: UUID) -> dict[bytes, UUID]:
    return dict(owner.execute("SELECT key, owner FROM ledger.reservations WHERE tenant_id = %s", (tenant,)).fetchall())


def secrets(owner: App, tenant: UUID) -> dict[UUID, bytes]:
    return dict(owner.execute("SELECT owner, value FROM ledger.secrets WHERE tenant_id = %s", (tenant,)).fetchall())


# Versions


def test_a_refused_command_leaves_what_it_wanted_to_those_after_it(app: App, projector: App, tenant: UUID) -> None:
    """A takes X1, B wants X1 and Y1 and is refused, C then gets Y1."""
    a, b, c = calls.append(app, made(tenant, X), made(tenant, X, Y), made(tenant, Y))
    assert calls.statuses([a, b, c]) == [APPENDED, VERSION_CONFLICT, APPENDED]
    assert (a.position, b.owner, c.position) == (1, X, 2)
    calls.assert_good(projector, tenant, 2)


def test_one_conflicting_command_among_many_fails_alone(app: App, projector: App, tenant: UUID) -> None:
    taken = ids.new_id()
    calls.append(app, made(tenant, taken))
    many = [made(tenant, taken if n == 17 else ids.new_id()) for n in range(40)]
    answers = calls.append(app, *many)
    assert [n for n, answer in enumerate(answers) if answer.status != APPENDED] == [17]
    assert (answers[17].status, answers[17].owner) == (VERSION_CONFLICT, taken)
    assert [answer.position for answer in answers if answer.status == APPENDED] == list(range(2, 41))
    calls.assert_good(projector, tenant, 40)


def test_a_version_twice_in_one_command_is_a_conflict(app: App, projector: App, tenant: UUID) -> None:
    assert calls.statuses(calls.append(app, made(tenant, X, X), made(tenant, Y))) == [VERSION_CONFLICT, APPENDED]
    calls.assert_good(projector, tenant, 1)


def test_a_conflict_names_the_aggregate_that_changed(app: App, tenant: UUID) -> None:
    """The caller is told what to load again; another aggregate that it wanted, and somebody else wanted too, is not it."""
    _, refused, _ = calls.append(app, made(tenant, Y), made(tenant, X, Y, Z), made(tenant, X))
    assert (refused.status, refused.owner) == (VERSION_CONFLICT, Y)


def test_a_refused_command_has_no_position(app: App, tenant: UUID) -> None:
    """It was given one before it was found out; a reader would wait for it."""
    calls.append(app, made(tenant, X))
    (answer,) = calls.append(app, made(tenant, X))
    assert (answer.status, answer.position, answer.recorded_at) == (VERSION_CONFLICT, None, None)


def test_several_aggregates_in_one_command_stand_or_fall_together(app: App, projector: App, tenant: UUID) -> None:
    calls.append(app, made(tenant, Y))
    both, alone = calls.append(app, made(tenant, X, Y, Z), made(tenant, X, Z))
    assert calls.statuses([both, alone]) == [VERSION_CONFLICT, APPENDED]
    assert alone.position == 3
    calls.assert_good(projector, tenant, 3)


# Command ids


def test_a_command_given_twice_in_one_call_is_appended_once(app: App, projector: App, tenant: UUID) -> None:
    first = Command(tenant=tenant, fingerprint=b"f", outcome=b"one", events=[Event(X), Event(Y)])
    again = dataclasses.replace(first, outcome=b"two")
    other = dataclasses.replace(first, fingerprint=b"g")
    a, b, c, d = calls.append(app, first, made(tenant, Z), again, other)
    assert calls.statuses([a, b, c, d]) == [APPENDED, APPENDED, REPLAYED, ID_REUSED]
    assert (c.position, c.recorded_at, c.outcome) == (2, a.recorded_at, b"one")
    calls.assert_good(projector, tenant, 3)


def test_a_repeated_command_gets_its_stored_outcome(app: App, projector: App, tenant: UUID) -> None:
    first = Command(tenant=tenant, fingerprint=b"f", outcome=b"one", events=[Event(X)])
    (stored,) = calls.append(app, first)
    calls.append(app, made(tenant, Y))
    again = dataclasses.replace(first, outcome=b"two", events=[Event(X, 2), Event(Z)])
    other = dataclasses.replace(again, fingerprint=b"g")
    replayed, twice, reused, new = calls.append(app, again, again, other, made(tenant, Z))
    assert replayed == twice == Answer(REPLAYED, 1, stored.recorded_at, b"one", None, None)
    assert (reused.status, reused.outcome) == (ID_REUSED, None)
    assert (new.status, new.position) == (APPENDED, 3)
    calls.assert_good(projector, tenant, 3)


def test_a_refused_command_does_not_use_up_its_id(app: App, tenant: UUID) -> None:
    """Who was refused loads, decides and sends again under the same idempotency key."""
    calls.append(app, made(tenant, X))
    refused = made(tenant, X)
    decided_again = dataclasses.replace(refused, events=[Event(X, 2)])
    assert calls.statuses(calls.append(app, refused, decided_again)) == [VERSION_CONFLICT, APPENDED]
    assert calls.statuses(calls.append(app, decided_again)) == [REPLAYED]


def test_a_command_without_events_is_remembered_at_the_heads_position(app: App, projector: App, tenant: UUID) -> None:
    nothing, before = Command(tenant=tenant), Command(tenant=tenant)
    answers = calls.append(app, before, made(tenant, X), nothing)
    assert [(answer.status, answer.position) for answer in answers] == [(APPENDED, 0), (APPENDED, 1), (APPENDED, 1)]
    assert calls.append(app, nothing)[0] == answers[2]._replace(status=REPLAYED, outcome=b"outcome")
    calls.assert_good(projector, tenant, 1)


def test_the_same_command_id_in_two_tenants_is_two_commands(app: App) -> None:
    one, two = calls.open_streams(app, 2)
    command = made(one, X)
    assert calls.statuses(calls.append(app, command, dataclasses.replace(command, tenant=two))) == [APPENDED, APPENDED]


# Reservations


@both_paths
def test_of_two_claims_in_one_call_the_first_wins(app: App, owner: App, tenant: UUID, path: str) -> None:
    claims = [Command(tenant=tenant, claims=[Key(calls.key(1), each)]) for each in (ANN, BOB)]
    a, b = append(app, path, tenant, *claims)
    assert (a.status, b.status, b.kind, b.owner) == (APPENDED, RESERVATION_TAKEN, "sku", ANN)
    assert holders(owner, tenant) == {calls.key(1): ANN}


@both_paths
def test_what_is_stored_stays_its_holders(app: App, owner: App, tenant: UUID, path: str) -> None:
    calls.append(app, Command(tenant=tenant, claims=[Key(calls.key(1), ANN)]))
    free = Command(tenant=tenant, claims=[Key(calls.key(2), BOB), Key(calls.key(1), BOB, kind="email")])
    taken = Command(tenant=tenant, claims=[Key(calls.key(3), BOB), Key(calls.key(1), BOB)])
    a, b = append(app, path, tenant, taken, free)
    assert (a.status, a.kind, a.owner, b.status) == (RESERVATION_TAKEN, "sku", ANN, APPENDED)
    assert holders(owner, tenant).keys() == {calls.key(1), calls.key(2)}


@both_paths
def test_a_key_is_handed_over_within_one_command(app: App, owner: App, tenant: UUID, path: str) -> None:
    mine = Key(calls.key(1), ANN)
    calls.append(app, Command(tenant=tenant, claims=[mine]))
    handed = Command(tenant=tenant, releases=[mine], claims=[Key(calls.key(1), BOB)])
    assert calls.statuses(append(app, path, tenant, handed)) == [APPENDED]
    assert holders(owner, tenant) == {calls.key(1): BOB}


@both_paths
def test_a_key_given_back_by_an_earlier_command_is_free_for_a_later_one(
    app: App, owner: App, tenant: UUID, path: str
) -> None:
    calls.append(app, Command(tenant=tenant, claims=[Key(calls.key(1), ANN)]))
    back = Command(tenant=tenant, releases=[Key(calls.key(1), ANN)])
    wanted = [Command(tenant=tenant, claims=[Key(calls.key(1), each)]) for each in (BOB, CYD)]
    answers = append(app, path, tenant, back, *wanted)
    assert calls.statuses(answers) == [APPENDED, APPENDED, RESERVATION_TAKEN]
    assert answers[2].owner == BOB
    assert holders(owner, tenant) == {calls.key(1): BOB}


@both_paths
def test_only_its_holder_gives_a_key_back(app: App, owner: App, tenant: UUID, path: str) -> None:
    calls.append(app, Command(tenant=tenant, claims=[Key(calls.key(1), ANN)]))
    not_his = Command(tenant=tenant, releases=[Key(calls.key(1), BOB)], claims=[Key(calls.key(2), BOB)])
    wanted = Command(tenant=tenant, claims=[Key(calls.key(1), BOB)])
    assert calls.statuses(append(app, path, tenant, not_his, wanted)) == [APPENDED, RESERVATION_TAKEN]
    assert holders(owner, tenant) == {calls.key(1): ANN, calls.key(2): BOB}


@both_paths
def test_giving_back_what_nobody_holds_changes_nothing(app: App, owner: App, tenant: UUID, path: str) -> None:
    back = Command(tenant=tenant, releases=[Key(calls.key(1), ANN)])
    assert calls.statuses(append(app, path, tenant, back)) == [APPENDED]
    assert holders(owner, tenant) == {}


@both_paths
def test_a_key_that_is_given_back_only_later_is_still_taken(app: App, owner: App, tenant: UUID, path: str) -> None:
    """In the stream Bob's product would be listed under a SKU that Ann's still has: a replay finds two holders."""
    calls.append(app, Command(tenant=tenant, claims=[Key(calls.key(1), ANN)]))
    early = Command(tenant=tenant, claims=[Key(calls.key(1), BOB)])
    back = Command(tenant=tenant, releases=[Key(calls.key(1), ANN)])
    assert calls.statuses(append(app, path, tenant, early, back)) == [RESERVATION_TAKEN, APPENDED]
    assert holders(owner, tenant) == {}


@both_paths
def test_a_key_claimed_and_later_given_back_in_one_call_is_free(app: App, owner: App, tenant: UUID, path: str) -> None:
    """Else nobody can ever use the key again: its holder has given it back already."""
    claim, back = (
        Command(tenant=tenant, claims=[Key(calls.key(1), ANN)]),
        Command(tenant=tenant, releases=[Key(calls.key(1), ANN)]),
    )
    assert calls.statuses(append(app, path, tenant, claim, back)) == [APPENDED, APPENDED]
    assert holders(owner, tenant) == {}


@both_paths
def test_a_key_goes_round_within_one_call(app: App, owner: App, tenant: UUID, path: str) -> None:
    mine, his = Key(calls.key(1), ANN), Key(calls.key(1), BOB)
    steps = [
        Command(tenant=tenant, claims=[mine]),
        Command(tenant=tenant, releases=[mine], claims=[his]),
        Command(tenant=tenant, claims=[mine]),
        Command(tenant=tenant, releases=[his]),
        Command(tenant=tenant, claims=[mine]),
    ]
    answers = append(app, path, tenant, *steps)
    assert calls.statuses(answers) == [APPENDED, APPENDED, RESERVATION_TAKEN, APPENDED, APPENDED]
    assert holders(owner, tenant) == {calls.key(1): ANN}


@both_paths
def test_another_tenants_key_is_no_obstacle(app: App, owner: App, path: str) -> None:
    one, two = calls.open_streams(app, 2)
    claims = [Command(tenant=each, claims=[Key(calls.key(1), ANN)]) for each in (one, two)]
    assert calls.statuses(append(app, path, one, *claims)) == [APPENDED, APPENDED]
    assert holders(owner, two) == {calls.key(1): ANN}


# Secrets


@both_paths
def test_of_several_values_of_a_secret_the_last_stands(app: App, owner: App, tenant: UUID, path: str) -> None:
    calls.append(app, Command(tenant=tenant, secrets=[Secret(ANN, b"old"), Secret(BOB, b"old")]))
    values: Sequence[bytes | None] = (b"one", None, b"two")
    steps = [Command(tenant=tenant, secrets=[Secret(ANN, value)]) for value in values]
    assert calls.statuses(append(app, path, tenant, *steps)) == [APPENDED] * 3
    assert secrets(owner, tenant) == {ANN: b"two", BOB: b"old"}


@both_paths
def test_a_secret_set_and_later_deleted_in_one_call_is_gone(app: App, owner: App, tenant: UUID, path: str) -> None:
    """Else a session that was refreshed and then revoked could be refreshed again."""
    steps = [Command(tenant=tenant, secrets=[Secret(ANN, value)]) for value in (b"new", None)]
    assert calls.statuses(append(app, path, tenant, *steps)) == [APPENDED, APPENDED]
    assert secrets(owner, tenant) == {}


@both_paths
def test_a_refused_command_leaves_no_trace(app: App, owner: App, projector: App, tenant: UUID, path: str) -> None:
    """Its claims, releases and secrets belong to it: a refused registration must not change somebody's password."""
    calls.append(
        app, Command(tenant=tenant, events=[Event(X)], claims=[Key(calls.key(1), ANN)], secrets=[Secret(ANN, b"old")])
    )
    refused = Command(
        tenant=tenant,
        events=[Event(Y), Event(X)],
        releases=[Key(calls.key(1), ANN)],
        claims=[Key(calls.key(2), BOB)],
        secrets=[Secret(ANN, b"new"), Secret(BOB, b"new")],
    )
    deleting = Command(tenant=tenant, events=[Event(X)], claims=[Key(calls.key(3), ANN)], secrets=[Secret(ANN, None)])
    large = dataclasses.replace(refused, id=ids.new_id(), events=[Event(Y, state=b"x" * 70_000)])
    before = calls.contents(owner)
    answers = calls.append(app, refused, deleting, large)
    assert calls.statuses(answers) == [VERSION_CONFLICT, VERSION_CONFLICT, TOO_LARGE]
    assert calls.contents(owner) == before
    fine = Command(tenant=tenant, claims=[Key(calls.key(2), BOB)])
    assert calls.statuses(append(app, path, tenant, refused, fine)) == [VERSION_CONFLICT, APPENDED]
    assert holders(owner, tenant) == {calls.key(1): ANN, calls.key(2): BOB}
    calls.assert_good(projector, tenant, 1)


# Size, tenants, time


@both_paths
@pytest.mark.parametrize("topic", ["thing.made", "ding.gemächt"])
def test_a_leaf_of_65_535_bytes_passes_and_one_more_is_refused_alone(
    app: App, projector: App, tenant: UUID, path: str, topic: str
) -> None:
    """Lengths are bytes: letters beyond ASCII take more than one."""
    event = Event(X, topic=topic)
    largest = event._replace(state=calls.state_of_size(chain.LEAF_BYTES_MAX, event))
    larger = event._replace(originator=Y, state=calls.state_of_size(chain.LEAF_BYTES_MAX + 1, event))
    commands = [Command(tenant=tenant, events=events) for events in ([largest], [Event(Z), larger], [Event(Z)])]
    answers = append(app, path, tenant, *commands)
    assert calls.statuses(answers) == [APPENDED, TOO_LARGE, APPENDED]
    assert answers[2].position == 2
    calls.assert_good(projector, tenant, 2)


@both_paths
def test_a_repeated_command_that_is_too_large_is_answered_alike_in_every_company(
    app: App, tenant: UUID, path: str
) -> None:
    """What becomes of a command must not hang on whether its neighbour in the flush collides."""
    stored = made(tenant, X)
    calls.append(app, stored)
    larger = dataclasses.replace(stored, events=[Event(X, state=b"x" * 70_000)])
    assert calls.statuses(append(app, path, tenant, larger)) == [TOO_LARGE]


@both_paths
def test_an_unknown_tenants_command_fails_alone(app: App, owner: App, projector: App, path: str) -> None:
    one, two = calls.open_streams(app, 2)
    unknown = UUID(int=(one.int + two.int) // 2)
    strange = Command(tenant=unknown, events=[Event(X)], claims=[Key(calls.key(1), ANN)], secrets=[Secret(ANN, b"new")])
    answers = append(app, path, one, made(one, X), strange, made(two, X))
    assert calls.statuses(answers) == [APPENDED, TENANT_UNKNOWN, APPENDED]
    calls.assert_good(projector, one, 1)
    calls.assert_good(projector, two, 1)
    assert all(unknown not in row for rows in calls.contents(owner).values() for row in rows)


@both_paths
def test_many_tenants_in_one_call_each_have_their_own_chain(app: App, projector: App, path: str) -> None:
    tenants = calls.open_streams(app, 30)
    commands = [command for each in tenants for command in (made(each, X, Y), made(each, Y), made(each, Z))]
    answers = append(app, path, tenants[0], *commands)
    assert calls.statuses(answers) == [APPENDED, VERSION_CONFLICT, APPENDED] * 30
    assert [answer.position for answer in answers if answer.status == APPENDED] == [2, 3] * 30
    for each in tenants:
        calls.assert_good(projector, each, 3)


def test_a_tenant_that_no_command_is_for_moves_nobodys_head(app: App, projector: App, tenant: UUID) -> None:
    """Heads that slipped by one would put two events at one position."""
    unknown = ids.new_id()
    for _ in range(2):
        arrays = calls.arrays_of([Command(tenant=tenant, events=[Event(ids.new_id())])])
        arrays["p_tenants"], arrays["c_tenant"] = [unknown, tenant], [2]
        assert calls.statuses(calls.call(app, arrays)) == [APPENDED]
    calls.assert_good(projector, tenant, 2)


def test_recorded_times_never_go_back_though_the_clock_does(app: App, owner: App, projector: App, tenant: UUID) -> None:
    """Else an instant would not map to one position, and "the state on 31 December" would have two answers."""
    calls.append(app, made(tenant, X))
    future = datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    owner.execute("UPDATE ledger.heads SET recorded_at = %s WHERE tenant_id = %s", (future, tenant))
    (other,) = calls.open_streams(app, 1)
    answer, of_the_other = calls.append(app, made(tenant, Y), made(other, Y))
    assert answer.recorded_at == future
    assert of_the_other.recorded_at is not None
    assert of_the_other.recorded_at < future
    times = owner.execute("SELECT recorded_at FROM ledger.events WHERE tenant_id = %s ORDER BY position", (tenant,))
    first, second = (row[0] for row in times)
    assert first < second == future
    (alone,) = calls.append(app, made(tenant, ids.new_id()))
    assert alone.recorded_at == future
    calls.assert_good(projector, tenant, 3)


def test_a_rolled_back_append_leaves_nothing(app: App, owner: App, projector: App, tenant: UUID) -> None:
    before = calls.contents(owner)
    with app.transaction(force_rollback=True):
        assert calls.statuses(calls.append(app, made(tenant, X), made(tenant, X))) == [APPENDED, VERSION_CONFLICT]
    assert calls.contents(owner) == before
    calls.append(app, made(tenant, X))
    calls.assert_good(projector, tenant, 1)
