"""Rebuilding: nobody notices but who looks at the progress."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec
import pytest

from bitnexus import database as connections
from commands import privacy
from ledger import codec, ids
from projections import (
    catalogue,
    comparison,
    cross_tenant,
    filling,
    generations,
    leases,
    positions,
    products,
    rebuild,
    sales,
    stream,
    switching,
    transactions,
)
from projections.view import View
from tests.projections.conftest import PATIENCE_S, Connection, StartProcess, project, rebuilt, rows
from tests.projections.story import Story, tell
from tests.world import World, caller

Connect = positions.Connect


@pytest.fixture
def connect(world: World) -> Connect:
    return connections.projecting_connector(world.database.app_url)


async def states(connection: Connection, view: View, story: Story) -> list[tuple[int, str, int]]:
    found = await generations.all_of(connection, view.name, story.tenant_id)
    return [(each.generation, each.state, each.position) for each in found]


async def test_a_damaged_view_is_right_again_and_what_was_wrong_is_shown(
    projector: Connection, source: stream.Source, world: World, story: Story
) -> None:
    other = await tell(world, Story(ids.new_id()), 30, seed=2)
    for each in (story, other):
        await project(projector, source, sales.VIEW, each, limit=100)
    right = [await rows(projector, each.tenant_id) for each in (story, other)]
    await projector.execute("UPDATE views.sales_by_day SET count = count + 1")
    damaged = await rows(projector, other.tenant_id)
    compared = await rebuilt(world, source, sales.VIEW, story.tenant_id)
    assert (compared.equal, compared.tables[0].rows_before) == (False, compared.tables[0].rows_after)
    first = compared.tables[0].differing[0]
    assert first.before is not None
    assert first.after is not None
    assert first.key.keys() == {"day", "currency"}
    assert first.before["count"] == first.after["count"] + 1
    assert first.before.keys() == {"count"}  # what is equal is not shown
    assert (await rows(projector, story.tenant_id, generation=2)) == right[0]
    assert (await rows(projector, other.tenant_id)) == damaged  # nobody asked for it


async def test_a_rebuild_shows_no_more_than_the_view_that_is_read(
    projector: Connection, source: stream.Source, world: World, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view that is behind, or has stopped: what comes after is fed to both."""
    monkeypatch.setattr(filling, "JOIN_EVENTS_MAX", 5)
    for view in (products.VIEW, sales.VIEW):
        await project(projector, source, view, story, limit=100, end=40)
        compared = await rebuilt(world, source, view, story.tenant_id)
        assert (compared.position, compared.equal) == (40, True)


async def test_a_difference_shows_nothing_personal(
    projector: Connection, source: stream.Source, world: World, story: Story
) -> None:
    """It is kept, and an erasure would not find it."""
    await project(projector, source, transactions.VIEW, story, limit=100)
    await projector.execute("UPDATE views.transactions SET buyer_ref = 'somebody', amount_minor = amount_minor + 1")
    compared = await rebuilt(world, source, transactions.VIEW, story.tenant_id)
    assert len(compared.tables[0].differing) == comparison.SAMPLE_ROWS_MAX
    text = msgspec.json.encode(compared).decode()
    assert comparison.HIDDEN in text
    assert "somebody" not in text
    assert "17850" not in text


async def test_readers_see_the_old_rows_until_it_is_done_and_never_an_older_position(
    start_process: StartProcess, source: stream.Source, world: World, story: Story, app: Connection, connect: Connect
) -> None:
    """A rebuild of a large tenant takes minutes; its shop must not be empty meanwhile, and goes on selling."""
    process = await start_process([products.VIEW])
    await process.reaches(story, [products.VIEW])
    alive = leases.Leases(ids.new_id(), [])
    async with await connect() as connection:
        await alive.beat(connection)
        job = await rebuild.request(connection, products.VIEW, story.tenant_id, process_id=alive.process_id)
    seen: list[tuple[int, int]] = []
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            page = await products.page(app, story.tenant_id, None, 100)
            seen.append((page.position, len(page.rows)))
            await asyncio.sleep(0)

    async def sell() -> None:
        for seed in range(2, 8):
            await tell(world, story, 20, seed=seed)

    reading, selling = asyncio.create_task(read()), asyncio.create_task(sell())
    compared = await filling.work(connect, source, products.VIEW, job, batch_events=7)
    await selling
    await process.reaches(story, [products.VIEW])
    done.set()
    await reading
    assert compared is not None
    assert compared.equal
    assert seen == sorted(seen)  # neither position nor rows ever went back
    page = await products.page(app, story.tenant_id, None, 100)
    assert (page.position, len(page.rows)) == (story.position, len(story.listed))


async def test_both_stay_fed_so_that_switching_back_shows_nothing_stale(
    start_process: StartProcess,
    source: stream.Source,
    world: World,
    story: Story,
    projector: Connection,
    app: Connection,
) -> None:
    process = await start_process([products.VIEW])
    await process.reaches(story, [products.VIEW])
    await rebuilt(world, source, products.VIEW, story.tenant_id)
    await tell(world, story, 30, seed=2)
    await process.reaches(story, [products.VIEW])
    assert await states(projector, products.VIEW, story) == [
        (1, "ready", story.position),
        (2, "active", story.position),
    ]
    assert await switching.switch(projector, products.VIEW, story.tenant_id, back=True) == (2, 1)
    page = await products.page(app, story.tenant_id, None, 100)
    assert (page.position, len(page.rows)) == (story.position, len(story.listed))
    assert (await comparison.compare(projector, products.VIEW, story.tenant_id)).equal
    with pytest.raises(switching.NothingThere):
        await switching.switch(projector, products.VIEW, story.tenant_id, back=True)


async def test_comparing_only_goes_on_reading_the_old_rows(
    projector: Connection, source: stream.Source, world: World, story: Story, app: Connection
) -> None:
    await project(projector, source, products.VIEW, story, limit=100)
    await projector.execute("UPDATE views.products SET name = 'damaged'")
    compared = await rebuilt(world, source, products.VIEW, story.tenant_id, compare_only=True)
    assert not compared.equal
    assert {row.name for row in (await products.page(app, story.tenant_id, None, 100)).rows} == {"damaged"}
    await switching.switch(projector, products.VIEW, story.tenant_id, back=False)
    assert "damaged" not in {row.name for row in (await products.page(app, story.tenant_id, None, 100)).rows}


class Interrupted(Exception):
    pass


def interrupting_at(position: int) -> Callable[[UUID, int, int], None]:
    def progress(tenant_id: UUID, at: int, end: int) -> None:
        if at >= position:
            raise Interrupted

    return progress


async def test_an_interrupted_rebuild_goes_on_where_it_was(
    projector: Connection,
    source: stream.Source,
    story: Story,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filling, "JOIN_EVENTS_MAX", 5)
    await project(projector, source, products.VIEW, story, limit=100)
    job = await rebuild.request(projector, products.VIEW, story.tenant_id)
    with pytest.raises(Interrupted):
        await filling.work(connect, source, products.VIEW, job, batch_events=10, progress=interrupting_at(40))
    assert await states(projector, products.VIEW, story) == [(1, "active", story.position), (2, "filling", 40)]
    again = await rebuild.request(projector, products.VIEW, story.tenant_id)
    assert (again.generation, again.token) == (2, job.token + 1)
    with pytest.raises(filling.Lost):  # whoever had it before and comes back late
        await filling.work(connect, source, products.VIEW, job, batch_events=10)
    seen: list[int] = []
    compared = await filling.work(
        *(connect, source, products.VIEW, again),
        batch_events=10,
        progress=lambda tenant_id, at, end: seen.append(at),
    )
    assert compared is not None
    assert compared.equal
    assert seen[0] == 40


async def test_a_rebuild_that_is_taken_over_during_a_batch_goes_on_after_it(
    projector: Connection,
    source: stream.Source,
    world: World,
    story: Story,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch of the one before may be committed after the next one has looked where the rebuild is."""
    monkeypatch.setattr(filling, "JOIN_EVENTS_MAX", 5)
    await project(projector, source, products.VIEW, story, limit=100)
    job = await rebuild.request(projector, products.VIEW, story.tenant_id)
    moved = asyncio.Event()

    def progress(tenant_id: UUID, at: int, end: int) -> None:
        if at == 10 and not moved.is_set():
            moved.set()
            with connections.connect_sync(world.database.app_url, "projector") as other:
                other.execute("UPDATE views.positions SET position = 0 WHERE state = 'filling'")

    compared = await filling.work(connect, source, products.VIEW, job, batch_events=10, progress=progress)
    assert moved.is_set()
    assert compared is not None
    assert compared.equal


async def test_whoever_lost_a_rebuild_switches_nothing(
    projector: Connection, source: stream.Source, story: Story, connect: Connect
) -> None:
    """It comes back when both generations are fed, and an operator has decided meanwhile what is read."""
    await project(projector, source, products.VIEW, story, limit=100)
    late = await rebuild.request(projector, products.VIEW, story.tenant_id)
    job = await rebuild.request(projector, products.VIEW, story.tenant_id, compare_only=True)
    await filling.work(connect, source, products.VIEW, job)
    for each in (late, job):
        with pytest.raises(filling.Lost):
            await filling.work(connect, source, products.VIEW, each)
    assert [state for _, state, _ in await states(projector, products.VIEW, story)] == ["active", "ready"]


@pytest.mark.parametrize("join_events_max", [5, 200], ids=["in the middle", "at its end"])
async def test_a_paused_rebuild_writes_nothing_more(
    projector: Connection,
    source: stream.Source,
    story: Story,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    join_events_max: int,
) -> None:
    monkeypatch.setattr(filling, "JOIN_EVENTS_MAX", join_events_max)
    await project(projector, source, products.VIEW, story, limit=100)
    process_id = ids.new_id()
    job = await rebuild.request(projector, products.VIEW, story.tenant_id, process_id=process_id)
    await rebuild.pause(projector, products.VIEW.name, story.tenant_id, process_id)
    with pytest.raises(filling.Lost):
        await filling.work(connect, source, products.VIEW, job)
    assert await states(projector, products.VIEW, story) == [(1, "active", story.position), (2, "filling", 0)]
    assert await cross_tenant.claim(projector, process_id, catalogue.VIEWS, 1) == []


async def test_a_rebuild_asked_for_twice_is_refused_while_somebody_is_at_it(
    projector: Connection, source: stream.Source, story: Story
) -> None:
    await project(projector, source, products.VIEW, story, limit=100)
    alive = leases.Leases(ids.new_id(), [])
    await alive.beat(projector)
    await rebuild.request(projector, products.VIEW, story.tenant_id, process_id=alive.process_id)
    with pytest.raises(rebuild.UnderWay, match="being rebuilt already: generation 2 is at 0 of"):
        await rebuild.request(projector, products.VIEW, story.tenant_id)
    await alive.leave(projector)
    assert (await rebuild.request(projector, products.VIEW, story.tenant_id)).generation == 2  # nobody is at it


async def test_a_third_generation_is_refused_until_the_second_is_dropped(
    projector: Connection, source: stream.Source, world: World, story: Story
) -> None:
    await project(projector, source, products.VIEW, story, limit=100)
    await rebuilt(world, source, products.VIEW, story.tenant_id)
    with pytest.raises(rebuild.Kept, match="still has another generation: 1"):
        await rebuild.request(projector, products.VIEW, story.tenant_id)
    assert (await switching.drop(projector, products.VIEW, story.tenant_id))[0] == 1
    compared = await rebuilt(world, source, products.VIEW, story.tenant_id)
    assert (compared.before, compared.after, compared.equal) == (2, 3, True)


async def test_dropping_leaves_what_is_read_and_every_other_tenant(
    projector: Connection, source: stream.Source, world: World, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "ROWS_PER_DELETE", 3)
    other = await tell(world, Story(ids.new_id()), 30, seed=2)
    for each in (story, other):
        await project(projector, source, products.VIEW, each, limit=100)
        await rebuilt(world, source, products.VIEW, each.tenant_id)
    before = await rows(projector, story.tenant_id, generation=2)
    old_of_other = await rows(projector, other.tenant_id, generation=1)
    assert await switching.drop(projector, products.VIEW, story.tenant_id) == (1, len(story.listed))
    assert await rows(projector, story.tenant_id, generation=2) == before
    assert not any((await rows(projector, story.tenant_id, generation=1)).values())
    assert await rows(projector, other.tenant_id, generation=1) == old_of_other
    with pytest.raises(switching.NothingThere):
        await switching.drop(projector, products.VIEW, story.tenant_id)


async def test_dropping_ends_a_rebuild_under_way(
    projector: Connection,
    source: stream.Source,
    story: Story,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filling, "JOIN_EVENTS_MAX", 5)
    await project(projector, source, products.VIEW, story, limit=100)
    job = await rebuild.request(projector, products.VIEW, story.tenant_id)
    with pytest.raises(Interrupted):
        await filling.work(connect, source, products.VIEW, job, batch_events=10, progress=interrupting_at(40))
    await switching.drop(projector, products.VIEW, story.tenant_id)
    with pytest.raises(filling.Lost):
        await filling.work(connect, source, products.VIEW, job)
    assert await states(projector, products.VIEW, story) == [(1, "active", story.position)]
    assert await rebuild.status(projector, products.VIEW.name, story.tenant_id) is None
    again = await rebuild.request(
        projector, products.VIEW, story.tenant_id
    )  # nothing of it is in the way of the next one
    compared = await filling.work(connect, source, products.VIEW, again)
    assert compared is not None
    assert (compared.after, compared.equal) == (2, True)


async def test_a_view_without_its_table_is_refused(projector: Connection, story: Story) -> None:
    table = msgspec.structs.replace(products.VIEW.tables[0], name="nowhere")
    view = msgspec.structs.replace(products.VIEW, tables=(table,))
    with pytest.raises(comparison.TableMissing, match=r"views\.nowhere"):
        await rebuild.check(projector, view, story.tenant_id)


async def test_a_person_erased_during_a_rebuild_is_in_neither_generation(
    start_process: StartProcess,
    projector: Connection,
    source: stream.Source,
    world: World,
    story: Story,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in one that stands still, and will perhaps never be gone on with."""
    monkeypatch.setattr(filling, "JOIN_EVENTS_MAX", 5)
    process = await start_process([transactions.VIEW])
    await process.reaches(story, [transactions.VIEW])
    alive = leases.Leases(ids.new_id(), [])
    await alive.beat(projector)
    job = await rebuild.request(projector, transactions.VIEW, story.tenant_id, process_id=alive.process_id)
    with pytest.raises(Interrupted):
        await filling.work(connect, source, transactions.VIEW, job, batch_events=10, progress=interrupting_at(60))
    assert "17850" in str(await rows(projector, story.tenant_id, generation=2))
    command = privacy.Erase(buyer_ref="17850")
    receipt = await privacy.erase(command, caller(story.tenant_id), world.ledger, privacy.noted_nowhere)
    story.position = receipt.position
    await process.reaches(story, [transactions.VIEW])
    for generation in (1, 2):
        found = str(await rows(projector, story.tenant_id, generation=generation))
        assert "17850" not in found
        assert codec.ERASED in found


async def test_whoever_serves_does_what_is_asked_for(
    start_process: StartProcess, projector: Connection, world: World, story: Story
) -> None:
    """Asked for over HTTP, it outlives the request."""
    process = await start_process([products.VIEW])
    await process.reaches(story, [products.VIEW])
    await rebuild.request(projector, products.VIEW, story.tenant_id)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status = await rebuild.status(projector, "products", story.tenant_id)
            if status is not None and status.finished_at is not None:
                break
            await asyncio.sleep(0.02)
    assert status.comparison is not None
    assert (status.state, status.comparison.equal, status.working) == ("active", True, False)


async def test_the_rebuild_of_a_dead_process_is_taken_over(
    projector: Connection, source: stream.Source, story: Story
) -> None:
    await project(projector, source, products.VIEW, story, limit=100)
    dead, alive = leases.Leases(ids.new_id(), []), leases.Leases(ids.new_id(), [])
    for each in (dead, alive):
        await each.beat(projector)
    job = await rebuild.request(projector, products.VIEW, story.tenant_id, process_id=dead.process_id)
    assert await cross_tenant.claim(projector, alive.process_id, catalogue.VIEWS, 1) == []
    await projector.execute(
        "UPDATE views.processes SET expires_at = now() - interval '1 s' WHERE process_id = %s", (dead.process_id,)
    )
    (taken,) = await cross_tenant.claim(projector, alive.process_id, catalogue.VIEWS, 1)
    assert (taken.generation, taken.token) == (2, job.token + 1)
