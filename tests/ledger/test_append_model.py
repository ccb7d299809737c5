"""`ledger.append` against a model of its rules, over calls in which nearly everything collides."""

import dataclasses
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.ledger import calls
from tests.ledger.calls import APPENDED, REPLAYED, Answer, Command, Event, Key, Secret
from tests.ledger.model import Decision, Model, Row

App = Connection[TupleRow]

pytestmark = pytest.mark.usefixtures("through")

EXAMPLES = 150
"""Histories that are tried: about ten seconds of them."""
TENANTS = 3
"""The last one has no stream."""

ORIGINATORS = [UUID(int=number) for number in range(1, 4)]
COMMAND_IDS = [UUID(int=number) for number in range(1, 9)]
KEYS = [calls.key(number) for number in range(1, 4)]
LARGE = b"large"
"""Stands for more bytes than a leaf may have, so that a failing history can still be read."""

Calls = list[list[tuple[int, Command]]]

events = st.builds(
    Event,
    st.sampled_from(ORIGINATORS),
    st.integers(1, 4),
    st.one_of(st.binary(max_size=3), st.binary(max_size=3), st.binary(max_size=3), st.just(LARGE)),
    st.sampled_from(["thing.made", "ding.gemächt"]),
    st.just(b"{}"),
)
keys = st.builds(Key, st.sampled_from(KEYS), st.sampled_from(ORIGINATORS[:2]), st.sampled_from(["sku", "email"]))
secrets = st.builds(Secret, st.sampled_from(ORIGINATORS[:2]), st.none() | st.binary(max_size=2), st.just("password"))
few, many = st.sampled_from(COMMAND_IDS), st.integers(100, 2**100).map(lambda number: UUID(int=number))


def commands(
    events: st.SearchStrategy[list[Event]],
    keys: st.SearchStrategy[list[Key]],
    secrets: st.SearchStrategy[list[Secret]],
) -> st.SearchStrategy[Command]:
    return st.builds(
        lambda id, fingerprint, outcome, new, releases, claims, hidden: Command(
            tenant=UUID(int=0),
            id=id,
            fingerprint=fingerprint,
            outcome=outcome,
            events=new,
            releases=releases,
            claims=claims,
            secrets=hidden,
        ),
        st.one_of(few, many, many),
        st.sampled_from([b"", b"f"]),
        st.binary(max_size=2),
        events,
        keys,
        keys,
        secrets,
    )


some_keys = st.lists(keys, max_size=2, unique_by=lambda key: (key.key, key.kind))
some_secrets = st.lists(secrets, max_size=2, unique_by=lambda secret: secret.owner)
of_all_kinds = commands(st.lists(events, max_size=3), some_keys, some_secrets)
plain = commands(st.lists(events, min_size=1, max_size=1), st.just([]), st.just([]))
tenant_numbers = st.integers(0, TENANTS - 1)
mixed_calls = st.lists(st.tuples(tenant_numbers, of_all_kinds), min_size=1, max_size=6).map(
    lambda call: sorted(call, key=lambda each: each[0])
)
plain_calls = st.tuples(tenant_numbers, st.lists(plain, min_size=1, max_size=4)).map(
    lambda call: [(call[0], command) for command in call[1]]
)
"""What most calls are."""
histories = st.lists(st.one_of(mixed_calls, plain_calls), min_size=1, max_size=5)


def in_tenants(call: Sequence[tuple[int, Command]], tenants: Sequence[UUID]) -> list[Command]:
    return [
        dataclasses.replace(command, tenant=tenants[number], events=[_of_its_size(event) for event in command.events])
        for number, command in call
    ]


def _of_its_size(event: Event) -> Event:
    return event._replace(state=b"x" * 66_000) if event.state == LARGE else event


def seen(decision: Decision, answer: Answer) -> Decision:
    """The answer as far as the model says anything about it."""
    return Decision(
        answer.status,
        answer.position if answer.status in (APPENDED, REPLAYED) else None,
        answer.outcome,
        decision.blamed if answer.owner in decision.blamed else frozenset([answer.owner] if answer.owner else []),
    )


def stored(owner: App, tenants: Sequence[UUID]) -> dict[str, list[Row]]:
    """The tables' rows of these tenants, as Model.rows gives them."""
    queries = {
        "heads": "tenant_id, position",
        "events": "tenant_id, position, originator_id, originator_version, topic, state, metadata",
        "commands": "tenant_id, command_id, fingerprint, outcome, position",
        "reservations": "tenant_id, kind, key, owner",
        "secrets": "tenant_id, owner, kind, value",
    }
    return {
        table: sorted(
            owner.execute(
                f"SELECT {columns} FROM ledger.{table} WHERE tenant_id = ANY (%s)".encode(),
                (list(tenants),),
                binary=True,
            ).fetchall()
        )
        for table, columns in queries.items()
    }


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(histories)
def test_every_history_ends_as_the_rules_say(app: App, owner: App, projector: App, history: Calls) -> None:
    """Each example has tenants of its own; hypothesis shrinks what fails to the shortest history."""
    tenants = calls.open_streams(app, TENANTS - 1)
    tenants.append(UUID(int=tenants[-1].int + 1))
    model = Model(tenants[:-1])
    for call in history:
        wanted = in_tenants(call, tenants)
        expected = [model.append(command) for command in wanted]
        answers = calls.append(app, *wanted)
        assert [seen(*each) for each in zip(expected, answers, strict=True)] == expected
    assert stored(owner, tenants) == model.rows()
    for tenant, appended in model.events.items():
        calls.assert_good(projector, tenant, len(appended))
