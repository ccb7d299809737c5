"""What a process's own login may do to the ledger: append to it by its functions, read it, and nothing else.

A process that is taken over has this login's password and can send any statement, change its role and reset it.
"""

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, errors
from psycopg.rows import TupleRow

from ledger import ids, verify
from tests.ledger import calls
from tests.ledger.calls import APPENDED, Command, Event, Key, Secret
from tests.world import Database

Session = Connection[TupleRow]

ROLES = ("bitnexus_app", "bitnexus_projector", "bitnexus_platform")
RESETS = ("RESET ROLE", "SET ROLE NONE", "DISCARD ALL", "RESET ALL", "SET SESSION AUTHORIZATION DEFAULT")
REFUSED = (errors.InsufficientPrivilege, errors.FeatureNotSupported)
"""COPY FROM into a table with row-level security is not supported at all."""


@pytest.fixture
def owner(database: Database) -> Iterator[Session]:
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def login(database: Database) -> Iterator[Session]:
    """Logged in as a process is, without a role chosen."""
    with psycopg.connect(database.app_url, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@pytest.fixture
def tenants(login: Session) -> list[UUID]:
    """Two tenants with a row in every table, written as a process writes."""
    login.execute("SET ROLE bitnexus_app")
    found = calls.open_streams(login, 2)
    for tenant in found:
        owner = ids.new_id()
        command = Command(
            tenant=tenant, events=[Event(owner)], claims=[Key(calls.key(1), owner)], secrets=[Secret(owner, b"hash")]
        )
        assert calls.statuses(calls.append(login, command)) == [APPENDED]
        login.execute("SELECT ledger.open_subjects(%s, 'buyer', %s, %s)", (tenant, [calls.key(2)], [ids.new_id()]))
        login.execute("SELECT ledger.open_subject_keys(%s, %s, %s, 'k')", (tenant, [ids.new_id()], [b"wrapped"]))
    login.execute("RESET ROLE")
    return found


def states(login: Session) -> Iterator[str]:
    """The login in every state that it can bring itself into."""
    yield "as it logs in"
    for role in ROLES:
        login.execute(f"SET ROLE {role}".encode())
        yield role
        for reset in RESETS:
            login.execute(f"SET ROLE {role}".encode())
            login.execute(reset.encode())
            yield f"{role}, {reset}"


def got_through(login: Session, statements: list[str]) -> list[str]:
    """The statements that were not refused for want of a right, in any state of the login."""
    through = []
    for state in states(login):
        for statement in statements:
            try:
                login.execute(statement.encode())
                through.append(f"{state}: {statement}")
            except REFUSED:
                pass
            except psycopg.Error as error:
                through.append(f"{state}: {statement}: {error}")
    return through


def columns(owner: Session, table: str) -> list[str]:
    query = (
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'ledger' AND table_name = %s ORDER BY ordinal_position"
    )
    return [name for (name,) in owner.execute(query, (table,))]


def writing(table: str, names: list[str]) -> list[str]:
    """Statements that write to the table or lock out who does."""
    first = names[0]
    return [
        *(f"UPDATE {table} SET {name} = {name}" for name in names),
        f"UPDATE ONLY {table} SET {first} = {first} WHERE {first} IS NOT NULL RETURNING *",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"TRUNCATE {table} CASCADE",
        f"INSERT INTO {table} SELECT * FROM {table}",
        f"INSERT INTO {table} DEFAULT VALUES ON CONFLICT DO NOTHING",
        f"MERGE INTO {table} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
        f"MERGE INTO {table} t USING (SELECT 1) s ON true WHEN MATCHED THEN UPDATE SET {first} = t.{first}",
        f"MERGE INTO {table} t USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
        f"COPY {table} FROM STDIN",
        f"COPY {table} FROM PROGRAM 'true'",
        f"SELECT * FROM {table} FOR UPDATE",
        f"SELECT * FROM {table} FOR KEY SHARE",
        f"DO 'BEGIN LOCK TABLE {table} IN ROW SHARE MODE; END'",
        f"DO 'BEGIN LOCK TABLE {table} IN EXCLUSIVE MODE; END'",
        f"WITH gone AS (DELETE FROM {table} RETURNING *) SELECT * FROM gone",
    ]


def test_no_row_is_written_changed_removed_or_locked_but_by_the_functions(
    owner: Session, login: Session, tenants: list[UUID]
) -> None:
    """In no table that the ledger has, nor in one that it gets later."""
    before = calls.contents(owner)
    assert all(before.values())
    tables = [name for (name,) in owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'ledger'")]
    assert set(calls.TABLES) <= set(tables)
    for table in tables:
        assert got_through(login, writing(f"ledger.{table}", columns(owner, table))) == []
    assert calls.contents(owner) == before


def test_nothing_of_the_schema_is_made_altered_or_dropped(
    database: Database, owner: Session, login: Session, tenants: list[UUID]
) -> None:
    before = calls.contents(owner)
    (body,) = owner.execute("SELECT pg_get_functiondef('ledger.open_stream'::regproc)").fetchone() or ("",)
    statements = [
        "CREATE TABLE ledger.more (n int)",
        "CREATE VIEW ledger.more AS SELECT 1",
        "CREATE FUNCTION ledger.more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE ledger.more AS (n int)",
        "CREATE SCHEMA more",
        "CREATE TABLE public.more (n int)",
        "CREATE EXTENSION dblink",
        "DROP SCHEMA ledger CASCADE",
        "ALTER SCHEMA ledger RENAME TO other",
        "DROP FUNCTION ledger.append",
        "ALTER FUNCTION ledger.append SECURITY INVOKER",
        "ALTER FUNCTION ledger.open_stream RESET ALL",
        body,
        "GRANT bitnexus_writer TO CURRENT_USER",
        "GRANT ALL ON ledger.events TO CURRENT_USER WITH GRANT OPTION",
        "ALTER ROLE CURRENT_USER BYPASSRLS",
        "ALTER ROLE bitnexus_app SUPERUSER",
        "CREATE ROLE more",
        f"ALTER DATABASE {database.name} SET session_replication_role = replica",
        *(
            statement.format(f"ledger.{table}")
            for table in calls.TABLES
            for statement in (
                "DROP TABLE {}",
                "ALTER TABLE {} DISABLE ROW LEVEL SECURITY",
                "ALTER TABLE {} NO FORCE ROW LEVEL SECURITY",
                "ALTER TABLE {} ADD COLUMN more int",
                "ALTER TABLE {} DISABLE TRIGGER ALL",
                "ALTER TABLE {} OWNER TO CURRENT_USER",
                "CREATE POLICY more ON {} USING (true)",
                "DROP POLICY app ON {}",
                "CREATE RULE more AS ON INSERT TO {} DO INSTEAD NOTHING",
                "CREATE INDEX ON {} (tenant_id)",
                "CREATE TRIGGER more BEFORE INSERT ON {} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                "COMMENT ON TABLE {} IS 'mine'",
            )
        ),
    ]
    through = got_through(login, statements)
    # A grant of what one does not have is no error but a warning that nothing was granted.
    assert [each for each in through if "GRANT ALL" not in each] == []
    assert calls.contents(owner) == before
    rights = owner.execute(
        "SELECT has_table_privilege(%s, 'ledger.events', 'INSERT, UPDATE, DELETE, TRUNCATE')", (login.info.user,)
    )
    assert rights.fetchone() == (False,)


def test_the_login_becomes_none_but_its_three_roles(owner: Session, login: Session) -> None:
    others = [
        name for (name,) in owner.execute("SELECT rolname FROM pg_roles WHERE rolname <> ALL (%s)", (list(ROLES),))
    ]
    others.remove(login.info.user)
    assert {"bitnexus_writer", "pg_write_all_data", owner.info.user} <= set(others)
    statements = [f'SET ROLE "{name}"' for name in others]
    statements += [f'SET SESSION AUTHORIZATION "{name}"' for name in ("bitnexus_writer", owner.info.user)]
    statements += ["SET session_replication_role = replica", "SET LOCAL session_replication_role = replica"]
    statements += ["SET log_statement = 'none'", "ALTER SYSTEM SET fsync = off"]
    assert got_through(login, statements) == []


def test_the_login_itself_sees_and_does_nothing(login: Session, tenants: list[UUID]) -> None:
    """After SET ROLE NONE nothing is left, also not of what the app role may."""
    for reset in ("RESET ROLE", "SET ROLE NONE", "DISCARD ALL"):
        login.execute("SET ROLE bitnexus_app")
        login.execute(reset.encode())
        for table in calls.TABLES:
            with pytest.raises(errors.InsufficientPrivilege):
                login.execute(f"SELECT * FROM ledger.{table}".encode())
        with pytest.raises(errors.InsufficientPrivilege):
            calls.append(login, Command(tenant=tenants[0], events=[Event(ids.new_id())]))


@pytest.mark.parametrize("role", ["bitnexus_projector", "bitnexus_platform"])
def test_only_the_app_role_appends(login: Session, owner: Session, tenants: list[UUID], role: str) -> None:
    before = calls.contents(owner)
    login.execute(f"SET ROLE {role}".encode())
    with pytest.raises(errors.InsufficientPrivilege):
        calls.append(login, Command(tenant=tenants[0], events=[Event(ids.new_id())]))
    for call in (
        "open_stream(%(t)s)",
        "open_subjects(%(t)s, 'k', '{}', '{}')",
        "open_subject_keys(%(t)s, '{}', '{}', 'k')",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            login.execute(f"SELECT ledger.{call}".encode(), {"t": tenants[0]})
    assert calls.contents(owner) == before


SHOWN = {
    "bitnexus_app": {"heads", "events", "commands", "reservations", "secrets", "subjects", "subject_keys"},
    "bitnexus_projector": {"heads", "events", "subject_keys"},
    "bitnexus_platform": {"heads"},
}


def visible(login: Session, table: str) -> set[UUID] | None:
    """The tenants of whom rows are seen; None: the table may not be read."""
    try:
        return {tenant for (tenant,) in login.execute(f"SELECT tenant_id FROM ledger.{table}".encode())}
    except errors.InsufficientPrivilege:
        return None


@pytest.mark.parametrize("role", ROLES)
def test_each_role_reads_its_tables_and_no_other(login: Session, tenants: list[UUID], role: str) -> None:
    login.execute(f"SET ROLE {role}".encode())
    readable = {table for table in calls.TABLES if visible(login, table) is not None}
    assert readable == SHOWN[role]


def test_without_a_tenant_the_app_role_sees_no_row(login: Session, tenants: list[UUID]) -> None:
    """A forgotten tenant shows nothing, rather than everybody's."""
    login.execute("SET ROLE bitnexus_app")
    assert {table: visible(login, table) for table in SHOWN["bitnexus_app"]} == {
        each: set() for each in SHOWN["bitnexus_app"]
    }
    with login.transaction():
        login.execute("SELECT ledger.set_tenant(%s)", (tenants[0],))
        assert visible(login, "events") == {tenants[0]}
    assert visible(login, "events") == set()  # the setting reads as '' now, not as NULL


@pytest.mark.parametrize("number", [0, 1])
def test_with_a_tenant_set_only_its_rows_are_seen_though_nothing_asks_for_it(
    login: Session, tenants: list[UUID], number: int
) -> None:
    login.execute("SET ROLE bitnexus_app")
    with login.transaction():
        login.execute("SELECT ledger.set_tenant(%s)", (tenants[number],))
        seen = {table: visible(login, table) for table in SHOWN["bitnexus_app"]}
    assert seen == {each: {tenants[number]} for each in SHOWN["bitnexus_app"]}


def test_the_reading_functions_show_one_tenant_whatever_was_set_before(login: Session, tenants: list[UUID]) -> None:
    a, b = tenants
    login.execute("SET ROLE bitnexus_app")
    with login.transaction():
        login.execute("SELECT ledger.set_tenant(%s)", (b,))
        assert len(login.execute("SELECT * FROM ledger.read_stream(%s, 0, 10)", (a,)).fetchall()) == 1
        (shared,) = login.execute("SELECT o_originator FROM ledger.read_stream(%s, 0, 10)", (b,)).fetchone() or (None,)
        rows = login.execute("SELECT * FROM ledger.read_aggregates(%s, %s, 9)", (a, [shared])).fetchall()
    assert rows == []


def test_row_security_cannot_be_switched_off_by_a_reader(login: Session, tenants: list[UUID]) -> None:
    login.execute("SET ROLE bitnexus_app")
    login.execute("SET row_security = off")
    for table in SHOWN["bitnexus_app"]:
        with pytest.raises(errors.InsufficientPrivilege):
            login.execute(f"SELECT * FROM ledger.{table}".encode())


TRICKS = (
    "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT ''\\x00''::bytea'",
    "CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''epoch''::timestamptz'",
    "CREATE FUNCTION pg_temp.greatest(timestamptz, timestamptz) RETURNS timestamptz LANGUAGE sql AS 'SELECT $1'",
    "CREATE FUNCTION pg_temp.unnest(uuid[]) RETURNS SETOF uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "CREATE FUNCTION pg_temp.uuid_send(uuid) RETURNS bytea LANGUAGE sql AS 'SELECT ''''::bytea'",
    "CREATE FUNCTION pg_temp.int8send(bigint) RETURNS bytea LANGUAGE sql AS 'SELECT ''''::bytea'",
    "CREATE FUNCTION pg_temp.convert_to(text, name) RETURNS bytea LANGUAGE sql AS 'SELECT ''''::bytea'",
    "CREATE FUNCTION pg_temp.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT ''read committed''::text'",
    "CREATE FUNCTION pg_temp.current_setting(text, boolean) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'",
    "CREATE FUNCTION pg_temp.concatenate(bytea, bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
    "CREATE OPERATOR pg_temp.|| (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = pg_temp.concatenate)",
    "CREATE FUNCTION pg_temp.same(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR pg_temp.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = pg_temp.same)",
    "CREATE DOMAIN pg_temp.bytea AS text",
    "CREATE TEMPORARY TABLE heads (tenant_id uuid, position bigint, hash bytea, recorded_at timestamptz)",
    "CREATE TEMPORARY TABLE events AS SELECT * FROM ledger.events",
    "CREATE TEMPORARY TABLE unnest (x int)",
    "CREATE TEMPORARY TABLE pg_class AS SELECT * FROM pg_catalog.pg_class",
    "SET search_path = pg_temp, ledger, pg_catalog, public",
)


def test_what_a_session_shadows_does_not_change_what_is_written(
    login: Session, owner: Session, tenants: list[UUID]
) -> None:
    """The functions run with the writer's rights: names that the caller made must not be found by them."""
    login.execute("SET ROLE bitnexus_app")
    for trick in TRICKS:
        login.execute(trick.encode())
    assert login.execute("SELECT count(*) FROM heads").fetchone() == (0,)  # a trick works on the session itself
    event = Event(ids.new_id(), 1, b"state", "thing.made", b"metadata")
    (answer,) = calls.append(login, Command(tenant=tenants[0], events=[event]))
    assert (answer.status, answer.position) == (APPENDED, 2)
    third = ids.new_id()
    login.execute("SELECT ledger.open_stream(%s)", (third,))
    login.execute("SELECT ledger.open_subjects(%s, 'buyer', %s, %s)", (third, [calls.key(5)], [third]))
    login.execute("SELECT ledger.open_subject_keys(%s, %s, %s, 'k')", (third, [third], [b"w"]))
    (row,) = owner.execute(
        "SELECT topic, state, metadata, recorded_at FROM ledger.events WHERE tenant_id = %s AND position = 2",
        (tenants[0],),
    ).fetchall()
    assert row == ("thing.made", b"state", b"metadata", answer.recorded_at)
    assert answer.recorded_at is not None
    assert answer.recorded_at.year > 2000
    counts = owner.execute("SELECT count(*) FROM ledger.subjects WHERE tenant_id = %s", (third,)).fetchone()
    assert counts == (1,)
    with psycopg.connect(owner.info.dsn, autocommit=True) as reader:
        assert [verify.verify(reader, each).broken for each in (*tenants, third)] == [None] * 3
    assert login.execute("SELECT ledger.app_tenant()").fetchone() == (None,)
