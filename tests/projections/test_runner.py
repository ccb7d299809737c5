"""The runner: what fails fails alone, what dies is taken up again, and nothing is projected twice."""

import asyncio
import sys
from asyncio import subprocess
from uuid import UUID

import msgspec
import psycopg
import pytest

from bitnexus import database as connections
from domain import privacy
from domain.products import Product
from ledger import ids
from ledger.waker import Waker
from projections import (
    accounts,
    catalogue,
    cross_tenant,
    failures,
    products,
    runner,
    sales,
    stream,
    tenants,
    transactions,
    worker,
)
from projections.view import Batch, Cursor, View
from tests.projections.conftest import PATIENCE_S, Connection, StartProcess, assert_replay_gives_the_same, rows
from tests.projections.story import Story, tell
from tests.world import World

KILLS = 4


def view_of(project_batch: "Recorder", name: str = "recorded") -> View:
    """A view without rows."""
    topics = (*products.VIEW.topics, *sales.VIEW.topics, *accounts.VIEW.topics, *tenants.VIEW.topics)
    return View(name=name, version=1, tables=(), topics=topics, project=project_batch, on_failure=retry_for_ever)


def retry_for_ever(error: Exception, tried: int) -> failures.Decision:
    return failures.Decision.RETRY


class Recorder:
    """A projector that remembers what it was given and does as it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[UUID, int]] = []
        self.fails_for: UUID | None = None
        self.attempts = 0
        self.failed_thrice = asyncio.Event()
        self.let_go = asyncio.Event()
        self.let_go.set()
        self.entered = asyncio.Event()

    async def __call__(self, batch: Batch, cursor: Cursor) -> None:
        self.entered.set()
        await self.let_go.wait()
        if batch.tenant_id == self.fails_for:
            self.attempts += 1
            if self.attempts > 6:  # three to find the event, and the third of it alone is in the runner's state by now
                self.failed_thrice.set()
            raise RuntimeError("cannot digest it")
        self.seen += [(batch.tenant_id, recorded.position) for recorded in batch.events]


async def test_new_events_are_shown_without_being_asked_for(
    start_process: StartProcess,
    projector: Connection,
    source: stream.Source,
    world: World,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By wakes alone: the poll comes too late for a person who waits."""
    monkeypatch.setattr(runner, "POLL_S", 10 * PATIENCE_S)
    process = await start_process()
    await process.reaches(story)
    await tell(world, story, 40, seed=2)
    await process.reaches(story)
    await assert_replay_gives_the_same(world, source, story.tenant_id)


async def test_a_view_that_wants_none_of_the_events_lets_the_others_go_first(
    start_process: StartProcess, world: World, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever waits for the view that shows them waits for the transactions of all. But not while it catches up,
    or while another tenant waits for it."""
    go_on = asyncio.Event()
    monkeypatch.setattr(worker, "give_way", go_on.wait)
    other = await tell(world, Story(ids.new_id()), 3, seed=2)
    idle = msgspec.structs.replace(view_of(Recorder(), "idle"), topics=(privacy.Erasure.PersonErased,))
    process = await start_process([idle, transactions.VIEW])
    await process.reaches(story, [transactions.VIEW])
    full_batches = story.position // 10 * 10
    await process.reached.wait(story.tenant_id, [idle.name], full_batches, PATIENCE_S)
    assert process.reached.at(story.tenant_id, idle.name) == full_batches < story.position
    await process.reaches(other, [idle])
    go_on.set()
    await process.reaches(story, [idle])


async def test_new_events_are_found_without_any_wake(start_process: StartProcess, world: World, story: Story) -> None:
    """A notification may be lost."""
    process = await start_process(wakes=Waker())
    await process.reaches(story)
    await tell(world, story, 10, seed=2)
    await process.reaches(story)


async def test_a_failing_view_is_left_alone_until_its_retry(
    start_process: StartProcess, world: World, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or each new event would try the same batch again, and a broken view take the machine."""
    monkeypatch.setattr(worker, "RETRY_S_MIN", 10 * PATIENCE_S)
    monkeypatch.setattr(worker, "RETRY_S_MAX", 10 * PATIENCE_S)
    monkeypatch.setattr(runner, "POLL_S", 0.01)
    recorder = Recorder()
    recorder.fails_for = story.tenant_id
    process = await start_process([view_of(recorder), *catalogue.VIEWS])
    for seed in (2, 3, 4):
        await tell(world, story, 10, seed=seed)
        await process.reaches(story)
    assert recorder.attempts == 4  # a batch of 10, of 5, of 2, and the event alone


async def test_a_view_that_fails_stops_no_other_view_and_no_other_tenant(
    start_process: StartProcess,
    world: World,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(worker, "RETRY_S_MIN", 0.01)
    other = await tell(world, Story(ids.new_id()), 30, seed=2)
    recorder = Recorder()
    recorder.fails_for = story.tenant_id
    failing = view_of(recorder)
    process = await start_process([failing, *catalogue.VIEWS])
    await process.reaches(story)
    await process.reaches(other, [failing, *catalogue.VIEWS])
    await asyncio.wait_for(recorder.failed_thrice.wait(), PATIENCE_S)
    (failure,) = process.run.state()[0].failures
    assert (failure.view, failure.tenant_id, failure.position) == ("recorded", story.tenant_id, 0)
    assert failure.error == "RuntimeError: cannot digest it"
    assert failure.attempts >= 3
    assert f"The view recorded of tenant {story.tenant_id} failed after position 0" in caplog.text
    assert [state.failures for state in process.run.state()[1:]] == [[] for _ in catalogue.VIEWS]

    recorder.fails_for = None
    await process.reaches(story, [failing])
    assert process.run.state()[0].failures == []
    assert sorted({p for tenant, p in recorder.seen if tenant == story.tenant_id}) == list(range(1, story.position + 1))


async def test_what_failed_leaves_no_trace(
    start_process: StartProcess, projector: Connection, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a batch in a view would be counted again by the retry."""
    monkeypatch.setattr(worker, "RETRY_S_MIN", 0.01)
    again = asyncio.Event()

    async def half(batch: Batch, cursor: Cursor) -> None:
        if process.run.state()[0].failures:
            again.set()
        await products.project(batch, cursor)
        await cursor.execute("SELECT 1/0")

    view = View(
        name="half",
        version=1,
        tables=products.VIEW.tables,
        topics=(Product.Listed,),
        project=half,
        on_failure=retry_for_ever,
    )
    process = await start_process([view, sales.VIEW])
    await process.reaches(story, [sales.VIEW])
    await asyncio.wait_for(again.wait(), PATIENCE_S)
    assert process.run.state()[0].failures[0].error == "DivisionByZero: division by zero (SQLSTATE 22012)"
    assert (await rows(projector, story.tenant_id))["products"] == []
    assert await cross_tenant.positions(projector, [(story.tenant_id, "half")]) in ([], [(story.tenant_id, "half", 0)])


async def test_two_processes_project_every_event_once(start_process: StartProcess, world: World, story: Story) -> None:
    """Also while events keep coming."""
    recorder = Recorder()
    view = view_of(recorder)
    processes = [await start_process([view], batch_events=3) for _ in range(2)]
    await tell(world, story, 60, seed=2)
    for process in processes:
        await process.reaches(story, [view])
    assert [position for _, position in recorder.seen] == list(range(1, story.position + 1))


async def test_a_tenant_with_much_to_do_does_not_hold_up_the_others(
    start_process: StartProcess, world: World, story: Story
) -> None:
    other = await tell(world, Story(ids.new_id()), 10, seed=2)
    recorder = Recorder()
    process = await start_process([view_of(recorder)], batch_events=5)
    await process.reaches(story, [view_of(recorder)])
    await process.reaches(other, [view_of(recorder)])
    turns = [tenant for tenant, _ in recorder.seen]
    assert turns.index(other.tenant_id) <= 5
    assert (
        turns[: turns.index(other.tenant_id) + 10].count(other.tenant_id) <= 5
    )  # a batch, and the first one's turn again


async def test_lost_connections_are_made_again(start_process: StartProcess, world: World, story: Story) -> None:
    process = await start_process()
    await process.reaches(story)
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'bitnexus projector'"
        )
    await tell(world, story, 20, seed=2)
    await process.reaches(story)
    assert [state.failures for state in process.run.state()] == [
        [] for _ in catalogue.VIEWS
    ]  # an outage is nobody's fault


async def test_generations_that_do_not_add_up_are_waited_for_and_said(
    start_process: StartProcess, world: World, story: Story, projector: Connection
) -> None:
    """Somebody's hands left the rows of a view's generations so. A process that tried again at once would do nothing else."""
    process = await start_process([products.VIEW, sales.VIEW])
    await process.reaches(story, [products.VIEW, sales.VIEW])
    fed = "UPDATE views.positions SET fed = %s WHERE view = 'products'"
    await projector.execute(fed, (2,))
    await tell(world, story, 10, seed=2)
    await process.reaches(story, [sales.VIEW])
    async with asyncio.timeout(PATIENCE_S):
        while not process.run.state()[0].failures:  # noqa: ASYNC110  another task's doing
            await asyncio.sleep(0.01)
    (failure,) = process.run.state()[0].failures
    assert "have just changed" in failure.error
    assert failure.retry_at is not None
    (lag,) = await cross_tenant.lag(projector, ["products"], [story.tenant_id])
    assert (lag.failure is not None and "Changed" in lag.failure, lag.stopped, lag.parked) == (True, False, 0)
    await projector.execute(fed, (1,))
    await process.reaches(story, [products.VIEW])
    assert process.run.state()[0].failures == []


async def test_closing_finishes_the_batch_in_flight(start_process: StartProcess, world: World, story: Story) -> None:
    recorder = Recorder()
    recorder.let_go.clear()
    process = await start_process([view_of(recorder)], batch_events=7)
    await recorder.entered.wait()
    closing = asyncio.create_task(process.run.close())
    await asyncio.sleep(0)
    recorder.let_go.set()
    await closing
    assert process.reached.at(story.tenant_id, "recorded") == 7
    assert len(recorder.seen) == 7


async def test_a_batch_that_never_ends_does_not_hold_up_the_closing(
    start_process: StartProcess, projector: Connection, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CLOSE_S_MAX", 0.05)
    recorder = Recorder()
    recorder.let_go.clear()
    process = await start_process([view_of(recorder)])
    await recorder.entered.wait()
    await process.run.close()
    assert recorder.seen == []
    assert await cross_tenant.positions(projector, [(story.tenant_id, "recorded")]) == [
        (story.tenant_id, "recorded", 0)
    ]


async def test_killed_projectors_leave_the_views_right(
    start_process: StartProcess, projector: Connection, source: stream.Source, world: World, story: Story
) -> None:
    """kill -9 in the middle of the stream, again and again, by turns of a few batches."""
    await tell(world, story, 300, seed=2)
    reached = 0
    for kill in range(KILLS):
        command = (sys.executable, "-m", "tests.projections.run_projector", world.database.app_url, "4")
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(5 + 3 * kill):
            position = int(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S))
            assert position >= reached  # the first one is where it was found
            reached = position
        process.kill()
        await process.communicate()
    assert reached < story.position  # it was killed with work left
    last = await start_process()
    await last.reaches(story)
    summary = await sales_of(world, story)
    assert summary == story.sums()
    await assert_replay_gives_the_same(world, source, story.tenant_id)


async def sales_of(world: World, story: Story) -> dict[tuple[object, str], tuple[int, int, int]]:
    async with await connections.connect(world.database.app_url, "app") as connection:
        summary = await sales.summary(connection, story.tenant_id, None, None)
    return {(row.day, row.currency): (row.count, row.gross_minor, row.refunded_minor) for row in summary.rows}
