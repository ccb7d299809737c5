"""Databases of tests: copies of migrated templates, on one server."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import conninfo, sql

from bitnexus import database as connections
from migrations import runner
from tests.world import MASTER, Database


@contextmanager
def migrated(server: str) -> Iterator[str]:
    """The name of a migrated, empty database, dropped at the end."""
    name = f"test_template_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        runner.migrate(_at(server, name), login_password=connections.login_password(MASTER))
        yield name
        _drop(connection, name)


@contextmanager
def copy(server: str, template: str) -> Iterator[Database]:
    """A database as `template` is, to which nobody may be connected meanwhile; dropped at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    password = connections.login_password(MASTER)
    with psycopg.connect(server, autocommit=True) as connection:
        # Copying files takes a tenth of writing all their pages to the log, but begins and ends with a checkpoint.
        strategy = "file_copy" if connection.execute("SHOW fsync").fetchone() == ("off",) else "wal_log"
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {}").format(
                sql.Identifier(name), sql.Identifier(template), sql.SQL(strategy)
            )
        )
        owner_url = _at(server, name)
        runner.migrate(owner_url, login_password=password)  # nothing to apply: makes the login role
        yield Database(name, owner_url, runner.login_url(owner_url, password))
        _drop(connection, name)


def _at(server: str, name: str) -> str:
    return conninfo.make_conninfo(server, dbname=name)


def _drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{name}_login")))
