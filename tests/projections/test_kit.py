"""What every view of the catalogue has to stand, whatever it shows: a view passes by being listed.

Repeats change nothing, a crash between any two statements loses and doubles nothing, replay gives the same, the past is as
it was, tenants stay apart, unknown events are passed over; and where a view says so, the order between aggregates does not
matter. That a view forgets erased persons is in test_erasers.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from ledger import ids
from projections import batches, catalogue, cross_tenant, generations, sales, stream, travel
from projections.view import View
from tests.projections.conftest import Connection, Rows, project, rebuilt, rows, shown
from tests.projections.story import Story, append_unknown_topic, tell
from tests.world import World

EACH_VIEW = pytest.mark.parametrize("view", catalogue.VIEWS, ids=lambda view: view.name)
BATCH_EVENTS = 40


class Crash(Exception):
    pass


class Crashing:
    """Makes one statement of a connection the last one before the process is gone."""

    def __init__(self, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        execute = psycopg.AsyncCursor.execute

        async def counted(cursor: Any, *arguments: Any, **options: Any) -> Any:
            if cursor.connection is connection:
                self.left -= 1
                if self.left == 0:
                    raise Crash
            return await execute(cursor, *arguments, **options)

        monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)


@EACH_VIEW
async def test_a_crash_between_any_two_statements_loses_and_doubles_nothing(
    projector: Connection,
    source: stream.Source,
    world: World,
    story: Story,
    view: View,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each batch crashes at its first statement, then at its second, and so on; then it is let through."""
    crashing = Crashing(projector, monkeypatch)
    await generations.begin(projector, view.name, view.version, story.tenant_id)
    after, crashes = 0, 0
    while after < story.position:
        stretch = await stream.read_stretch(
            projector, source, sorted(view.wanted), story.tenant_id, after, BATCH_EVENTS
        )
        for statement in range(1, 100):
            crashing.left = statement
            try:
                async with projector.transaction():
                    await generations.set_position(projector, view.name, story.tenant_id, 1, stretch.to, "active")
                    await batches.project(projector, view, story.tenant_id, 1, stretch.events)
            except Crash:
                crashes += 1
                (stands,) = await generations.all_of(projector, view.name, story.tenant_id)
                assert stands.position == after
                continue
            break
        crashing.left = 0  # the others get through
        after = stretch.to
    assert crashes >= 3
    assert (await rebuilt(world, source, view, story.tenant_id)).equal


@EACH_VIEW
@pytest.mark.parametrize(("begin", "end"), [(0, 5), (0, None), (3, 50), (17, 40), (60, None)])
async def test_events_that_come_again_leave_the_view_as_it_was(
    projector: Connection, source: stream.Source, story: Story, view: View, begin: int, end: int | None
) -> None:
    """Or a crash between commit and acknowledgement would count sales twice."""
    await project(projector, source, view, story, limit=25)
    before = await rows(projector, story.tenant_id)
    await project(projector, source, view, story, limit=9, begin=begin, end=end)
    assert await rows(projector, story.tenant_id) == before


@EACH_VIEW
async def test_one_by_one_and_all_at_once_give_the_same_rows(
    projector: Connection, source: stream.Source, world: World, story: Story, view: View
) -> None:
    """Or what a user sees would depend on how busy the system was."""
    await project(projector, source, view, story, limit=1)
    compared = await rebuilt(world, source, view, story.tenant_id)
    assert compared.equal, compared
    assert compared.tables[0].rows_before > 0


@EACH_VIEW
async def test_a_tenants_events_touch_no_other_tenants_rows(
    projector: Connection, source: stream.Source, world: World, story: Story, view: View
) -> None:
    other = await tell(world, Story(ids.new_id()), 30, seed=2)
    await project(projector, source, view, other, limit=30)
    before = await rows(projector, other.tenant_id)
    await project(projector, source, view, story, limit=30)
    await rebuilt(world, source, view, story.tenant_id)
    assert await rows(projector, other.tenant_id) == before


@EACH_VIEW
async def test_an_event_of_an_unknown_kind_is_passed_over(
    projector: Connection, source: stream.Source, world: World, story: Story, view: View
) -> None:
    """An older node must go on when a newer one records something new."""
    await append_unknown_topic(world, story)
    await project(projector, source, view, story, limit=100)
    ((_, _, position),) = await cross_tenant.positions(projector, [(story.tenant_id, view.name)])
    assert position == story.position


@EACH_VIEW
async def test_the_view_as_it_stood_is_what_a_fresh_build_up_to_there_is(
    projector: Connection, source: stream.Source, story: Story, view: View, travels: travel.Travels
) -> None:
    """At every position that is asked for, whatever has happened since; and what is read stays as it is."""
    for position in (0, 1, 17, 40, story.position):
        await forget(projector, view, story)
        await project(projector, source, view, story, limit=25, end=position)
        fresh = await rows(projector, story.tenant_id)
        async with travels.to(view, story.tenant_id, position) as past:
            stood = await shown(past, view)
            counts = [await past.count(table) for table in view.tables]
        expected = {table.name: unnamed(fresh[table.name]) for table in view.tables}
        assert {name: sorted(found, key=str) for name, found in stood.items()} == expected
        assert counts == [len(found) for found in expected.values()]
        assert await rows(projector, story.tenant_id) == fresh
    assert all(counts)


def unnamed(found: list[TupleRow]) -> list[dict[str, Any]]:
    """Rows without their tenant, in some order."""
    return sorted(({key: row[key] for key in row if key != "tenant_id"} for (row,) in found), key=str)


async def forget(connection: Connection, view: View, story: Story) -> None:
    for table in view.tables:
        query = sql.SQL("DELETE FROM views.{} WHERE tenant_id = %s").format(sql.Identifier(table.name))
        await connection.execute(query, (story.tenant_id,))
    await connection.execute("DELETE FROM views.positions WHERE tenant_id = %s", (story.tenant_id,))


async def permuted(connection: Connection, source: stream.Source, story: Story, view: View, seed: int) -> Rows:
    """The rows of a generation 2 into which the events come one by one, each aggregate's in order, the aggregates by chance."""
    stretch = await stream.read_stretch(connection, source, sorted(view.wanted), story.tenant_id, 0, 1_000)
    waiting: defaultdict[UUID, list[stream.Event]] = defaultdict(list)
    for event in stretch.events:
        waiting[stream.originator(event)].append(event)
    chance = random.Random(seed)
    async with connection.transaction():
        while waiting:
            originator = chance.choice(list(waiting))
            await batches.project(connection, view, story.tenant_id, 2, [waiting[originator].pop(0)])
            if not waiting[originator]:
                del waiting[originator]
    return await rows(connection, story.tenant_id, generation=2)


def commuting() -> Sequence[View]:
    return [view for view in catalogue.VIEWS if view.commutes]


@pytest.mark.parametrize("view", commuting(), ids=lambda view: view.name)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_view_that_may_park_shows_the_same_in_whichever_order_the_aggregates_come(
    projector: Connection, source: stream.Source, story: Story, view: View, seed: int
) -> None:
    """What was parked is applied later than everybody else's events."""
    await project(projector, source, view, story, limit=100)
    in_order = await rows(projector, story.tenant_id)
    assert any(in_order.values())
    assert await permuted(projector, source, story, view, seed) == in_order


async def test_a_view_that_says_so_wrongly_is_found(projector: Connection, source: stream.Source, story: Story) -> None:
    """The test above must be able to fail: a sum that counts by position does not commute."""
    view = msgspec.structs.replace(sales.VIEW, commutes=True)
    await project(projector, source, view, story, limit=100)
    assert await permuted(projector, source, story, view, 1) != await rows(projector, story.tenant_id)
