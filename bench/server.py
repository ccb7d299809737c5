"""A fresh, migrated database for one benchmark: on DATABASE_URL's server, or on an embedded one in a temporary directory."""

import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import conninfo, sql

from bitnexus import database
from bitnexus.embedded import Embedded
from ledger.keys import MasterKey
from migrations import runner

MASTER = MasterKey(os.urandom(32))


@contextmanager
def fresh() -> Iterator[str]:
    """The login role's URL. The database is dropped afterwards."""
    given = os.environ.get("DATABASE_URL")
    if given:
        with _database(given) as app_url:
            yield app_url
        return
    with (
        tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as folder,
        Embedded(Path(folder) / "data") as embedded,
        _database(embedded.owner_url) as app_url,
    ):
        yield app_url


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"bench_{uuid.uuid4().hex[:12]}"
    password = database.login_password(MASTER)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        owner_url = conninfo.make_conninfo(server, dbname=name)
        runner.migrate(owner_url, login_password=password)
        yield runner.login_url(owner_url, password)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(f"{name}_login")))


def machine() -> dict[str, object]:
    """What the figures were measured on; `load_1m` above 0.5 before the start says that the machine was not quiet."""
    return {"cores": os.cpu_count(), "load_1m": round(os.getloadavg()[0], 2), "python": sys.version.split()[0]}
