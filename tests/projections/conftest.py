"""What the tests of projections stand on, beside `world`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from bitnexus import database as connections
from ledger import ids
from ledger.waker import Waker
from projections import (
    batches,
    catalogue,
    columns,
    comparison,
    filling,
    generations,
    leases,
    positions,
    rebuild,
    runner,
    stream,
    switching,
    travel,
)
from projections.view import View
from tests.projections.story import Story, tell
from tests.world import World

TABLES = tuple(table.name for view in catalogue.VIEWS for table in view.tables)
PATIENCE_S = 20.0
"""How long a test waits for what must happen; it is there much sooner."""

Rows = dict[str, list[TupleRow]]
Shown = dict[str, list[dict[str, Any]]]
Connection = AsyncConnection[TupleRow]


@pytest_asyncio.fixture
async def projector(world: World) -> AsyncIterator[Connection]:
    """A connection of the projector's role."""
    async with await connections.connect(world.database.app_url, "projector") as connection:
        columns.register(connection.adapters)
        yield connection


@pytest_asyncio.fixture
async def app(world: World) -> AsyncIterator[Connection]:
    """A connection of the app role, as queries use it."""
    async with await connections.connect(world.database.app_url, "app") as connection:
        yield connection


@pytest_asyncio.fixture
async def story(world: World, tenant_id: UUID) -> Story:
    """A tenant with 80 events of all kinds that no view has seen yet."""
    return await tell(world, Story(tenant_id), 80)


@pytest.fixture
def source(world: World) -> stream.Source:
    return stream.Source(world.ledger.codec, world.ledger.keyring)


@pytest.fixture
def travels(world: World, source: stream.Source) -> travel.Travels:
    return travel.Travels(connections.travelling_connector(world.database.app_url), source)


class Process:
    """A runner with what belongs to it, as one process has it."""

    def __init__(self, run: runner.Runner, reached: positions.Reached) -> None:
        self.run = run
        self.reached = reached

    async def reaches(self, story: Story, views: Sequence[View] = catalogue.VIEWS) -> None:
        await self.reached.wait(story.tenant_id, [view.name for view in views], story.position, PATIENCE_S)


StartProcess = Callable[..., Awaitable[Process]]


@pytest_asyncio.fixture
async def start_process(world: World, source: stream.Source) -> AsyncIterator[StartProcess]:
    """Starts a runner; all that were started are closed at the end."""
    async with AsyncExitStack() as stack:

        async def start(
            views: Sequence[View] = catalogue.VIEWS, wakes: Waker | None = None, batch_events: int = 10
        ) -> Process:
            connect = connections.projecting_connector(world.database.app_url)
            reached = positions.Reached(connect)
            run = runner.Runner(views, connect, source, wakes or world.waker, reached, batch_events)
            stack.push_async_callback(reached.close)
            stack.push_async_callback(run.close)
            await run.start()
            return Process(run, reached)

        yield start


async def project(
    connection: Connection,
    source: stream.Source,
    view: View,
    story: Story,
    limit: int,
    begin: int = 0,
    end: int | None = None,
) -> None:
    """Every event after `begin` up to `end`, whatever the view has seen before, in batches of `limit`."""
    await generations.begin(connection, view.name, view.version, story.tenant_id)
    after, last = begin, story.position if end is None else end
    topics = sorted(view.wanted)
    while after < last:
        stretch = await stream.read_stretch(
            connection, source, topics, story.tenant_id, after, min(limit, last - after)
        )
        async with connection.transaction():
            await batches.project(connection, view, story.tenant_id, 1, stretch.events)
            await generations.set_position(connection, view.name, story.tenant_id, 1, stretch.to, "active")
        after = stretch.to


async def rebuilt(
    world: World, source: stream.Source, view: View, tenant_id: UUID, *, compare_only: bool = False
) -> comparison.Comparison:
    """Fill the view anew, compare, and read it from now on."""
    connect = connections.projecting_connector(world.database.app_url)
    alive = leases.Leases(ids.new_id(), [])  # or a runner of the test's might take it over
    async with await connect() as connection:
        await alive.beat(connection)
        job = await rebuild.request(connection, view, tenant_id, compare_only=compare_only, process_id=alive.process_id)
        compared = await filling.work(connect, source, view, job)
        await alive.leave(connection)
    assert compared is not None
    return compared


async def assert_replay_gives_the_same(
    world: World, source: stream.Source, tenant_id: UUID, views: Sequence[View] = catalogue.VIEWS
) -> None:
    """What the views show is what they would show if they were filled anew now. They must be up to date."""
    async with await connections.connect(world.database.app_url, "projector") as connection:
        for view in views:
            compared = await rebuilt(world, source, view, tenant_id, compare_only=True)
            assert compared.equal, compared
            await switching.drop(connection, view, tenant_id)


async def shown(past: travel.Past, view: View) -> Shown:
    """All rows of a view of the past, by table, in order of their key."""
    return {table.name: await past.first(table, 10_000) for table in view.tables}


async def rows(connection: Connection, tenant_id: UUID, generation: int = 1) -> Rows:
    """All that a generation of the views has of a tenant, by table."""
    found: Rows = {}
    for table in TABLES:
        query = sql.SQL(
            "SELECT to_jsonb(v) - 'generation' FROM views.{} v WHERE tenant_id = {} AND generation = {} ORDER BY 1"
        )
        cursor = await connection.execute(query.format(sql.Identifier(table), tenant_id, generation))
        found[table] = await cursor.fetchall()
    return found


async def shown_of(view: Any, connection: Connection, tenant_id: UUID, id: UUID) -> Any:
    """The view's row of that id, looked for in all its pages. `view` is its module."""
    after = None
    while True:
        page = await view.page(connection, tenant_id, after, 100)
        for row in page.rows:
            if row.id == id:
                return row
        assert page.next is not None, f"{view.NAME} has no {id}"
        after = page.next
