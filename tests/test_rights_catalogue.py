"""The catalogue's word on rights and row-level security, so that what is added later is held to the same rules."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection, conninfo
from psycopg.rows import TupleRow

from tests.ledger import calls
from tests.world import Database

Session = Connection[TupleRow]

ROLES = ("bitnexus_app", "bitnexus_projector", "bitnexus_platform")


@pytest.fixture
def owner(database: Database) -> Iterator[Session]:
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def login(database: Database) -> str:
    """The name of the role that processes log in as."""
    return str(conninfo.conninfo_to_dict(database.app_url)["user"])


INSTALLATION = {"ledger.expiry", "ledger.master_keys", "ledger.token_keys", "views.leases", "views.processes"}
"""Tables of the whole installation, which hold nothing of any tenant."""

# These two serve statements that ask of all tenants at once: the tenant is in them, and does not come first.
TENANT_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname), c.relrowsecurity, c.relforcerowsecurity,
       (SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND i.indisprimary),
       ARRAY(SELECT DISTINCT coalesce(a.attname, '') FROM pg_index i
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
             WHERE i.indrelid = c.oid AND i.indexrelid <> ALL ('{ledger.erased_subjects_since, ledger.revocations_since}'::regclass[])),
       (SELECT a.attnotnull AND a.atttypid = 'uuid'::regtype FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attname = 'tenant_id'),
       (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid),
       pg_get_userbyid(c.relowner)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('ledger', 'views') AND c.relkind IN ('r', 'p', 'm', 'v', 'f')
ORDER BY 1
"""


def test_every_table_belongs_to_tenants_and_is_held_by_row_security(owner: Session) -> None:
    """Enabled and forced, tenant_id first in the primary key and in every index; views would run with their owner's rights."""
    rows = owner.execute(TENANT_TABLES.encode()).fetchall()
    assert {f"ledger.{table}" for table in calls.TABLES} <= {row[0] for row in rows}
    tables = [row for row in rows if row[0] not in INSTALLATION]
    for name, enabled, forced, primary, leading, tenant_id, policies, held_by in tables:
        assert (enabled, forced, primary, leading, tenant_id) == (True, True, "tenant_id", ["tenant_id"], True), name
        assert policies > 0, name
        assert held_by == owner.info.user, name


def test_every_policy_of_the_app_role_is_bound_to_the_tenant_that_is_set(owner: Session) -> None:
    rows = owner.execute(
        "SELECT schemaname || '.' || tablename, roles, cmd, qual, with_check FROM pg_policies"
        " WHERE schemaname IN ('ledger', 'views')"
    ).fetchall()
    assert rows != []
    for table, roles, command, condition, check in rows:
        if "bitnexus_app" in roles:
            assert (roles, command) == (["bitnexus_app"], "SELECT"), table
            assert (condition, check) == ("(tenant_id = ledger.app_tenant())", None), table
        assert "public" not in roles, table


FUNCTIONS = """
SELECT p.oid::regprocedure::text, pg_get_userbyid(p.proowner), p.proconfig,
       has_function_privilege('public', p.oid, 'EXECUTE'), p.prosecdef, p.prokind
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('ledger', 'views') OR p.prosecdef
"""


PLANNING = {"plan_cache_mode", "enable_seqscan", "enable_hashjoin", "enable_mergejoin"}
"""Settings that choose how rows are reached, not which."""


def test_every_function_that_runs_with_other_rights_is_nailed_down(owner: Session) -> None:
    """Owned by the writer, its search_path fixed, nobody's by default."""
    rows = owner.execute(FUNCTIONS.encode()).fetchall()
    definers = {name.split("(")[0] for name, _, _, _, definer, _ in rows if definer}
    assert {"ledger.append", "ledger.open_stream", "ledger.open_subjects", "ledger.open_subject_keys"} <= definers
    for name, held_by, settings, public, definer, kind in rows:
        assert not public, name
        assert kind == "f", name
        if definer:
            binding = [each for each in settings if each.split("=")[0] not in PLANNING]
            assert (held_by, binding) == ("bitnexus_writer", ["search_path=pg_catalog, pg_temp"]), name


def test_nobody_has_a_right_to_write_events_but_the_writer_and_nobody_to_change_them(owner: Session) -> None:
    rows = owner.execute(
        "SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants"
        " WHERE table_schema = 'ledger' AND privilege_type <> 'SELECT' AND grantee <> %s",
        (owner.info.user,),
    )
    granted: dict[str, set[str]] = {}
    for grantee, table, right in rows:
        assert grantee == "bitnexus_writer"
        granted.setdefault(table, set()).add(right)
    assert granted["events"] == {"INSERT"}
    assert granted["commands"] == {"INSERT", "DELETE"}  # by ledger.expire_commands, after a day
    assert granted["heads"] == {"INSERT", "UPDATE"}
    columns_granted = owner.execute(
        "SELECT grantee, privilege_type FROM information_schema.column_privileges"
        " WHERE table_schema = 'ledger' AND table_name IN ('events', 'heads') AND privilege_type <> 'SELECT'"
    )
    assert {grantee for grantee, _ in columns_granted} == {"bitnexus_writer", owner.info.user}


def test_nobody_logs_in_as_the_writer_or_goes_round_row_security(owner: Session, login: str) -> None:
    names = [*ROLES, "bitnexus_writer", login]
    rows = owner.execute(
        "SELECT rolname, rolcanlogin, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication, rolinherit"
        " FROM pg_roles WHERE rolname = ANY (%s)",
        (names,),
    ).fetchall()
    assert sorted(rows) == sorted((name, name == login, False, False) for name in names)
    members = owner.execute(
        "SELECT count(*) FROM pg_auth_members WHERE roleid = 'bitnexus_writer'::regrole AND member <> current_user::regrole"
    ).fetchone()
    assert members == (0,)


def test_the_writer_makes_nothing_new_in_the_schema(owner: Session) -> None:
    schemas = owner.execute(
        "SELECT nspname, has_schema_privilege('bitnexus_writer', oid, 'CREATE'), has_schema_privilege('public', oid, 'USAGE')"
        " FROM pg_namespace WHERE nspname IN ('ledger', 'views')"
    )
    assert {(create, usage) for _, create, usage in schemas} == {(False, False)}


def test_the_password_is_kept_as_scram(owner: Session, login: str) -> None:
    (kept,) = owner.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (login,)).fetchone() or ("",)
    assert kept.startswith("SCRAM-SHA-256$")
