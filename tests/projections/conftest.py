"""What the tests of projections stand on, beside `world`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
import pytest_asyncio
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from bitnexus import database as connections
from ledger.waker import Waker
from projections import batches, catalogue, columns, positions, runner
from projections.view import View
from tests.projections.story import Story, tell
from tests.world import World

TABLES = ("products", "transactions", "refunds", "sales_by_day")
PATIENCE_S = 20.0
"""How long a test waits for what must happen; it is there much sooner."""

Rows = dict[str, list[TupleRow]]
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
def source(world: World) -> batches.Source:
    return batches.Source(world.ledger.codec, world.ledger.keyring)


class Process:
    """A runner with what belongs to it, as one process has it."""

    def __init__(self, run: runner.Runner, reached: positions.Reached) -> None:
        self.run = run
        self.reached = reached

    async def reaches(self, story: Story, views: Sequence[View] = catalogue.VIEWS) -> None:
        await self.reached.wait(story.tenant_id, [view.name for view in views], story.position, PATIENCE_S)


StartProcess = Callable[..., Awaitable[Process]]


@pytest_asyncio.fixture
async def start_process(world: World, source: batches.Source) -> AsyncIterator[StartProcess]:
    """Starts a runner; all that were started are closed at the end."""
    async with AsyncExitStack() as stack:

        async def start(
            views: Sequence[View] = catalogue.VIEWS, wakes: Waker | None = None, batch_events: int = 10
        ) -> Process:
            connect = connections.connector(world.database.app_url, "projector")
            reached = positions.Reached(connect)
            run = runner.Runner(views, connect, source, wakes or world.waker, reached, batch_events)
            stack.push_async_callback(reached.close)
            stack.push_async_callback(run.close)
            await run.start()
            return Process(run, reached)

        yield start


async def project(
    connection: Connection,
    source: batches.Source,
    view: View,
    story: Story,
    limit: int,
    begin: int = 0,
    end: int | None = None,
) -> None:
    """Every event after `begin` up to `end`, whatever the view has seen before, in batches of `limit`."""
    await positions.begin(connection, view.name, story.tenant_id)
    after, last = begin, story.position if end is None else end
    while after < last:
        async with connection.transaction():
            after = await batches.apply(connection, source, view, story.tenant_id, after, min(limit, last - after))


async def rows(connection: Connection, tenant_id: UUID) -> Rows:
    """All that the views have of a tenant, by table."""
    found: Rows = {}
    for table in TABLES:
        query = sql.SQL("SELECT to_jsonb(v) FROM views.{} v WHERE tenant_id = {} ORDER BY 1")
        cursor = await connection.execute(query.format(sql.Identifier(table), tenant_id))
        found[table] = await cursor.fetchall()
    return found
