"""Sharing the work: whoever comes takes its share, whoever goes or stands still is replaced, and nothing is written late."""

import asyncio
import os
import signal
import sys
import time
from asyncio import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
import psycopg
import pytest

from bitnexus import database as connections
from ledger import ids
from projections import catalogue, generations, leases, products, sales, stream
from projections.view import View
from tests.bitnexus import commandline
from tests.projections.conftest import (
    PATIENCE_S,
    Connection,
    Process,
    StartProcess,
    assert_replay_gives_the_same,
)
from tests.projections.story import Story, tell
from tests.world import Database, World

TAKEN_OVER_S_MAX = 3 * 10.0
"""Promised are 10 s."""
PAUSED_S = 30.0 if os.environ.get("CI") == "true" else 0.0
"""How long a process stands still at least, once: elsewhere until somebody else has taken its work over, some 6 s."""
ALL = leases.BUCKETS * len(catalogue.VIEWS)


async def shares(process: Process, expected: range) -> None:
    """Waits until the process holds as many leases."""
    async with asyncio.timeout(PATIENCE_S):
        while process.run.leases not in expected:  # noqa: ASYNC110  a number that others change
            await asyncio.sleep(0.02)


async def test_whoever_comes_takes_a_share_and_whoever_goes_leaves_it(start_process: StartProcess) -> None:
    first = await start_process()
    await shares(first, range(ALL, ALL + 1))
    second, third = await start_process(), await start_process()
    third_of_all = range(84 * len(catalogue.VIEWS), 86 * len(catalogue.VIEWS) + 1)
    for each in (first, second, third):
        await shares(each, third_of_all)
    await third.run.close()
    for each in (first, second):
        await shares(each, range(ALL // 2, ALL // 2 + 1))
    await second.run.close()
    await shares(first, range(ALL, ALL + 1))


async def test_an_idle_process_asks_little(start_process: StartProcess, world: World) -> None:
    """1,024 leases must not be 1,024 statements."""
    process = await start_process()
    await shares(process, range(ALL, ALL + 1))

    def commits() -> int:
        with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
            owner.execute("SELECT pg_stat_clear_snapshot()")
            row = owner.execute(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            ).fetchone()
        assert row is not None
        return int(row[0])

    await asyncio.sleep(1.5)  # what was done before is counted by then
    before = commits()
    await asyncio.sleep(3.0)
    assert commits() - before <= 3 * 3 * 5


async def hold(connection: Connection, held: leases.Leases, view: View, tenant_id: UUID) -> int | None:
    await held.beat(connection)
    return held.token(view.name, tenant_id)


async def test_a_dead_processs_leases_are_taken_with_higher_tokens(projector: Connection) -> None:
    tenant_id = ids.new_id()
    dead, alive = (leases.Leases(ids.new_id(), [products.VIEW]) for _ in range(2))
    first = await hold(projector, dead, products.VIEW, tenant_id)
    assert first is not None
    assert await alive.beat(projector) is False  # the other one has to let go first
    await projector.execute(
        "UPDATE views.processes SET expires_at = now() - interval '1 s' WHERE process_id = %s", (dead.process_id,)
    )
    second = await hold(projector, alive, products.VIEW, tenant_id)
    assert second == first + 1
    assert alive.held() == leases.BUCKETS
    await dead.beat(projector)  # it was only slow
    assert dead.token(products.VIEW.name, tenant_id) is None
    await alive.beat(projector)
    await dead.beat(projector)
    assert (alive.held(), dead.held()) == (leases.BUCKETS // 2, leases.BUCKETS // 2)


async def move(connection: Connection, step: generations.Step) -> int:
    return len(await generations.move(connection, step))


@pytest.mark.parametrize("by", [move, generations.move_alone])
async def test_a_batch_with_an_old_token_is_refused(
    projector: Connection, story: Story, by: Callable[[Connection, generations.Step], Awaitable[int]]
) -> None:
    """The position may still be what the late process thinks. Also if the view wants none of the events."""
    await generations.begin(projector, "products", 1, story.tenant_id)
    late, alive = (leases.Leases(ids.new_id(), [products.VIEW]) for _ in range(2))
    old = await hold(projector, late, products.VIEW, story.tenant_id)
    await late.leave(projector)
    new = await hold(projector, alive, products.VIEW, story.tenant_id)
    assert old is not None
    assert new is not None
    bucket = leases.bucket(story.tenant_id)
    newer = "UPDATE views.positions SET version = %s WHERE tenant_id = %s"

    async def moved(token: int, after: int) -> int:
        return await by(projector, generations.Step("products", 1, story.tenant_id, after, after + 10, bucket, token))

    assert await moved(old, 0) == 0
    assert await moved(new, 5) == 0  # nor from where the view is not
    await projector.execute(newer, (2, story.tenant_id))
    assert await moved(new, 0) == 0  # nor what a newer release has begun
    await projector.execute(newer, (1, story.tenant_id))
    assert await moved(new, 0) == 1
    assert await moved(new, 0) == 0  # nor a second time


async def test_a_view_that_is_being_rebuilt_is_moved_in_all_its_generations_or_not_at_all(
    projector: Connection, story: Story
) -> None:
    """Or they would never stand at one position again, and the rebuild could not be switched to."""
    await generations.begin(projector, "products", 1, story.tenant_id)
    held = leases.Leases(ids.new_id(), [products.VIEW])
    token = await hold(projector, held, products.VIEW, story.tenant_id)
    assert token is not None
    await projector.execute(
        "INSERT INTO views.positions (tenant_id, view, generation, version, position, state)"
        " VALUES (%s, 'products', 2, 1, 0, 'ready')",
        (story.tenant_id,),
    )
    await generations.set_fed(projector, "products", story.tenant_id, 2)
    step = generations.Step("products", 1, story.tenant_id, 0, 10, leases.bucket(story.tenant_id), token)
    assert not await generations.move_alone(projector, step)
    assert await move(projector, step) == 2
    assert {each.position for each in await generations.all_of(projector, "products", story.tenant_id)} == {10}


async def test_a_newer_release_takes_the_view_from_an_older_one(projector: Connection) -> None:
    """While a deployment goes on both are there; the older code must not write what the newer one begins."""
    tenant_id = ids.new_id()
    newer_view = msgspec.structs.replace(products.VIEW, version=3)
    older = leases.Leases(ids.new_id(), [products.VIEW, sales.VIEW])
    newer = leases.Leases(ids.new_id(), [newer_view, sales.VIEW])
    for _ in range(2):
        for each in (older, newer):
            await each.beat(projector)
    assert (older.token("products", tenant_id), newer.token("products", tenant_id)) != (None, None)
    assert older.token("products", tenant_id) is None
    assert older.held() == newer.held() - leases.BUCKETS == leases.BUCKETS // 2


async def test_a_process_that_cannot_beat_stops_believing_in_its_leases(
    projector: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    monkeypatch.setattr(leases, "MARGIN_S", 0.9)
    held, tenant_id = leases.Leases(ids.new_id(), [products.VIEW]), ids.new_id()
    assert await hold(projector, held, products.VIEW, tenant_id) is not None
    await asyncio.sleep(0.15)
    assert held.token(products.VIEW.name, tenant_id) is None


@asynccontextmanager
async def projector_process(app_url: str, *words: object) -> AsyncIterator[subprocess.Process]:
    command = (sys.executable, "-m", "tests.projections.run_projector", app_url, *map(str, words))
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.communicate()


async def says(process: subprocess.Process, *words: str) -> str:
    """The first line that is one of the words."""
    assert process.stdout is not None
    while True:
        line = (await asyncio.wait_for(process.stdout.readline(), 2 * PATIENCE_S)).decode().strip()
        assert line, (await process.communicate())[1].decode()
        if line in words:
            return line


@pytest.mark.parametrize("moment", ["before", "within"])
async def test_a_paused_process_is_replaced_and_its_late_write_is_refused(
    start_process: StartProcess, world: World, source: stream.Source, story: Story, moment: str
) -> None:
    """SIGSTOP right before a batch of sums, or in the middle of its transaction; counted twice they would be wrong."""
    async with projector_process(world.database.app_url, 10, moment, 20) as paused:
        await says(paused, "stopped")
        begun = time.monotonic()
        other = await start_process()
        await other.reached.wait(story.tenant_id, ["sales"], story.position, TAKEN_OVER_S_MAX)
        print(f"paused {moment} its batch: taken over after {time.monotonic() - begun:.1f} s")
        paused.send_signal(signal.SIGCONT)
        if moment == "before":
            assert await says(paused, "refused", "went on") == "refused"
        await tell(world, story, 20, seed=2)  # both go on together
        await other.reaches(story)
        summary_is_right = await sums_of(world, story)
        assert summary_is_right == story.sums()
    await assert_replay_gives_the_same(world, source, story.tenant_id)


async def test_a_paused_processs_late_write_is_refused_though_nobody_has_written_since(
    start_process: StartProcess, world: World, source: stream.Source, story: Story, projector: Connection
) -> None:
    """The position is where it left it: nothing but the token tells that the work is another's by now."""
    heir = leases.Leases(ids.new_id(), catalogue.VIEWS)
    async with projector_process(world.database.app_url, 10, "before", 20) as paused:
        await says(paused, "stopped")
        begun = time.monotonic()
        async with asyncio.timeout(TAKEN_OVER_S_MAX):
            while await hold(projector, heir, sales.VIEW, story.tenant_id) is None:  # noqa: ASYNC110  the database's clock
                await asyncio.sleep(leases.BEAT_S / 4)
        while time.monotonic() < begun + PAUSED_S:
            await heir.beat(projector)
            await asyncio.sleep(leases.BEAT_S)
        before = await generations.all_of(projector, "sales", story.tenant_id)
        paused.send_signal(signal.SIGCONT)
        assert await says(paused, "refused", "went on") == "refused"
        assert await generations.all_of(projector, "sales", story.tenant_id) == before
        await heir.leave(projector)
        other = await start_process()
        await other.reaches(story)
    assert await sums_of(world, story) == story.sums()
    await assert_replay_gives_the_same(world, source, story.tenant_id)


async def test_a_killed_processs_work_goes_on(start_process: StartProcess, world: World, story: Story) -> None:
    """kill -9, with the leases as long as they really are."""
    async with projector_process(world.database.app_url, 10, "before", 20) as killed:
        await says(killed, "stopped")
        other = await start_process()
        begun = time.monotonic()
        killed.kill()
        await other.reached.wait(
            story.tenant_id, [view.name for view in catalogue.VIEWS], story.position, TAKEN_OVER_S_MAX
        )
        print(f"killed: taken over after {time.monotonic() - begun:.1f} s")
    assert await sums_of(world, story) == story.sums()


async def test_a_tenant_with_much_to_do_leaves_the_others_their_two_seconds(
    start_process: StartProcess, world: World, story: Story
) -> None:
    """While one catches up, the other one's events are shown as they come."""
    other = await tell(world, Story(ids.new_id()), 5, seed=2)
    await tell(world, story, 2_000, seed=3)
    process = await start_process(batch_events=20)
    await process.reaches(other)
    waited: list[float] = []
    while process.reached.at(story.tenant_id, "sales") < story.position:
        await tell(world, other, 3, seed=len(waited) + 4)
        begun = time.monotonic()
        await process.reaches(other)
        waited.append(time.monotonic() - begun)
    assert waited
    assert max(waited) < 3 * 2.0


async def test_a_process_that_only_projects(database: Database, world: World, story: Story) -> None:
    """`bitnexus project`, beside whoever serves."""
    process = commandline.on(database).start("project", "--json")
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await sums_of(world, story) != story.sums():  # noqa: ASYNC110  another process's doing
                await asyncio.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "pid" in said) == (0, True), errors
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        left = owner.execute("SELECT count(*) FROM views.leases WHERE holder IS NOT NULL").fetchone()
    assert left == (0,)


async def sums_of(world: World, story: Story) -> dict[tuple[object, str], tuple[int, int, int]]:
    async with await connections.connect(world.database.app_url, "app") as connection:
        summary = await sales.summary(connection, story.tenant_id, None, None)
    return {(row.day, row.currency): (row.count, row.gross_minor, row.refunded_minor) for row in summary.rows}
