"""Synchronous connections of each role, for tests that talk to the database themselves."""

from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg import Connection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from tests.ledger import appenders, calls
from tests.world import Database


@pytest.fixture
def app(database: Database) -> Iterator[Connection[TupleRow]]:
    """A process's connection, in autocommit."""
    with connections.connect_sync(database.app_url, "app") as connection:
        yield connection


@pytest.fixture(params=list(calls.FUNCTIONS))
def through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each function that promises the same."""
    monkeypatch.setattr(calls, "through", request.param)


@pytest.fixture
def projector(database: Database) -> Iterator[Connection[TupleRow]]:
    with connections.connect_sync(database.app_url, "projector") as connection:
        yield connection


@pytest.fixture
def owner(database: Database) -> Iterator[Connection[TupleRow]]:
    """The owner's connection: a superuser, or a role that may go round row-level security."""
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def tenant(app: Connection[TupleRow]) -> UUID:
    """A tenant with an open stream and nothing in it."""
    return calls.open_streams(app, 1)[0]


@pytest_asyncio.fixture
async def bench(database: Database) -> AsyncIterator[appenders.Bench]:
    async with appenders.at_work(database) as bench:
        yield bench
