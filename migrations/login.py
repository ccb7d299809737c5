"""The role that processes log in as: it owns nothing, inherits nothing, and may only become the roles of GRANTED."""

import psycopg
from psycopg import conninfo, sql

from migrations import errors

GRANTED = ("bitnexus_app", "bitnexus_projector", "bitnexus_platform")
ROLE_NAME_BYTES_MAX = 63  # NAMEDATALEN - 1: PostgreSQL cuts longer names, and two databases would share one role

# Each of these would let the role go round row-level security, directly or by changing roles.
UNSAFE = ("SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION")

# These belong to the owner and say nothing about the login role.
OF_THE_OWNER = ("user", "password", "passfile", "options", "sslcert", "sslkey", "sslpassword")


def parameters(owner_url: str) -> dict[str, str]:
    """The URL taken apart. Raises OwnerUrlInvalid: it cannot be parsed, or it names no database."""
    try:
        found = {key: str(value) for key, value in conninfo.conninfo_to_dict(owner_url).items() if value is not None}
    except psycopg.Error:
        raise errors.OwnerUrlInvalid("it is not a PostgreSQL URL") from None  # the cause quotes the URL
    if not found.get("dbname"):
        raise errors.OwnerUrlInvalid("it names no database")
    return found


def role_name(database: str) -> str:
    """Raises LoginRoleNameTooLong."""
    role = f"{database}_login"
    if len(role.encode()) > ROLE_NAME_BYTES_MAX:
        raise errors.LoginRoleNameTooLong(role, ROLE_NAME_BYTES_MAX)
    return role


def login_url(owner_url: str, login_password: str) -> str:
    """Connection string of the login role, same servers and database as the owner's. Raises as `parameters` does."""
    found = parameters(owner_url)
    kept = {key: value for key, value in found.items() if key not in OF_THE_OWNER}
    return conninfo.make_conninfo("", **kept, user=role_name(found["dbname"]), password=login_password)


def ensure(connection: psycopg.Connection, password: str) -> None:
    """Makes sure of the login role of the connection's database, in one transaction; the password is set each time.

    The server sees a SCRAM verifier, never the password. Raises LoginRoleUnsafe, LoginRoleNameTooLong.
    """
    name = role_name(connection.info.dbname)
    role = sql.Identifier(name)
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    with connection.transaction():
        found = connection.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_catalog.pg_roles"
            " WHERE rolname = %s",
            [name],
        ).fetchone()
        if found is None:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE").format(role)
            )
        elif any(found):
            raise errors.LoginRoleUnsafe(name, [word for word, has in zip(UNSAFE, found, strict=True) if has])
        # Only what everybody with CREATEROLE may alter: NOSUPERUSER here would need a superuser.
        connection.execute(
            sql.SQL("ALTER ROLE {} LOGIN NOINHERIT PASSWORD {}").format(role, sql.Literal(verifier)),
        )
        for granted in _missing_grants(connection, name):
            connection.execute(
                sql.SQL("GRANT {} TO {} WITH INHERIT FALSE, SET TRUE").format(sql.Identifier(granted), role)
            )


def _missing_grants(connection: psycopg.Connection, name: str) -> list[str]:
    """Granting again what is there would be an update that collides with the same one in another database."""
    rows = connection.execute(
        "SELECT granted.rolname FROM pg_catalog.pg_auth_members AS m"
        " JOIN pg_catalog.pg_roles AS granted ON granted.oid = m.roleid"
        " JOIN pg_catalog.pg_roles AS member ON member.oid = m.member"
        " WHERE member.rolname = %s AND m.set_option AND NOT m.inherit_option",
        [name],
    ).fetchall()
    there = {row[0] for row in rows}
    return [granted for granted in GRANTED if granted not in there]
