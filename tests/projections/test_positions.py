"""Waiting for a view: as long as needed, not longer, and not too many at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio

from bitnexus import database as connections
from projections import catalogue, cross_tenant, generations, leases, positions, products, sales, stream, worker
from tests.projections.conftest import PATIENCE_S, Connection, StartProcess, project
from tests.projections.story import Story
from tests.world import World


@pytest_asyncio.fixture
async def elsewhere(world: World) -> AsyncIterator[positions.Reached]:
    """A process that runs no projector."""
    reached = positions.Reached(connections.connector(world.database.app_url, "projector"))
    yield reached
    await reached.close()


async def test_who_waits_goes_on_when_the_views_are_there(start_process: StartProcess, story: Story) -> None:
    process = await start_process()
    await process.reached.wait(story.tenant_id, ["products", "sales"], story.position, PATIENCE_S)
    assert process.reached.at(story.tenant_id, "products") == story.position
    assert process.reached.at(story.tenant_id, "sales") == story.position
    assert process.reached.waiting == 0


async def test_waiting_works_across_processes(
    elsewhere: positions.Reached, projector: Connection, source: stream.Source, story: Story
) -> None:
    """A request may come to a node whose neighbour keeps the view up."""
    waiting = asyncio.create_task(elsewhere.wait(story.tenant_id, ["products"], story.position, PATIENCE_S))
    await asyncio.sleep(0)
    assert elsewhere.waiting == 1
    await project(projector, source, products.VIEW, story, limit=30)
    await waiting
    assert elsewhere.at(story.tenant_id, "products") == story.position


async def test_a_view_that_was_there_long_ago_is_not_waited_for(
    elsewhere: positions.Reached, projector: Connection, source: stream.Source, story: Story
) -> None:
    """A process that has just started knows no position; the database does."""
    await project(projector, source, sales.VIEW, story, limit=100)
    await elsewhere.wait(story.tenant_id, ["sales"], story.position, PATIENCE_S)


async def test_a_view_that_stays_behind_is_said_to_be(
    elsewhere: positions.Reached, projector: Connection, source: stream.Source, story: Story
) -> None:
    await project(projector, source, sales.VIEW, story, limit=100)
    with pytest.raises(positions.ViewBehind) as told:
        await elsewhere.wait(story.tenant_id, ["sales", "products"], story.position, 0.2)
    assert (told.value.view, told.value.wanted) == ("products", story.position)
    assert elsewhere.waiting == 0


async def test_too_many_waiters_are_sent_away_at_once(
    elsewhere: positions.Reached, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting requests hold memory; a stuck view must not fill it."""
    monkeypatch.setattr(positions, "WAITERS_MAX", 2)
    waiting = [asyncio.create_task(elsewhere.wait(tenant_id, ["sales"], n, PATIENCE_S)) for n in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(positions.TooManyWaiters):
        await elsewhere.wait(tenant_id, ["sales"], 1, PATIENCE_S)
    elsewhere.moved(tenant_id, "sales", 1)
    await waiting[0]
    waiting[1].cancel()  # its client went away
    await asyncio.wait(waiting)
    assert elsewhere.waiting == 0


async def test_a_known_position_never_goes_back(elsewhere: positions.Reached, tenant_id: UUID) -> None:
    told: list[int] = []
    unsubscribe = elsewhere.subscribe(lambda tenant, view, position: told.append(position))
    for position in (5, 3, 5, 8):
        elsewhere.moved(tenant_id, "sales", position)
    unsubscribe()
    elsewhere.moved(tenant_id, "sales", 9)
    assert told == [5, 8]
    assert elsewhere.at(tenant_id, "sales") == 9


async def test_nobody_asks_the_database_when_nobody_waits(
    elsewhere: positions.Reached,
    projector: Connection,
    source: stream.Source,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An idle system is idle."""
    monkeypatch.setattr(positions, "POLL_S", 0.001)
    asked: list[int] = []
    look_up = cross_tenant.positions

    async def counted(connection: Connection, wanted: Sequence[tuple[UUID, str]]) -> list[tuple[UUID, str, int]]:
        asked.append(len(wanted))
        return await look_up(connection, wanted)

    monkeypatch.setattr(cross_tenant, "positions", counted)
    await project(projector, source, sales.VIEW, story, limit=100)
    await elsewhere.wait(story.tenant_id, ["sales"], story.position, PATIENCE_S)
    await asyncio.sleep(0.02)  # the last look may be on its way
    asked.clear()
    await asyncio.sleep(0.05)
    assert asked == []


async def test_lag_counts_what_is_not_in_the_view_yet(
    projector: Connection, source: stream.Source, story: Story
) -> None:
    await project(projector, source, sales.VIEW, story, limit=100)
    await generations.begin(projector, "products", 1, story.tenant_id)
    await generations.set_position(projector, "products", story.tenant_id, 1, 10, "active")
    lag = await cross_tenant.lag(projector, [view.name for view in catalogue.VIEWS])
    reached = {"products": 10, "sales": story.position}
    assert [(each.view, each.tenant_id, each.behind) for each in lag] == [
        (name, story.tenant_id, story.position - reached.get(name, 0))
        for name in sorted(view.name for view in catalogue.VIEWS)
    ]
    seconds = {each.view: each.seconds_behind for each in lag}
    assert seconds["refunds"] >= seconds["products"] > 0 == seconds["sales"]


async def test_a_worker_that_lost_the_database_relies_on_nothing_that_it_knew(
    elsewhere: positions.Reached, tenant_id: UUID
) -> None:
    """Views are committed without waiting for the disk: after a crash they stand earlier."""
    held = leases.Leases(uuid4(), [products.VIEW])
    at_work = worker.Worker(products.VIEW, elsewhere._connect, cast(stream.Stream, None), elsewhere, held, 1)
    at_work._closing.set()  # so that it does not wait before it connects again
    elsewhere.moved(tenant_id, "products", 3)
    await at_work._outage(tenant_id, 3, psycopg.OperationalError("gone"))
    assert elsewhere.at(tenant_id, "products") == 0
