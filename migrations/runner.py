"""Applies the SQL files of a folder to a database, each once, and makes sure of the login role.

A file runs in one transaction together with its row in `migrations.applied`. A file with the line
`-- transaction: none` runs statement by statement outside a transaction and is recorded at its end; killed in the
middle it runs again from its start, so its statements must bear repetition (IF NOT EXISTS).
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path

import psycopg
from psycopg.pq import TransactionStatus

from migrations import errors, files, login
from migrations.login import login_url

__all__ = ["login_url", "migrate", "pending"]

logger = logging.getLogger(__name__)

SERVER_VERSION_MIN = 160_000  # GRANT … WITH INHERIT FALSE, SET TRUE came with 16
CONNECT_TIMEOUT_S = 10
LOCK_WAIT_S = 600.0  # longer than any migration should take; then a person has to look
LOCK_POLL_S = 0.1
LOCK_KEY = 0x6269746E65787573  # "bitnexus"; advisory locks are per database, so databases do not wait for each other
ROLE_TRIES_MAX = 20  # roles are shared by all databases of the server, whose migrations collide there
ROLE_RETRY_S = 0.05

CREATE_APPLIED = """
    CREATE SCHEMA IF NOT EXISTS migrations;
    CREATE TABLE IF NOT EXISTS migrations.applied (
        name       text        PRIMARY KEY,
        phase      text        NOT NULL CHECK (phase IN ('pre', 'post')),
        checksum   text        NOT NULL,      -- SHA-256 of the file, hex
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
INSERT_APPLIED = "INSERT INTO migrations.applied (name, phase, checksum) VALUES (%s, %s, %s)"


def migrate(
    owner_url: str,
    *,
    login_password: str,
    folder: Traversable | Path | None = None,
    lock_wait_s: float = LOCK_WAIT_S,
) -> list[str]:
    """Names of the files applied now, in order. `folder` None means the files of this package.

    Processes that call this together apply each file once: the others wait up to `lock_wait_s`. `owner_url` must lead
    to the server itself, not to a pooler that shares sessions. Raises errors.MigrationError.
    """
    known = files.read(folder or files.packaged())
    with _connect(owner_url) as connection:
        login.role_name(connection.info.dbname)  # refuse before anything is changed
        with _lock(connection, lock_wait_s):
            _ensure_vector(connection)
            connection.execute(CREATE_APPLIED)
            waiting = _waiting(connection, known)
            for migration in waiting:
                _apply(connection, migration)
                logger.info("migration applied: %s", migration.name)
            _retrying_roles(lambda: login.ensure(connection, login_password))
    return [migration.name for migration in waiting]


def pending(owner_url: str, *, folder: Traversable | Path | None = None) -> list[str]:
    """Names of the files that `migrate` would apply, in order; changes nothing. Raises errors.MigrationError."""
    known = files.read(folder or files.packaged())
    with _connect(owner_url) as connection:
        return [migration.name for migration in _waiting(connection, known)]


@contextmanager
def _connect(owner_url: str) -> Iterator[psycopg.Connection]:
    """In autocommit, without the time limits that a role or a database may set for ordinary statements."""
    found = login.parameters(owner_url)
    found.setdefault("connect_timeout", str(CONNECT_TIMEOUT_S))
    found.update(application_name="bitnexus migrate", client_encoding="UTF8")
    try:
        connection = psycopg.connect("", autocommit=True, **found)  # type: ignore[arg-type]  # libpq's words, all text
    except psycopg.OperationalError as error:
        raise errors.DatabaseUnreachable(str(error).strip()) from None
    with connection:
        if connection.info.server_version < SERVER_VERSION_MIN:
            raise errors.ServerTooOld(connection.info.parameter_status("server_version") or "unknown")
        connection.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        yield connection


@contextmanager
def _lock(connection: psycopg.Connection, wait_s: float) -> Iterator[None]:
    """Polls: a statement that waits for the lock would hold a snapshot, for which CREATE INDEX CONCURRENTLY in the
    process that has the lock would wait in turn."""
    deadline = time.monotonic() + wait_s
    told = False
    while not _one(connection, "SELECT pg_catalog.pg_try_advisory_lock(%s)", LOCK_KEY):
        if time.monotonic() >= deadline:
            raise errors.LockHeld(wait_s, _holder(connection))
        if not told:
            logger.info("waiting for another process that migrates this database")
            told = True
        time.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE:
            connection.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", [LOCK_KEY])
        # otherwise the session ends at once, and the lock with it


def _holder(connection: psycopg.Connection) -> str:
    row = connection.execute(
        "SELECT a.pid, a.application_name, a.backend_start FROM pg_catalog.pg_locks AS l"
        " JOIN pg_catalog.pg_stat_activity AS a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
        " AND (l.classid::bigint << 32) | l.objid::bigint = %s",
        [LOCK_KEY],
    ).fetchone()
    return "it has just ended" if row is None else f'backend {row[0]} ("{row[1]}", since {row[2]:%Y-%m-%d %H:%M:%SZ})'


def _ensure_vector(connection: psycopg.Connection) -> None:
    if _one(connection, "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'vector')"):
        return
    database = connection.info.dbname
    if not _one(connection, "SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'vector')"):
        raise errors.VectorUnavailable(database, "it is not installed on the server")
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.Error as error:
        raise errors.VectorUnavailable(database, str(error).strip()) from None


def _waiting(connection: psycopg.Connection, known: list[files.Migration]) -> list[files.Migration]:
    """What is not applied yet. Raises MigrationEdited, PostMigrationUnknown, OutOfOrder."""
    if not _one(connection, "SELECT pg_catalog.to_regclass('migrations.applied') IS NOT NULL"):
        return known
    rows = connection.execute("SELECT name, phase, checksum FROM migrations.applied ORDER BY name").fetchall()
    applied = {name: checksum for name, _, checksum in rows}
    names = {migration.name for migration in known}
    for migration in known:
        if (checksum := applied.get(migration.name, migration.checksum)) != migration.checksum:
            raise errors.MigrationEdited(migration.name, checksum, migration.checksum)
    if unknown_post := [name for name, phase, _ in rows if phase == "post" and name not in names]:
        raise errors.PostMigrationUnknown(unknown_post)
    for name in applied.keys() - names:
        logger.info("the database has a pre migration of a newer release, which this one bears: %s", name)
    waiting = [migration for migration in known if migration.name not in applied]
    if waiting and rows and (last := rows[-1][0])[:4] >= waiting[0].name[:4]:
        raise errors.OutOfOrder(waiting[0].name, last)
    return waiting


def _apply(connection: psycopg.Connection, migration: files.Migration) -> None:
    row = (migration.name, migration.phase, migration.checksum)
    try:
        if migration.transactional:
            _retrying_roles(lambda: _apply_at_once(connection, migration, row))
        else:
            for statement in files.statements(migration.content.decode()):
                connection.execute(statement.encode())
            connection.execute(INSERT_APPLIED, row)
    except psycopg.Error as error:
        detail = _detail(error, migration)
        raise errors.MigrationFailed(migration.name, detail, repeatable=not migration.transactional) from error


def _apply_at_once(connection: psycopg.Connection, migration: files.Migration, row: tuple[str, str, str]) -> None:
    with connection.transaction():
        before = _one(connection, "SELECT pg_catalog.txid_current()")
        connection.execute(migration.content)
        if _one(connection, "SELECT pg_catalog.txid_current()") != before:
            connection.close()  # what it left open goes; what it committed cannot be taken back
            raise errors.MigrationFailed(
                migration.name, "it ends the transaction that it runs in (COMMIT, ROLLBACK)", repeatable=True
            )
        connection.execute(INSERT_APPLIED, row)


def _detail(error: psycopg.Error, migration: files.Migration) -> str:
    line = ""
    if migration.transactional and (position := error.diag.statement_position):
        line = f", line {migration.content.decode()[: int(position) - 1].count(chr(10)) + 1}"
    return f"{error.diag.message_primary or str(error).strip()} (SQLSTATE {error.sqlstate}{line})"


def _retrying_roles(work: Callable[[], None]) -> None:
    """Repeats a transaction that collided with another database's migration in the catalogue of roles."""
    for tries_left in reversed(range(ROLE_TRIES_MAX)):
        try:
            work()
            return
        except psycopg.Error as error:
            if not tries_left or not _collided(error):
                raise
            time.sleep(ROLE_RETRY_S)


def _collided(error: psycopg.Error) -> bool:
    if isinstance(error, psycopg.errors.UniqueViolation):
        return error.diag.schema_name == "pg_catalog"
    return isinstance(error, psycopg.errors.InternalError_) and "concurrently" in (error.diag.message_primary or "")


def _one(connection: psycopg.Connection, query: str, *values: object) -> object:
    row = connection.execute(query.encode(), values or None).fetchone()
    return None if row is None else row[0]
