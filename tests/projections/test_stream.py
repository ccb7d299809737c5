"""What the views of a process read together: each event is decoded once, and nothing of an erased person is kept."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bitnexus import database as connections
from ledger import ids
from projections import catalogue, stream
from tests.projections.story import Story, tell
from tests.world import World

TOPICS = frozenset[str]().union(*(view.wanted for view in catalogue.VIEWS))


@pytest_asyncio.fixture
async def events(world: World, source: stream.Source) -> AsyncIterator[stream.Stream]:
    found = stream.Stream(source, connections.projecting_connector(world.database.app_url), TOPICS)
    yield found
    await found.close()


def _after(stretch: stream.Stretch, position: int) -> list[int]:
    """The very objects: another reading would make others."""
    return [id(event) for event in stretch.events if event.position > position]


async def test_a_view_that_is_a_little_behind_another_decodes_nothing_again(
    events: stream.Stream, story: Story
) -> None:
    """Four views out of step would else decode every event four times."""
    first = await events.after(story.tenant_id, 10, 1_000)
    second = await events.after(story.tenant_id, 25, 1_000)
    assert (second.after, second.to) == (25, first.to)
    assert _after(second, 0) == _after(first, 25) != []


async def test_a_limit_holds_for_what_is_kept(events: stream.Stream, story: Story) -> None:
    """A batch that fails is halved until the event stands alone: it must not come whole again."""
    await events.after(story.tenant_id, 0, 1_000)
    part = await events.after(story.tenant_id, 3, 2)
    assert (part.after, part.to) == (3, 5)
    assert all(3 < event.position <= 5 for event in part.events)


async def test_what_came_after_a_stretch_is_read(events: stream.Stream, world: World, story: Story) -> None:
    """A view would else stand still at what was kept."""
    first = await events.after(story.tenant_id, 0, 1_000)
    await tell(world, story, 5)
    second = await events.after(story.tenant_id, first.to, 1_000)
    assert second.to == story.position > first.to


async def test_a_stretch_costs_one_statement_and_knows_the_head_where_nothing_is_wanted(
    world: World, source: stream.Source, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are batches: a process that projects 500 commands/s sends a hundred a second."""
    async with await connections.connect(world.database.app_url, "projector") as connection:
        sent: list[object] = []
        execute = connection.execute

        def counted(*arguments: Any, **named: Any) -> Any:
            sent.append(arguments)
            return execute(*arguments, **named)

        monkeypatch.setattr(connection, "execute", counted)
        for topics, after, limit, to in (
            (["product.listed"], 0, 1_000, story.position),
            (["no.such"], 3, 1_000, story.position),
            (["no.such"], 3, 2, 5),
            (["product.listed"], story.position, 1_000, story.position),
        ):
            sent.clear()
            stretch = await stream.read_stretch(connection, source, topics, story.tenant_id, after, limit)
            assert (stretch.after, stretch.to, len(sent)) == (after, to, 1)
            assert bool(stretch.events) == (after == 0)
        nobodys = await stream.read_stretch(connection, source, ["product.listed"], ids.new_id(), 0, 1_000)
        assert nobodys == stream.Stretch(0, 0, [])


async def test_two_views_that_ask_at_once_share_one_reading(events: stream.Stream, story: Story) -> None:
    one, other = await asyncio.gather(
        events.after(story.tenant_id, 30, 1_000), events.after(story.tenant_id, 30, 1_000)
    )
    assert one is other


async def test_nothing_decoded_is_kept_when_somebody_is_erased(
    events: stream.Stream, world: World, story: Story
) -> None:
    """What was decoded before, and what is being decoded at that moment, has the person's data in clear."""
    subject = await world.ledger.subject(story.tenant_id, "buyer", "17850")
    kept = await events.after(story.tenant_id, 0, 40)
    reading = asyncio.create_task(events.after(story.tenant_id, 40, 40))
    await asyncio.sleep(0)  # it has begun
    world.ledger.keyring.drop([(story.tenant_id, subject)])
    for old in (kept, await reading):
        anew = await events.after(story.tenant_id, old.after, 40)
        assert set(_after(anew, 0)).isdisjoint(_after(old, 0))


async def test_what_is_kept_is_bounded(events: stream.Stream, story: Story) -> None:
    """Memory would else grow with the streams."""
    for after in range(stream.KEPT_MAX + 1):
        await events.after(story.tenant_id, after * 2, 2)
    assert len(events._kept[story.tenant_id]) == stream.KEPT_MAX
