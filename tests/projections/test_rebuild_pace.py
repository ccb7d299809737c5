"""How much of the machine a rebuild takes, and that it does not begin what can have no end."""

import asyncio

import pytest

from bitnexus import database as connections
from projections import catalogue, filling, generations, products, rebuild, sales, stream
from tests.projections.conftest import Connection, project
from tests.projections.story import Story
from tests.world import World


@pytest.mark.parametrize(("share", "times"), [(100, 0.0), (50, 1.0), (25, 3.0)])
def test_what_is_left_of_a_share_is_rest(share: int, times: float) -> None:
    assert filling.rest_of(share) == times


async def test_a_rebuild_leaves_time_to_the_others(
    projector: Connection,
    source: stream.Source,
    story: Story,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After each batch: with a rest that never ends there is no second one."""
    monkeypatch.setattr(filling, "JOIN_EVENTS_MAX", 5)
    await project(projector, source, products.VIEW, story, limit=100)
    connect = connections.projecting_connector(world.database.app_url)
    job = await rebuild.request(projector, products.VIEW, story.tenant_id)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await filling.work(connect, source, products.VIEW, job, batch_events=10, rest=1e6)
    (_, new) = await generations.all_of(projector, products.VIEW.name, story.tenant_id)
    assert (new.state, new.position) == ("filling", 10)


@pytest.mark.parametrize("batch_events", [7, 20])
async def test_what_is_left_at_the_join_comes_whole_though_less_of_it_was_read_ahead(
    projector: Connection,
    source: stream.Source,
    world: World,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
    batch_events: int,
) -> None:
    """What is read ahead of the last batch is as long as a batch, or as the stream was then; the new rows would lack the rest for good."""
    monkeypatch.setattr(filling, "JOIN_EVENTS_MAX", 50)
    connect = connections.projecting_connector(world.database.app_url)
    for view in catalogue.VIEWS:
        await project(projector, source, view, story, limit=100)
        job = await rebuild.request(projector, view, story.tenant_id)
        compared = await filling.work(connect, source, view, job, batch_events=batch_events)
        assert compared is not None
        assert (compared.equal, compared.position) == (True, story.position), compared


async def test_a_generation_that_broke_is_not_gone_on_with(
    projector: Connection, source: stream.Source, world: World, story: Story
) -> None:
    """It is fed no more, so whoever filled it would never come to an end."""
    await project(projector, source, sales.VIEW, story, limit=100)
    await rebuild.request(projector, sales.VIEW, story.tenant_id)
    await generations.set_state(projector, sales.NAME, story.tenant_id, 2, "broken", "a bug")
    with pytest.raises(rebuild.Kept, match=r"2 \(broken\)"):
        await rebuild.request(projector, sales.VIEW, story.tenant_id)
