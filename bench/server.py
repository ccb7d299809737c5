"""A fresh, migrated database for one benchmark: on DATABASE_URL's server, or on an embedded one in a temporary directory."""

import base64
import os
import sys
import tempfile
import timeit
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import conninfo, sql

from bitnexus import database
from bitnexus.embedded import Embedded
from ledger.keys import MasterKey
from migrations import runner

TURNS, TURN_REPEATS = 10_000, 10
MASTER_BYTES = os.urandom(32)
MASTER_TEXT = base64.b64encode(MASTER_BYTES).decode()
"""As a setting of a process that a benchmark starts."""
MASTER = MasterKey(MASTER_BYTES)
UNLIMITED = dict.fromkeys(
    ("BITNEXUS_RATE_ADDRESS", "BITNEXUS_RATE_USER", "BITNEXUS_RATE_TENANT", "BITNEXUS_RATE_ACCOUNT"), "off"
) | {"BITNEXUS_SOCKETS_PER_SESSION": "20000"}
"""As settings: all load comes from one address, one user and one session."""


class Urls(NamedTuple):
    """Of one migrated database: the owner's, and the login role's."""

    owner: str
    app: str


@contextmanager
def running() -> Iterator[str]:
    """The owner's URL of the server: DATABASE_URL's, or an embedded one that ends with the benchmark."""
    given = os.environ.get("DATABASE_URL")
    if given:
        yield given
        return
    with (
        tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as folder,
        Embedded(Path(folder) / "data") as embedded,
    ):
        yield embedded.owner_url


@contextmanager
def fresh() -> Iterator[str]:
    """The login role's URL. The database is dropped afterwards."""
    with running() as server, migrated(server) as urls:
        yield urls.app


@contextmanager
def migrated(server: str) -> Iterator[Urls]:
    """A database of this benchmark's own, dropped afterwards together with its login role."""
    password = database.login_password(MASTER)
    with empty(server) as owner_url:
        runner.migrate(owner_url, login_password=password)
        yield Urls(owner_url, runner.login_url(owner_url, password))


@contextmanager
def empty(server: str) -> Iterator[str]:
    """The owner's URL of a database with nothing in it, dropped afterwards."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield conninfo.make_conninfo(server, dbname=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{name}_login")))


def require_durable(owner_url: str) -> None:
    """Refuses a server that does not write what it acknowledges: the figures would mean nothing."""
    with psycopg.connect(owner_url) as connection:
        row = connection.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')").fetchone()
    assert row == ("on", "on"), f"fsync and synchronous_commit are {row}: the figures would mean nothing. Turn both on."


def machine() -> dict[str, object]:
    """What the figures were measured on; `load_1m` above 0.5 before the start says that the machine was not quiet."""
    return {
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": sys.version,  # and the build: those of one version differ
        "turn_ns": turn_ns(),
    }


class _Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    def plus(self, number: int) -> int:
        return self.start + number


def turn_ns() -> int:
    """Nanoseconds of a turn of plain Python now: an object made, a method called, the result kept. What else runs on the same hardware
    doubles it within a minute, which no load of ours shows; an interpreter built without profiles takes 1.5 times as long."""

    def turns() -> None:
        found = {}
        for number in range(TURNS):
            found[number] = _Counter(number).plus(1)

    return round(min(timeit.repeat(turns, number=1, repeat=TURN_REPEATS)) / TURNS * 1e9)
