"""Whether the database fits the process that starts on it."""

from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from bitnexus import database as connections
from bitnexus import schema
from ledger.keys import MasterKey
from tests.world import MASTER, Database

STRANGER = MasterKey(bytes(32))


def test_a_database_knows_the_key_that_it_was_begun_with(database: Database) -> None:
    assert schema.key_ids(database.owner_url) == []
    assert schema.ensure(database.owner_url, database.app_url, MASTER) == []  # the fixture migrated it
    assert schema.key_ids(database.owner_url) == [MASTER.id]


def test_another_key_is_refused_before_it_locks_the_running_processes_out(database: Database) -> None:
    """It would give the login role another password, and write what nobody else can read."""
    schema.migrate(database.owner_url, MASTER)
    password = _password(database)
    refused = f"{MASTER.id}.*{STRANGER.id}"
    with pytest.raises(schema.MasterKeyWrong, match=refused):
        schema.migrate(database.owner_url, STRANGER)
    with pytest.raises(schema.MasterKeyWrong, match=refused):
        schema.ensure(database.owner_url, _app_url(database, STRANGER), STRANGER)
    assert schema.key_ids(database.owner_url) == [MASTER.id]
    assert _password(database) == password
    assert schema.ensure(None, database.app_url, MASTER) == []


def _password(target: Database) -> object:
    """What the server keeps of the login role's: salted, so that setting it again changes it."""
    with psycopg.connect(target.owner_url) as connection:
        return connection.execute(
            "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = %s", [f"{target.name}_login"]
        ).fetchone()


def test_a_node_without_the_owners_url_starts_on_a_migrated_database(database: Database) -> None:
    schema.migrate(database.owner_url, MASTER)
    assert schema.ensure(None, database.app_url, MASTER) == []


def test_a_node_that_cannot_migrate_says_what_is_missing_and_who_can(database: Database) -> None:
    schema.migrate(database.owner_url, MASTER)
    with psycopg.connect(database.owner_url) as connection:
        row = connection.execute(
            "DELETE FROM migrations.applied WHERE name = (SELECT max(name) FROM migrations.applied) RETURNING name"
        ).fetchone()
    assert row is not None
    with pytest.raises(schema.NotMigrated, match=f"it lacks {row[0]},.*Run `bitnexus migrate`"):
        schema.ensure(None, database.app_url, MASTER)


def test_a_server_that_is_away_is_not_taken_for_one_that_lacks_something(tmp_path: Path) -> None:
    """Amid a restart somebody would be told to migrate, and that the master key may be the wrong one."""
    away = f"postgresql://postgres@/postgres?host={tmp_path}"
    for owner_url in (None, away):
        with pytest.raises(psycopg.OperationalError, match="takes no connections now"):
            schema.ensure(owner_url, away, MASTER)


def test_a_node_does_not_need_to_be_the_owner_once_all_is_well(database: Database) -> None:
    """compose.yml gives the nodes no password of the owner."""
    schema.migrate(database.owner_url, MASTER)
    nobody = conninfo.make_conninfo(database.owner_url, user="nobody_at_all")
    assert schema.ensure(nobody, database.app_url, MASTER) == []


def test_no_process_can_change_which_key_it_is(database: Database) -> None:
    schema.migrate(database.owner_url, MASTER)
    for role in ("app", "projector", "platform"):
        with (
            _as(database, role) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("DELETE FROM ledger.master_keys")


def _as(target: Database, role: str) -> psycopg.Connection:
    return connections.connect_sync(target.app_url, role)  # type: ignore[arg-type]  # one of the three


def _app_url(target: Database, master: MasterKey) -> str:
    return conninfo.make_conninfo(target.app_url, password=connections.login_password(master))
