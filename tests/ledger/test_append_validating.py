"""`ledger.append_validating`: what was read still stands at the commit, or nothing of the call is written."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from ledger import ids
from tests.ledger import calls
from tests.ledger.calls import APPENDED, REPLAYED, Answer, Command, Event, Key
from tests.world import Database

App = Connection[TupleRow]

OUTDATED = "BN001"
SKU = Key(calls.key(1), UUID(int=1))


class Read(NamedTuple):
    tenant: UUID
    kind: str
    key: bytes
    owner: UUID
    hash: bytes


def validating(app: App, commands: list[Command], reads: list[Read], **given: object) -> list[Answer]:
    """`given`: other arrays than those of the commands and the reads."""
    arrays: dict[str, object] = {**calls.arrays_of(commands)}
    arrays |= {name: [read[place] for read in reads] for place, name in enumerate(calls.READS)} | given
    types = calls.PARAMETERS | calls.READS
    arguments = ", ".join(f"%({name})s::{type_name}" for name, type_name in types.items())
    query = f"SELECT * FROM ledger.append_validating({arguments})"
    return [Answer(*row) for row in app.execute(query.encode(), arrays, binary=True)]


def sale(tenant: UUID) -> Command:
    return Command(tenant=tenant, events=[Event(ids.new_id())])


def product(tenant: UUID, version: int = 1, claims: Sequence[Key] = ()) -> Command:
    return Command(tenant=tenant, events=[Event(SKU.owner, version)], claims=claims)


def read_of(app: App, tenant: UUID, kind: str = "sku") -> Read:
    """The product as it is."""
    app.execute("BEGIN")
    app.execute(f"SET LOCAL bitnexus.tenant = '{tenant}'")
    query = "SELECT hash FROM ledger.events WHERE tenant_id = %s AND originator_id = %s ORDER BY originator_version DESC LIMIT 1"
    ((hash,),) = app.execute(query, (tenant, SKU.owner)).fetchall()
    app.execute("COMMIT")
    return Read(tenant, kind, SKU.key if kind else b"", SKU.owner, hash)


def assert_outdated(
    app: App, owner: App, commands: list[Command], reads: list[Read], which: str
) -> psycopg.DatabaseError:
    """Nothing of it is there afterwards."""
    before = calls.contents(owner)
    with pytest.raises(psycopg.DatabaseError) as refused:
        validating(app, commands, reads)
    assert (refused.value.sqlstate, refused.value.diag.message_detail) == (OUTDATED, which)
    assert calls.contents(owner) == before
    return refused.value


@pytest.mark.parametrize("kind", ["", "sku"])
def test_what_was_read_stands(app: App, projector: App, tenant: UUID, kind: str) -> None:
    calls.append(app, product(tenant, claims=[SKU]))
    read = read_of(app, tenant, kind)
    answers = validating(app, [sale(tenant), sale(tenant)], [read])
    assert [(each.status, each.position) for each in answers] == [(APPENDED, 2), (APPENDED, 3)]
    calls.assert_good(projector, tenant, 3)


def test_one_that_was_changed_since_is_named(app: App, owner: App, tenant: UUID) -> None:
    """Beside one that stands."""
    calls.append(app, product(tenant, claims=[SKU]), Command(tenant=tenant, events=[Event(UUID(int=2))]))
    old = read_of(app, tenant, "")
    calls.append(app, product(tenant, 2))
    now = read_of(app, tenant, "sku")
    assert_outdated(app, owner, [sale(tenant)], [now, old], "2")
    assert_outdated(app, owner, [sale(tenant)], [old._replace(kind="sku", key=SKU.key), now, old], "1 3")


def test_a_key_that_somebody_else_holds_is_outdated_and_one_that_nobody_holds(
    app: App, owner: App, tenant: UUID
) -> None:
    calls.append(app, product(tenant, claims=[SKU]))
    read = read_of(app, tenant)
    calls.append(app, Command(tenant=tenant, releases=[SKU]))
    assert_outdated(app, owner, [sale(tenant)], [read], "1")
    calls.append(app, Command(tenant=tenant, claims=[SKU._replace(owner=UUID(int=9))]))
    assert_outdated(app, owner, [sale(tenant)], [read], "1")
    assert validating(app, [sale(tenant)], [read._replace(kind="", key=b"")])[0].status == APPENDED


def test_another_history_of_the_same_length_is_outdated(app: App, owner: App, tenant: UUID) -> None:
    """The database was restored, say."""
    calls.append(app, product(tenant, claims=[SKU]))
    read = read_of(app, tenant)
    assert_outdated(app, owner, [sale(tenant)], [read._replace(hash=bytes(32))], "1")


def test_one_that_there_is_not_is_outdated_also_of_a_tenant_without_a_stream(
    app: App, owner: App, tenant: UUID
) -> None:
    read = Read(tenant, "", b"", ids.new_id(), bytes(32))
    assert_outdated(app, owner, [sale(tenant)], [read], "1")
    nobody = ids.new_id()
    assert_outdated(app, owner, [sale(nobody)], [read._replace(tenant=nobody)], "1")


def test_two_commands_of_one_call_meet_too(app: App, owner: App, tenant: UUID) -> None:
    """The second one was decided upon what the first one changes."""
    calls.append(app, product(tenant, claims=[SKU]))
    read = read_of(app, tenant)
    assert_outdated(app, owner, [product(tenant, 2), sale(tenant)], [read], "1")


def test_a_change_that_it_waits_for_is_seen(app: App, owner: App, tenant: UUID, database: Database) -> None:
    """Somebody else holds the head, and has appended to what was read: who looked before waiting would sell at the old price."""
    calls.append(app, product(tenant, claims=[SKU]))
    read = read_of(app, tenant)
    with connections.connect_sync(database.app_url, "app") as other, ThreadPoolExecutor(1) as threads:
        with other.transaction():
            calls.append(other, product(tenant, 2))
            future = threads.submit(validating, app, [sale(tenant)], [read])
            waits = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
            while owner.execute(waits, (app.info.backend_pid,)).fetchone() != ("Lock",):
                assert not future.done(), future.result()
        with pytest.raises(psycopg.DatabaseError) as refused:
            future.result()
    assert refused.value.sqlstate == OUTDATED


def test_what_was_read_stays_until_the_commit(app: App, owner: App, tenant: UUID, database: Database) -> None:
    """Whoever would change it waits for the call's end."""
    calls.append(app, product(tenant, claims=[SKU]))
    read = read_of(app, tenant)
    with connections.connect_sync(database.app_url, "app") as other, ThreadPoolExecutor(1) as threads:
        with app.transaction():
            validating(app, [sale(tenant)], [read])
            future = threads.submit(calls.append, other, product(tenant, 2))
            waits = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
            while owner.execute(waits, (other.info.backend_pid,)).fetchone() != ("Lock",):
                assert not future.done(), future.result()
        assert [(each.status, each.position) for each in future.result()] == [(APPENDED, 3)]


def test_a_repeat_of_what_stands_is_refused_once_it_is_outdated_and_replayed_by_who_looks_again(
    app: App, owner: App, tenant: UUID
) -> None:
    calls.append(app, product(tenant, claims=[SKU]))
    command, read = sale(tenant), read_of(app, tenant)
    assert validating(app, [command], [read])[0].status == APPENDED
    assert validating(app, [command], [read])[0].status == REPLAYED
    calls.append(app, product(tenant, 2))
    assert_outdated(app, owner, [command], [read], "1")
    assert validating(app, [command], [read_of(app, tenant)])[0].status == REPLAYED


def test_no_table_is_read_from_end_to_end(app: App, tenant: UUID) -> None:
    """Nobody has analyzed them."""
    calls.append(app, product(tenant, claims=[SKU]))
    reads = [read_of(app, tenant), read_of(app, tenant, "")]
    with app.transaction():
        validating(app, [sale(tenant)], reads)
        assert calls.read_whole(app) == []


@pytest.mark.parametrize(
    "given",
    [
        {"k_kind": []},
        {"k_kind": [], "k_key": [], "k_owner": [], "k_hash": []},
        {"k_tenant": []},
        {"k_key": [b"", b""]},
        {"k_owner": [None]},
        {"k_hash": [None]},
        {"k_kind": [None]},
        {"k_key": [None]},
        {"k_tenant": [None]},
        {"k_tenant": [UUID(int=7)]},  # whose head it does not hold
    ],
)
def test_arrays_that_do_not_fit_are_refused_whole(
    app: App, owner: App, tenant: UUID, given: dict[str, list[object]]
) -> None:
    calls.append(app, product(tenant, claims=[SKU]))
    read, before = read_of(app, tenant, ""), calls.contents(owner)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="append_validating"):
        validating(app, [sale(tenant)], [read], **given)
    assert calls.contents(owner) == before
