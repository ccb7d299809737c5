"""Rebuilding: nobody notices but who looks at the progress."""

from uuid import UUID

import pytest

from bitnexus import database as connections
from ledger import ids
from projections import batches, catalogue, cross_tenant, positions, products, rebuild, sales
from projections.view import Batch, Cursor, View
from tests.projections.conftest import PATIENCE_S, Connection, StartProcess, project, rows
from tests.projections.story import Story, tell
from tests.world import World


async def test_a_damaged_view_is_right_again(
    projector: Connection, source: batches.Source, world: World, story: Story
) -> None:
    other = await tell(world, Story(ids.new_id()), 30, seed=2)
    for each in (story, other):
        await project(projector, source, sales.VIEW, each, limit=100)
    right = [await rows(projector, each.tenant_id) for each in (story, other)]
    await projector.execute("UPDATE views.sales_by_day SET count = count + 1")
    await projector.execute("DELETE FROM views.sales_by_day WHERE currency = 'JPY'")
    await rebuild.rebuild(projector, source, sales.VIEW)
    assert [await rows(projector, each.tenant_id) for each in (story, other)] == right


async def test_readers_see_the_old_rows_until_it_is_done(
    projector: Connection,
    source: batches.Source,
    world: World,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rebuild of a large tenant takes minutes; its shop must not be empty meanwhile."""
    await project(projector, source, products.VIEW, story, limit=100)
    monkeypatch.setattr(batches, "EVENTS_MAX", 30)
    seen: list[tuple[int, int, int]] = []
    with connections.connect_sync(world.database.app_url, "projector") as reader:

        def progress(tenant_id: UUID, position: int, head: int) -> None:
            row = reader.execute(
                "SELECT count(*) FROM views.products WHERE tenant_id = %s AND position > 0", (tenant_id,)
            ).fetchone()
            assert row is not None
            seen.append((position, head, row[0]))

        await rebuild.rebuild(projector, source, products.VIEW, story.tenant_id, progress)
    head, count = story.position, len(story.listed)
    assert seen == [(position, head, count) for position in (*range(0, head, 30), head)]


async def test_a_rebuild_that_fails_leaves_the_rows_as_they_were(
    projector: Connection, source: batches.Source, story: Story
) -> None:
    await project(projector, source, products.VIEW, story, limit=100)
    before = await rows(projector, story.tenant_id)

    async def fails(batch: Batch, cursor: Cursor) -> None:
        await products.project(batch, cursor)
        raise RuntimeError("a mistake in the new code")

    view = View(name="products", version=2, topics=products.VIEW.topics, project=fails, clear=products.CLEAR)
    with pytest.raises(RuntimeError):
        await rebuild.rebuild(projector, source, view, story.tenant_id)
    assert await rows(projector, story.tenant_id) == before
    assert await cross_tenant.positions(projector, [(story.tenant_id, "products")]) == [
        (story.tenant_id, "products", story.position)
    ]


async def test_a_rebuild_holds_up_no_other_tenant(
    projector: Connection, start_process: StartProcess, world: World, story: Story
) -> None:
    other = await tell(world, Story(ids.new_id()), 30, seed=2)
    await positions.begin(projector, "sales", story.tenant_id)
    async with projector.transaction():  # as a rebuild holds it
        await positions.lock(projector, "sales", story.tenant_id)
        process = await start_process()
        await process.reaches(other)
        await process.reaches(story, [view for view in catalogue.VIEWS if view.name != "sales"])
        assert process.reached.at(story.tenant_id, "sales") == 0
    await process.reached.wait(story.tenant_id, ["sales"], story.position, PATIENCE_S)


async def test_lag_counts_what_is_not_in_the_view_yet(
    projector: Connection, source: batches.Source, story: Story
) -> None:
    await project(projector, source, sales.VIEW, story, limit=100)
    await positions.begin(projector, "products", story.tenant_id)
    await positions.move(projector, "products", story.tenant_id, 10)
    lag = await cross_tenant.lag(projector, [view.name for view in catalogue.VIEWS])
    assert [(each.view, each.tenant_id, each.behind) for each in lag] == [
        ("products", story.tenant_id, story.position - 10),
        ("refunds", story.tenant_id, story.position),
        ("sales", story.tenant_id, 0),
        ("transactions", story.tenant_id, story.position),
    ]
    seconds = {each.view: each.seconds_behind for each in lag}
    assert seconds["refunds"] >= seconds["products"] > 0 == seconds["sales"]
