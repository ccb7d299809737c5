"""What tests stand on: a real PostgreSQL, a migrated database of their own, a ledger on it.

`DATABASE_URL` names the server if it is set (its user must be able to create databases and roles); without it the embedded
one is started in a temporary directory. Databases are copies of one migrated template and are dropped after each test.
"""

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import argon2
import psycopg
import pytest
import pytest_asyncio
from xdist.remote import Producer

from bitnexus import database as connections
from commands.passwords import Passwords
from domain import catalogue
from ledger import ids, lookups
from ledger.appender import Appender
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.keys import MasterKey
from ledger.store import Ledger
from ledger.waker import Waker
from tests import databases, logged, parallel
from tests.bitnexus import commandline
from tests.world import MASTER, Database, World

QUICK = ("fsync = off", "full_page_writes = off", "scram_iterations = 1")
"""This server is never killed, and no password on it is worth anything. Those that are killed (tests/faults) are as they come."""
MEMORY, MEMORY_BYTES_MIN = Path("/dev/shm"), 8 << 30
"""A server takes some 300 MB of it, and there is one for each worker."""
CHEAP_ARGON2 = argon2.Parameters(argon2.Type.ID, 19, 16, 32, time_cost=1, memory_cost=8, parallelism=1)
"""Tests of everything else must not spend their time on hashing."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> parallel.Scheduler:
    return parallel.Scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several workers
        parallel.arrange(items)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: to look through it for garbage again and again would take a fifth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _nothing_secret_is_logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A password, a name or a token in the log is in every place where logs go, and no erasure reaches it there."""
    logged.RUN = logged.Run(tmp_path_factory.mktemp("logged") / "lines.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        logged.RUN.begin(patch)
        yield
    found = logged.RUN.end()
    assert not found, f"{len(found)} lines of this run's log say too much:\n" + "\n".join(found[:20])


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The owner's URL of the server's maintenance database."""
    given = os.environ.get("DATABASE_URL")
    if given:
        yield given
        return
    from bitnexus.embedded import Embedded  # only here: with DATABASE_URL nothing embedded is needed

    with (
        tempfile.TemporaryDirectory(prefix="bitnexus-test-", dir=_memory()) as folder,
        Embedded(Path(folder) / "data") as embedded,
    ):
        with psycopg.connect(embedded.owner_url, autocommit=True) as connection:
            for each in QUICK:
                connection.execute(f"ALTER SYSTEM SET {each}".encode())
            connection.execute("SELECT pg_reload_conf()")
        yield embedded.owner_url


def _memory() -> Path | None:
    """A file system in memory if there is one with room: a new database is 300 new files, and there are thousands of them."""
    return MEMORY if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN else None


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a migrated, empty database."""
    with databases.migrated(server) as name:
        yield name


@pytest.fixture(scope="session")
def shop_template(server: str, template: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of a database in which somebody at a shell has made the tenant `shop`, and what they were told."""
    with databases.copy(server, template) as made:
        yield made.name, commandline.create_shop(commandline.on(made))


@pytest.fixture
def new_database(server: str, template: str) -> Callable[[], AbstractContextManager[Database]]:
    """Makes migrated databases without tenants, for tests that need another one."""
    return partial(databases.copy, server, template)


@pytest.fixture
def shop_database(server: str, shop_template: tuple[str, dict[str, Any]]) -> Iterator[Database]:
    """A database of this test's own as `shop_template`: that takes a thirtieth of making the tenant."""
    with databases.copy(server, shop_template[0]) as made:
        yield made


@pytest.fixture
def database(new_database: Callable[[], AbstractContextManager[Database]]) -> Iterator[Database]:
    """A migrated database of this test's own, without tenants."""
    with new_database() as made:
        yield made


@pytest_asyncio.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """A ledger at work on `database`, as a process has it."""
    waker = Waker(connections.connector(database.app_url, "app"))
    appender = Appender(connections.connector(database.app_url, "app"), waker)
    codec, keyring, passwords = Codec(catalogue.AGGREGATES), Keyring(MASTER), Passwords(CHEAP_ARGON2)
    async with (
        connections.pool(database.app_url, "app", 8) as app,
        connections.pool(database.app_url, "projector", 8) as projector,
    ):
        await appender.start()
        await waker.start()
        async with lookups.running(connections.connector(database.app_url, "app"), app, codec, keyring) as looks:
            ledger = Ledger(app, appender, looks, codec, keyring)
            yield World(database, ledger, appender, looks, waker, app, projector, passwords)
        await appender.close()
        await waker.close()
        passwords.close()


@pytest_asyncio.fixture
async def tenant_id(world: World) -> uuid.UUID:
    """A tenant with an open stream and nothing in it."""
    tenant = ids.new_id()
    await world.ledger.open_stream(tenant)
    return tenant


@pytest.fixture(scope="session")
def master() -> MasterKey:
    return MASTER
