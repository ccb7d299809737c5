"""The login role that migrations make: its password, its rights, and that its password shows nowhere."""

import base64
import hashlib
import hmac
import logging
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import conninfo, sql

from migrations import errors, login, runner
from tests.migrations.conftest import Folder

PASSWORD = "pass'word-4711"


def verifies(verifier: str, password: str) -> bool:
    """RFC 5802: StoredKey = H(HMAC(PBKDF2(password, salt, i), "Client Key"))."""
    _, iterations_salt, keys = verifier.split("$")
    iterations, salt = iterations_salt.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return base64.b64decode(keys.split(":")[0]) == hashlib.sha256(client_key).digest()


def test_the_login_role_has_the_password_and_only_the_rights_it_needs(owner_url: str, folder: Folder) -> None:
    """Also when the role was there before, and somebody had given it more."""
    runner.migrate(owner_url, login_password="the first one", folder=folder.path)
    with psycopg.connect(owner_url) as connection:
        name = login.role_name(connection.info.dbname)
        connection.execute(sql.SQL("ALTER ROLE {} INHERIT").format(sql.Identifier(name)))
        connection.execute(sql.SQL("GRANT bitnexus_app TO {} WITH INHERIT TRUE").format(sql.Identifier(name)))
    runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path)
    with psycopg.connect(owner_url) as connection:
        attributes = connection.execute(
            "SELECT rolpassword, rolcanlogin, rolinherit, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb"
            " FROM pg_authid WHERE rolname = %s",
            [name],
        ).fetchone()
        assert attributes is not None
        assert attributes[1:] == (True, False, False, False, False, False)
        assert verifies(attributes[0], PASSWORD)
        grants = connection.execute(
            "SELECT roleid::regrole::text, inherit_option, set_option, admin_option FROM pg_auth_members"
            " WHERE member = %s::regrole ORDER BY 1",
            [name],
        ).fetchall()
    assert grants == [
        ("bitnexus_app", False, True, False),
        ("bitnexus_platform", False, True, False),
        ("bitnexus_projector", False, True, False),
    ]


def test_the_login_url_leads_to_the_same_database_as_the_login_role(owner_url: str, folder: Folder) -> None:
    runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path)
    url = runner.login_url(owner_url, PASSWORD)
    with psycopg.connect(url, options="-c role=bitnexus_app") as connection:
        row = connection.execute("SELECT session_user, current_user, current_database()").fetchone()
    database = conninfo.conninfo_to_dict(owner_url)["dbname"]
    assert row == (f"{database}_login", "bitnexus_app", database)


def test_nothing_of_the_owner_is_left_in_the_login_url() -> None:
    url = runner.login_url("postgresql://own:secret@db:5433/shop?options=-crole%3Dx&sslmode=require", PASSWORD)
    expected = {"host": "db", "port": "5433", "dbname": "shop", "sslmode": "require"}
    assert conninfo.conninfo_to_dict(url) == expected | {"user": "shop_login", "password": PASSWORD}


def test_databases_of_one_server_can_be_migrated_at_the_same_time(server: str, folder: Folder) -> None:
    """Roles are shared by all databases; changing them at once fails with "tuple concurrently updated"."""
    names = [f"migrations_together_{number}" for number in range(4)]
    for number in range(2, 22):  # each gives the roles a chance to collide
        folder.write(
            f"{number:04}_pre_{number}.sql", "ALTER ROLE bitnexus_app CONNECTION LIMIT 50; SELECT pg_sleep(0.01)"
        )
    with psycopg.connect(server, autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            urls = [conninfo.make_conninfo(server, dbname=name) for name in names]
            with ThreadPoolExecutor(4) as pool:
                applied = list(
                    pool.map(lambda url: runner.migrate(url, login_password=PASSWORD, folder=folder.path), urls)
                )
        finally:
            for name in names:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{name}_login")))
            connection.execute("ALTER ROLE bitnexus_app CONNECTION LIMIT -1")
    assert [len(names) for names in applied] == [21] * 4


def test_a_login_role_that_could_go_round_row_level_security_is_refused(owner_url: str, folder: Folder) -> None:
    runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path)
    role = sql.Identifier(f"{conninfo.conninfo_to_dict(owner_url)['dbname']}_login")
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} BYPASSRLS").format(role))
    with pytest.raises(errors.LoginRoleUnsafe, match=r"has BYPASSRLS\. .* NOBYPASSRLS"):
        runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path)


def test_an_owner_who_is_no_superuser_can_migrate(server: str, owner_url: str, folder: Folder) -> None:
    """Managed databases give nobody a superuser: owning the database and CREATEROLE must do."""
    runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path)  # makes pgvector and the shared roles
    database = str(conninfo.conninfo_to_dict(owner_url)["dbname"])
    owner, login_role = sql.Identifier(f"{database}_owner"), sql.Identifier(f"{database}_login")
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA migrations CASCADE")
        connection.execute(sql.SQL("DROP ROLE {}").format(login_role))
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD 'x'").format(owner))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), owner))
        connection.execute(
            sql.SQL("GRANT bitnexus_app, bitnexus_projector, bitnexus_platform TO {} WITH ADMIN TRUE").format(owner)
        )
        try:
            url = conninfo.make_conninfo(owner_url, user=f"{database}_owner", password="x")
            folder.write("0002_pre_a.sql", "CREATE TABLE public.a (n int)")
            applied = runner.migrate(url, login_password=PASSWORD, folder=folder.path)
            again = runner.migrate(url, login_password="another", folder=folder.path)
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(database)))
            connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(owner))
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(owner))
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}, {}").format(login_role, owner))
    assert (applied, again) == (["0001_pre_roles.sql", "0002_pre_a.sql"], [])


def test_without_pgvector_the_error_says_what_to_install(
    owner_url: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of the tests has it, so its answer is replaced."""
    monkeypatch.setattr(runner, "_one", lambda connection, query, *values: "txid" in query or "lock" in query)
    with pytest.raises(errors.VectorUnavailable, match="not installed on the server"):
        runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql://own:hush-hush@127.0.0.1:1/shop?connect_timeout=2", errors.DatabaseUnreachable),
        ("postgresql://own:hush-hush@db:port/shop?=", errors.OwnerUrlInvalid),
        ("hush-hush nonsense", errors.OwnerUrlInvalid),
        ("postgresql://own:hush-hush@db/", errors.OwnerUrlInvalid),
    ],
)
def test_no_password_shows_in_an_error(folder: Folder, url: str, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        runner.migrate(url, login_password=PASSWORD, folder=folder.path)
    shown = repr(raised.value) + repr(raised.value.__cause__)
    assert "hush-hush" not in shown
    assert PASSWORD not in shown


def test_no_password_shows_in_the_log(owner_url: str, folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path)
    assert "migration applied: 0001_pre_roles.sql" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_database_name_too_long_for_its_login_role_is_refused() -> None:
    """PostgreSQL would cut the name, and two databases would share a role and its password."""
    with pytest.raises(errors.LoginRoleNameTooLong):
        runner.login_url(f"postgresql:///{'x' * 60}", PASSWORD)
