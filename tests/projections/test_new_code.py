"""A new version of a view, of which not all is as it should be: the one that is read goes on."""

import msgspec
import pytest

from bitnexus import database as connections
from domain.products import Product
from projections import (
    comparison,
    failures,
    filling,
    generations,
    positions,
    products,
    rebuild,
    sales,
    stream,
    switching,
)
from projections.view import Batch, Cursor, View
from tests.projections.conftest import Connection, StartProcess, project, rebuilt
from tests.projections.story import Story, tell
from tests.world import World


@pytest.fixture
def connect(world: World) -> positions.Connect:
    return connections.projecting_connector(world.database.app_url)


async def test_a_version_that_goes_backwards_is_refused_and_an_older_release_leaves_the_view_alone(
    start_process: StartProcess, projector: Connection, source: stream.Source, world: World, story: Story
) -> None:
    """An old process that is still there would write what the new code does not expect."""
    newer = msgspec.structs.replace(products.VIEW, version=3)
    await project(projector, source, newer, story, limit=100)
    with pytest.raises(rebuild.VersionOlder, match="this release has version 2, and what is stored is of version 3"):
        await rebuild.request(projector, products.VIEW, story.tenant_id)
    at = story.position
    process = await start_process([products.VIEW, sales.VIEW])
    await tell(world, story, 10, seed=2)
    await process.reaches(story, [sales.VIEW])
    found = await generations.all_of(projector, products.VIEW.name, story.tenant_id)
    assert [(each.state, each.position) for each in found] == [("active", at)]


def failing_view(topic: type, *, commutes: bool) -> View:
    """The products, of which the code cannot digest one kind of event."""

    async def fails(batch: Batch, cursor: Cursor) -> None:
        if batch.generation == 2 and batch.of(topic):
            raise RuntimeError("a mistake in the new code")
        await products.project(batch, cursor)

    policy = failures.park_after(1) if commutes else failures.stop_after(1)
    return msgspec.structs.replace(products.VIEW, version=3, project=fails, commutes=commutes, on_failure=policy)


async def test_new_code_that_cannot_digest_an_event_leaves_the_old_rows_read(
    projector: Connection,
    source: stream.Source,
    world: World,
    story: Story,
    app: Connection,
    connect: positions.Connect,
) -> None:
    await project(projector, source, products.VIEW, story, limit=100)
    view = failing_view(Product.Repriced, commutes=False)
    job = await rebuild.request(projector, view, story.tenant_id)
    assert await filling.work(connect, source, view, job) is None
    status = await rebuild.status(projector, view.name, story.tenant_id)
    assert status is not None
    assert status.error is not None
    assert status.error.startswith(f"It cannot digest the event at {status.position + 1}: RuntimeError in fails")
    assert "mistake" not in status.error  # what an error says may be an event's content
    assert (await products.page(app, story.tenant_id, None, 100)).position == story.position
    corrected = msgspec.structs.replace(products.VIEW, version=3)
    compared = await filling.work(
        connect, source, corrected, await rebuild.request(projector, corrected, story.tenant_id)
    )
    assert compared is not None
    assert compared.equal


async def test_a_new_generation_that_cannot_be_fed_does_not_stop_the_one_that_is_read(
    start_process: StartProcess, projector: Connection, source: stream.Source, world: World, story: Story
) -> None:
    await project(projector, source, products.VIEW, story, limit=100)
    await rebuilt(world, source, products.VIEW, story.tenant_id, compare_only=True)
    view = failing_view(Product.Listed, commutes=False)
    process = await start_process([view])
    await tell(world, story, 20, seed=2)
    await process.reaches(story, [view])
    (old, new) = await generations.all_of(projector, view.name, story.tenant_id)
    assert (old.state, old.position, old.stopped) == ("active", story.position, False)
    assert (new.state, new.failure is not None) == ("broken", True)
    with pytest.raises(comparison.NotAtOnePosition):
        await switching.switch(projector, view, story.tenant_id, back=False)
