"""Whatever is changed behind the ledger's back, by whomever, `verify` finds it and says where."""

import tracemalloc
from collections.abc import Callable
from uuid import UUID

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import chain, ids, verify
from tests.ledger import calls
from tests.ledger.calls import Command, Event

App = Connection[TupleRow]
Tamper = Callable[[App, UUID], None]

EVENTS = 7
MANY = 50_000
MEMORY_BYTES_MAX = 4 * 1024 * 1024
"""What verifying may take at its peak, whatever the number of events: a message of the network and a few rows."""


@pytest.fixture
def stream(app: App, tenant: UUID) -> UUID:
    """Seven events of three aggregates, of four calls."""
    a, b, c = (ids.new_id() for _ in range(3))
    for events in ([Event(a, 1, b'{"n":1}')], [Event(b, 1, b'{"n":2}'), Event(a, 2, b'{"n":3}')], [Event(c, 1)]):
        calls.append(app, Command(tenant=tenant, events=events))
    calls.append(app, Command(tenant=tenant, events=[Event(c, version, topic="thing.moved") for version in (2, 3, 4)]))
    return tenant


def tampered(statement: str) -> Tamper:
    """One statement as superuser; $t is the tenant."""

    def tamper(owner: App, tenant: UUID) -> None:
        cursor = owner.execute(statement.replace("$t", f"'{tenant}'").encode())
        assert cursor.rowcount == 1

    return tamper


AT = "WHERE tenant_id = $t AND position ="


def at(position: int) -> str:
    return f"WHERE tenant_id = %s AND position = {position}"


FLIP_FIRST = "set_byte({0}, 0, get_byte({0}, 0) # 1)"
FLIP_LAST = "set_byte({0}, octet_length({0}) - 1, get_byte({0}, octet_length({0}) - 1) # 128)"
VALUES = {
    "originator_id": ["'00000000-0000-7000-8000-000000000001'", "uuidv7()"],
    "originator_version": ["originator_version + 1000", "2147483647"],
    "topic": ["'thing.madf'", "topic || ' '", "'x'"],
    "recorded_at": [
        "recorded_at + interval '1 microsecond'",
        "recorded_at - interval '2 microseconds'",
        "'epoch'",
        "'4713-01-01 00:00:00 BC'",
        "'-infinity'",
    ],
    "state": [FLIP_FIRST.format("state"), FLIP_LAST.format("state"), "''", "state || '\\x00'::bytea"],
    "metadata": [FLIP_FIRST.format("metadata"), FLIP_LAST.format("metadata"), "'{}'", "metadata || '\\x20'::bytea"],
    "hash": [FLIP_FIRST.format("hash"), FLIP_LAST.format("hash"), "decode(repeat('00', 32), 'hex')"],
}


@pytest.mark.parametrize("position", [1, 4, EVENTS])
def test_a_change_in_any_column_is_found_at_its_position(
    owner: App, projector: App, stream: UUID, position: int
) -> None:
    """Every column that the table has, whatever is added to it later."""
    columns = owner.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'ledger' AND table_name = 'events'"
    )
    assert {name for (name,) in columns} == {*VALUES, "tenant_id", "position"}
    found = {}
    for column, values in VALUES.items():
        (original,) = (
            owner.execute(f"SELECT {column} FROM ledger.events {at(position)}".encode(), (stream,)).fetchone() or ()
        )
        for value in values:
            owner.execute(f"UPDATE ledger.events SET {column} = {value} {at(position)}".encode(), (stream,))
            broken = verify.verify(projector, stream).broken
            found[f"{column} = {value}"] = broken and broken.position
        owner.execute(f"UPDATE ledger.events SET {column} = %s {at(position)}".encode(), (original, stream))
    assert {k: v for k, v in found.items() if v != position} == {}
    calls.assert_good(projector, stream, EVENTS)


@pytest.mark.parametrize("instant", ["294276-12-31 23:59:59.999999", "infinity"])
def test_a_time_that_no_leaf_can_hold_is_found(owner: App, projector: App, stream: UUID, instant: str) -> None:
    """PostgreSQL counts from 2000, the leaf from 1970: the last thirty years of its range have no number in a leaf."""
    owner.execute(f"UPDATE ledger.events SET recorded_at = '{instant}' {at(4)}".encode(), (stream,))
    broken = verify.verify(projector, stream).broken
    assert broken is not None
    assert broken.position == 4


def test_bytes_moved_between_columns_are_found(owner: App, stream: UUID) -> None:
    """Lengths are part of the leaf: the same bytes with another boundary are another event."""
    tampered(
        "UPDATE ledger.events SET state = state || substr(metadata, 1, 1), metadata = substr(metadata, 2) " + AT + " 2"
    )(owner, stream)
    broken = verify.verify(owner, stream).broken
    assert broken is not None
    assert broken.position == 2


@pytest.mark.parametrize("column", sorted(VALUES))
def test_a_column_that_lost_its_value_is_found(owner: App, projector: App, stream: UUID, column: str) -> None:
    """Who may drop a constraint may do that, too. Nothing is hashed in its place."""
    owner.execute(f"ALTER TABLE ledger.events ALTER COLUMN {column} DROP NOT NULL".encode())
    tampered(f"UPDATE ledger.events SET {column} = NULL {AT} 4")(owner, stream)
    verdict = verify.verify(projector, stream)
    assert (verdict.broken, verdict.events) == (verify.Broken(4, "one of its columns is NULL"), 3)


def test_bytes_moved_from_the_topic_into_the_state_are_found(owner: App, projector: App, stream: UUID) -> None:
    tampered(
        "UPDATE ledger.events SET topic = left(topic, -1), state = convert_to(right(topic, 1), 'UTF8') || state "
        + AT
        + " 2"
    )(owner, stream)
    broken = verify.verify(projector, stream).broken
    assert broken is not None
    assert broken.position == 2


def test_a_function_in_front_of_postgresql_s_own_hides_nothing(owner: App, projector: App, stream: UUID) -> None:
    """A role's or the database's search_path can be set by whoever tampers with the events."""
    owner.execute("CREATE SCHEMA forged")
    owner.execute("GRANT USAGE ON SCHEMA forged TO PUBLIC")
    owner.execute(
        "CREATE FUNCTION forged.textsend(text) RETURNS bytea LANGUAGE sql"
        " AS $$ SELECT convert_to(replace($1, 'madf', 'made'), 'UTF8') $$"
    )
    tampered(f"UPDATE ledger.events SET topic = 'thing.madf' {AT} 2")(owner, stream)
    projector.execute("SET search_path = forged, pg_catalog")
    broken = verify.verify(projector, stream).broken
    assert broken is not None
    assert broken.position == 2


def swap(owner: App, tenant: UUID) -> None:
    for before, after in ((3, 1_000), (4, 3), (1_000, 4)):
        tampered(f"UPDATE ledger.events SET position = {after} {AT} {before}")(owner, tenant)


def rehash(owner: App, tenant: UUID, start: int) -> None:
    """Give all events from `start` on another state and the hashes that belong to it; the head stays.

    One past the end adds such an event.
    """
    rows = owner.execute(
        "SELECT position, originator_id, originator_version, recorded_at, topic, metadata, hash"
        " FROM ledger.events WHERE tenant_id = %s ORDER BY position",
        (tenant,),
    ).fetchall()
    last = rows[-1]
    if start > last[0]:
        new = (start, last[1], last[2] + 1, *last[3:6])
        owner.execute(
            "INSERT INTO ledger.events SELECT %s, %s, %s, %s, %s, %s, ''::bytea, %s, %s",
            (tenant, start, new[1], new[2], new[4], new[3], new[5], b"\0" * 32),
        )
        rows.append((*new, b""))
    previous = chain.genesis(tenant) if start == 1 else rows[start - 2][6]
    for position, originator, version, recorded_at, topic, metadata, _stored in rows[start - 1 :]:
        previous = chain.leaf_hash(
            previous, tenant, position, originator, version, recorded_at, topic, b"forged", metadata
        )
        owner.execute(
            "UPDATE ledger.events SET state = 'forged', hash = %s WHERE tenant_id = %s AND position = %s",
            (previous, tenant, position),
        )


def set_back_in_time(owner: App, tenant: UUID) -> None:
    """All that follows is hashed again, and the head with it: only the times give it away."""
    tampered(f"UPDATE ledger.events SET recorded_at = '2001-01-01' {AT} 5")(owner, tenant)
    rehash(owner, tenant, 5)
    owner.execute(
        "UPDATE ledger.heads h SET hash = e.hash FROM ledger.events e"
        " WHERE h.tenant_id = %s AND e.tenant_id = h.tenant_id AND e.position = h.position",
        (tenant,),
    )


HEAD = "UPDATE ledger.heads SET {} WHERE tenant_id = $t"
TAMPERINGS: dict[str, tuple[Tamper, int]] = {
    "the first event is gone": (tampered(f"DELETE FROM ledger.events {AT} 1"), 1),
    "a middle event is gone": (tampered(f"DELETE FROM ledger.events {AT} 4"), 4),
    "the last event is gone": (tampered(f"DELETE FROM ledger.events {AT} 7"), 7),
    "two events are swapped": (swap, 3),
    "an event has another position": (tampered(f"UPDATE ledger.events SET position = 5000 {AT} 4"), 4),
    "an event went to another tenant": (tampered(f"UPDATE ledger.events SET tenant_id = uuidv7() {AT} 4"), 4),
    "an event stands past the head": (lambda owner, tenant: rehash(owner, tenant, EVENTS + 1), EVENTS + 1),
    "all events from the fifth on are rewritten, the head is not": (lambda owner, tenant: rehash(owner, tenant, 5), 7),
    "all events are rewritten, the head is not": (lambda owner, tenant: rehash(owner, tenant, 1), 7),
    "an event was recorded before the one that it follows": (set_back_in_time, 5),
    "the head is set back": (tampered(HEAD.format("position = 5")), 6),
    "the head is set forward": (tampered(HEAD.format("position = 9")), 8),
    "the head has another hash": (tampered(HEAD.format(f"hash = {FLIP_LAST.format('hash')}")), 7),
    "the head has another time": (tampered(HEAD.format("recorded_at = recorded_at + interval '1 year'")), 7),
    "the head is gone": (tampered("DELETE FROM ledger.heads WHERE tenant_id = $t"), 7),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_where_it_was_done_and_blames_nobody_else(
    app: App, owner: App, projector: App, stream: UUID, name: str
) -> None:
    neighbours = calls.open_streams(app, 2)
    for neighbour in neighbours:
        calls.append(app, Command(tenant=neighbour, events=[Event(ids.new_id())]))
    tamper, position = TAMPERINGS[name]
    tamper(owner, stream)
    broken = verify.verify(projector, stream).broken
    assert broken is not None
    assert broken.position == position
    for neighbour in neighbours:
        calls.assert_good(projector, neighbour, 1)


def test_two_tenants_events_exchanged_are_found_in_both(app: App, owner: App, projector: App, stream: UUID) -> None:
    (other,) = calls.open_streams(app, 1)
    calls.append(app, Command(tenant=other, events=[Event(ids.new_id()) for _ in range(EVENTS)]))
    with owner.transaction():
        for source, target, position in ((stream, other, 1_002), (other, stream, 2)):
            owner.execute(
                "UPDATE ledger.events SET tenant_id = %s, position = %s WHERE tenant_id = %s AND position = 2",
                (target, position, source),
            )
        owner.execute("UPDATE ledger.events SET position = 2 WHERE position = 1002")
    assert [getattr(verify.verify(projector, each).broken, "position", None) for each in (stream, other)] == [2, 2]


def test_only_the_first_break_is_reported_and_what_is_good_before_it(owner: App, projector: App, stream: UUID) -> None:
    for position in (6, 3, 5):
        tampered(f"UPDATE ledger.events SET state = 'forged' {AT} {position}")(owner, stream)
    verdict = verify.verify(projector, stream)
    ((hash,),) = owner.execute(f"SELECT hash FROM ledger.events {at(2)}".encode(), (stream,)).fetchall()
    assert verdict.broken is not None
    assert (verdict.broken.position, verdict.events, verdict.hash) == (3, 2, hash)


def test_a_break_is_found_in_whatever_chunk_it_stands(
    owner: App, projector: App, stream: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "ROWS_PER_CHUNK", 2)
    calls.assert_good(projector, stream, EVENTS)
    for position in range(EVENTS, 0, -1):
        tampered(f"UPDATE ledger.events SET state = 'forged' {AT} {position}")(owner, stream)
        verdict = verify.verify(projector, stream)
        assert verdict.broken is not None
        assert (verdict.broken.position, verdict.events) == (position, position - 1)


def test_who_interrupts_has_the_connection_back(projector: App, stream: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream holds the connection's lock: unless it is closed, the end of the transaction waits for it forever."""
    monkeypatch.setattr(verify, "PROGRESS_EVERY", 3)
    monkeypatch.setattr(verify, "ROWS_PER_CHUNK", 2)

    def interrupt(events: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify.verify(projector, stream, interrupt)
    calls.assert_good(projector, stream, EVENTS)


def test_an_open_stream_without_events_is_good_and_a_forged_genesis_is_not(
    owner: App, projector: App, tenant: UUID
) -> None:
    calls.assert_good(projector, tenant, 0)
    tampered(HEAD.format("hash = decode(repeat('11', 32), 'hex')"))(owner, tenant)
    assert verify.verify(projector, tenant).broken is not None


def test_a_tenant_that_never_was_has_nothing_to_break(projector: App) -> None:
    assert verify.verify(projector, ids.new_id()).broken is None


def test_a_large_stream_is_verified_in_little_memory(app: App, projector: App, tenant: UUID) -> None:
    """An auditor's laptop has to do for a tenant of a hundred million events."""
    state = b"x" * 500
    for _ in range(MANY // 2_000):
        commands = [
            Command(tenant=tenant, events=[Event(ids.new_id(), 1, state) for _ in range(100)]) for _ in range(20)
        ]
        calls.append(app, *commands)
    reported: list[int] = []
    tracemalloc.start()
    try:
        verdict = verify.verify(projector, tenant, reported.append)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (verdict.broken, verdict.events) == (None, MANY)
    assert peak_bytes < MEMORY_BYTES_MAX
    assert reported == sorted(reported)
    assert reported[-1] == MANY
