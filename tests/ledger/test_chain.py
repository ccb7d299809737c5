"""The database's hash and Python's are the same function of the same bytes, for whatever is appended by whomever."""

import contextlib
import hashlib
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from ledger import chain, ids, verify
from tests.ledger import calls
from tests.ledger.calls import APPENDED, Command, Event
from tests.world import Database

App = Connection[TupleRow]

ALPHABET = "az09.-_ \t\nßéŁж中🧾\u0301\u200b\ufeff\U0010ffff"
EVENTS = 300


def random_event(random: Random) -> Event:
    return Event(
        originator=UUID(int=random.getrandbits(128)),
        version=random.choice([1, 2, random.randint(1, 2**31 - 1), 2**31 - 1]),
        topic="".join(random.choices(ALPHABET, k=random.randint(1, 40))),
        state=random.choice([b"", b"\0", random.randbytes(random.randint(1, 3_000)), "ünï\0cödé".encode()]),
        metadata=random.choice([b"", b"\0\xff", random.randbytes(random.randint(1, 300))]),
    )


def hashes(owner: App, tenant: UUID) -> list[tuple[bytes, bytes]]:
    """Of each event what is stored and what Python computes, in order, onto the hash computed before."""
    rows = owner.execute(
        "SELECT position, originator_id, originator_version, recorded_at, topic, state, metadata, hash"
        " FROM ledger.events WHERE tenant_id = %s ORDER BY position",
        (tenant,),
        binary=True,
    )
    previous, found = chain.genesis(tenant), []
    for position, originator, version, recorded_at, topic, state, metadata, stored in rows:
        previous = chain.leaf_hash(previous, tenant, position, originator, version, recorded_at, topic, state, metadata)
        found.append((stored, previous))
    return found


def leaf(previous: bytes, tenant: UUID, position: int, event: Event, recorded_us: int) -> bytes:
    """The leaf as ledger/README.md writes it down, for nobody's convenience."""
    topic = event.topic.encode()
    return b"".join(
        [
            b"\x01",
            previous,
            tenant.bytes,
            position.to_bytes(8, "big"),
            event.originator.bytes,
            event.version.to_bytes(4, "big"),
            recorded_us.to_bytes(8, "big", signed=True),
            len(topic).to_bytes(4, "big") + topic,
            len(event.state).to_bytes(4, "big") + event.state,
            len(event.metadata).to_bytes(4, "big") + event.metadata,
        ]
    )


def test_the_hash_is_that_of_the_leaf_as_it_is_documented() -> None:
    """Who checks a receipt in ten years has the document, not this code."""
    tenant, recorded_at = UUID(int=7), datetime(2026, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC)
    event = Event(UUID(int=9), 3, b'{"a":"\xc3\xa4"}', "ding.gemächt", b"{}")
    recorded_us = 1_770_091_506_789_012
    computed = chain.leaf_hash(
        b"\x05" * 32, tenant, 11, event.originator, 3, recorded_at, event.topic, event.state, event.metadata
    )
    assert computed == hashlib.sha256(b"\0" + leaf(b"\x05" * 32, tenant, 11, event, recorded_us)).digest()
    fixed = len(leaf(b"\x05" * 32, tenant, 11, Event(UUID(int=9), 1, b"", "", b""), 0))
    assert fixed == chain.LEAF_BYTES_FIXED


def test_microseconds_are_exact_on_both_sides_of_1970_and_far_away() -> None:
    """A float would round them past the year 2255, and the hash would be another one."""
    assert chain.microseconds(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert chain.microseconds(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == 253_402_300_799_999_999


def test_a_stream_begins_at_its_tenants_genesis(app: App, owner: App, tenant: UUID) -> None:
    row = owner.execute("SELECT position, hash FROM ledger.heads WHERE tenant_id = %s", (tenant,)).fetchone()
    assert row == (0, hashlib.sha256(b"bitnexus ledger v1\x00" + tenant.bytes).digest())
    assert chain.genesis(tenant) == row[1]


def test_opening_a_stream_again_changes_nothing(app: App, owner: App, tenant: UUID) -> None:
    calls.append(app, Command(tenant=tenant, events=[Event(ids.new_id())]))
    before = calls.contents(owner)
    app.execute("SELECT ledger.open_stream(%s)", (tenant,))
    assert calls.contents(owner) == before


@pytest.mark.parametrize("client_encoding", ["UTF8", "LATIN1", "WIN1252", "SQL_ASCII"])
def test_random_events_hash_alike_in_the_database_and_here(
    app: App, owner: App, projector: App, tenant: UUID, client_encoding: str
) -> None:
    """Also for a client that sends its topics in another encoding."""
    random = Random(client_encoding)
    app.execute(f"SET client_encoding = '{client_encoding}'".encode())
    events = [random_event(random) for _ in range(EVENTS)]
    if client_encoding in ("LATIN1", "WIN1252"):
        events = [event._replace(topic=f"größe.{n}.éß") for n, event in enumerate(events)]
    elif client_encoding == "SQL_ASCII":
        events = [event._replace(topic=f"size.{n}") for n, event in enumerate(events)]
    sizes = [1, 2, 97, 200]
    for size in sizes:
        answers = calls.append(app, Command(tenant=tenant, events=events[:size]), Command(tenant=tenant))
        assert calls.statuses(answers) == [APPENDED, APPENDED]
        events = events[size:]
    found = hashes(owner, tenant)
    assert len(found) == sum(sizes)
    assert [stored for stored, _ in found] == [computed for _, computed in found]
    calls.assert_good(projector, tenant, sum(sizes))


HOSTILE = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "bytea_output": "escape",
    "timezone": "Asia/Kathmandu",
    "datestyle": "German",
    "intervalstyle": "postgres_verbose",
    "extra_float_digits": "-15",
    "xmlbinary": "hex",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "backslash_quote": "on",
    "plpgsql.variable_conflict": "use_column",
    "search_path": "pg_temp",
    "row_security": "on",
    "enable_nestloop": "off",
    "enable_sort": "off",
    "default_text_search_config": "simple",
}


def test_no_setting_of_the_session_changes_a_hash(database: Database, owner: App, projector: App) -> None:
    """Whoever holds the app role may set these; it must not choose a hash, nor break a chain. Being refused is good enough."""
    for name, value in HOSTILE.items():
        tenant, random, events = ids.new_id(), Random(name), 0
        with connections.connect_sync(database.app_url, "app") as app:
            app.execute(f"SET {name} = '{value}'".encode())
            try:
                app.execute("SELECT ledger.open_stream(%s::uuid)", (str(tenant),))
                command = Command(tenant=tenant, events=[random_event(random)._replace(topic="a.b") for _ in range(9)])
                events = 9 * calls.statuses(calls.append(app, command, command)).count(APPENDED)
            except psycopg.Error:
                assert name == "standard_conforming_strings"
        found = hashes(owner, tenant)
        assert [stored for stored, _ in found] == [computed for _, computed in found], name
        calls.assert_good(projector, tenant, events)


def test_a_session_without_standard_strings_cannot_break_an_open_chain(
    database: Database, app: App, projector: App, tenant: UUID
) -> None:
    """Backslashes in the function's own text are read otherwise then."""
    calls.append(app, Command(tenant=tenant, events=[Event(ids.new_id())]))
    with connections.connect_sync(database.app_url, "app") as hostile:
        hostile.execute("SET standard_conforming_strings = off")
        with contextlib.suppress(psycopg.Error):
            calls.append(hostile, Command(tenant=tenant, events=[Event(ids.new_id())]))
    assert verify.verify(projector, tenant).broken is None
