"""`bitnexus serve` under commands over HTTP while it, its database or their connections go away: what was answered stands, once."""

import asyncio
import os
import random
import signal
import tempfile
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from bitnexus.embedded import Embedded, cluster
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.faults.proxy import Proxy
from tests.faults.site import Site
from tests.faults.test_disk_full import log_of
from tests.faults.traffic import PATIENCE_S, POLL_S, Traffic
from tests.world import Database

KILLS = 3
DATABASE_STOPS = 4
TERMINATIONS = 25
CUTS = 60
BETWEEN_MAX = 150
"""Commands acknowledged from one fault to the next, at most: about half a second of these clients."""
DOWN_S_MAX = 1.5
"""How long the database stays away, at most, beside the second that it takes to start."""
AMIDST_S_MAX = 0.02
"""After the last acknowledgement that was waited for, so that a fault hits every phase of a flush."""


async def test_a_killed_process_loses_and_doubles_nothing(bitnexus: CommandLine, tmp_path: Path) -> None:
    """Its clients send again what was not answered, to the process that takes its place."""
    chosen, killed_at = random.Random(11), []
    async with Site(bitnexus, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
        for _ in range(KILLS):
            await traffic.acknowledges(chosen.randint(1, BETWEEN_MAX))
            await asyncio.sleep(chosen.random() * AMIDST_S_MAX)
            await site.kill()
            killed_at.append(len(traffic.acknowledged))
            await site.start()
        await traffic.acknowledges(BETWEEN_MAX)
        await traffic.finish()
        await traffic.assert_stands(bitnexus, f"serve killed at {killed_at} acknowledged")
        assert traffic.unanswered >= KILLS


async def test_a_restarted_database_loses_and_doubles_nothing(
    bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """The process waits for it and goes on by itself; what it cannot answer is a 503, and no connection of a client breaks."""
    chosen, stopped_at = random.Random(12), []
    async with Site(bitnexus, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
        for _ in range(DATABASE_STOPS):
            await traffic.acknowledges(chosen.randint(1, BETWEEN_MAX))
            await asyncio.sleep(chosen.random() * AMIDST_S_MAX)
            stop_at_once(embedded)
            stopped_at.append(len(traffic.acknowledged))
            await asyncio.sleep(chosen.random() * DOWN_S_MAX)
            await asyncio.to_thread(embedded.start)
        await traffic.acknowledges(BETWEEN_MAX)
        await traffic.finish()
        await traffic.assert_stands(bitnexus, f"database stopped at {stopped_at} acknowledged")
        assert traffic.unanswered == 0
        assert site.runs


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_killed_database_is_started_again_and_nothing_is_lost_or_doubled(
    bitnexus: CommandLine, embedded: Embedded, tmp_path: Path, workers: int
) -> None:
    """Nobody else starts it: whoever runs `bitnexus serve` on a machine of their own is not there at night.

    Each kill costs exactly one start of PostgreSQL, and the process tells of each that it is gone. "Runs again" may come less
    often, as a server answers commands a moment before whoever starts it has looked: killed in between, it is started again
    by the same attempt, or that attempt is told to have failed and the next one succeeds.
    """
    chosen, killed_at, killed = random.Random(15), [], set[int]()
    async with Site(bitnexus, tmp_path / "serve.log", workers) as site, Traffic(site.url) as traffic:
        for _ in range(KILLS):
            await another_runs(embedded, killed)  # of the one before, what was under way may still be answered
            await traffic.acknowledges(chosen.randint(1, BETWEEN_MAX))
            await asyncio.sleep(chosen.random() * AMIDST_S_MAX)
            killed.add(kill(embedded))
            killed_at.append(len(traffic.acknowledged))
        await another_runs(embedded, killed)
        await traffic.acknowledges(BETWEEN_MAX)
        await traffic.finish()
        await traffic.assert_stands(bitnexus, f"database killed at {killed_at} acknowledged, {workers} workers")
        assert traffic.unanswered == 0
        assert site.runs
        assert len(killed) == KILLS
        assert log_of(embedded).count("starting PostgreSQL") == 1 + KILLS
        told = {word: site.log().count(f"PostgreSQL {word}") for word in ("is gone", "runs again", "does not start")}
        assert told["is gone"] == told["runs again"] + told["does not start"]
        assert 1 <= told["runs again"] <= KILLS


async def another_runs(embedded: Embedded, killed: set[int]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while cluster.pid(embedded.data_dir) in {None, *killed}:  # noqa: ASYNC110  another process starts it
            await asyncio.sleep(POLL_S)


def kill(embedded: Embedded) -> int:
    """kill -9 of the postmaster, whose children end by themselves. Its pid."""
    pid = cluster.pid(embedded.data_dir)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def stop_at_once(embedded: Embedded) -> None:
    """As `pg_ctl stop -m immediate`: no checkpoint, so the next start recovers."""
    pid = cluster.pid(embedded.data_dir)
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)


@pytest.fixture
def database(shop_database: Database) -> Database:
    """With the tenant `shop`."""
    return shop_database


@pytest.fixture
def shop(database: Database) -> CommandLine:
    """On a server that somebody else runs."""
    return commandline.on(database)


async def test_terminated_backends_lose_and_double_nothing(
    shop: CommandLine, database: Database, tmp_path: Path
) -> None:
    """All of the process's connections at once, as a failover or an administrator does."""
    chosen, terminated = random.Random(13), 0
    async with Site(shop, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
        for _ in range(TERMINATIONS):
            await traffic.acknowledges(chosen.randint(1, BETWEEN_MAX // 5))
            await asyncio.sleep(chosen.random() * AMIDST_S_MAX)
            terminated += await terminate_all(database)
        await traffic.acknowledges(BETWEEN_MAX)
        await traffic.finish()
        await traffic.assert_stands(shop, f"{terminated} backends terminated in {TERMINATIONS} times")
        assert traffic.unanswered == 0
        assert terminated >= TERMINATIONS
        assert site.runs


async def terminate_all(database: Database) -> int:
    async with await AsyncConnection.connect(database.owner_url) as owner:
        cursor = await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (database.name,),
        )
        return len(await cursor.fetchall())


async def test_connections_cut_between_send_and_answer_lose_and_double_nothing(
    shop: CommandLine, database: Database, tmp_path: Path
) -> None:
    """Whichever of the process's connections sends next: the appender's, a reader's, a projector's."""
    chosen = random.Random(14)
    # Not pytest's directory: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cut-") as directory:
        async with Proxy(database.app_url, Path(directory), chosen) as proxy:
            behind = CommandLine(**shop.environment, DATABASE_APP_URL=proxy.url)
            async with Site(behind, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
                while proxy.cuts < CUTS:
                    proxy.arm()
                    await traffic.acknowledges(chosen.randint(1, BETWEEN_MAX // 15))
                await traffic.finish()
                await traffic.assert_stands(behind, f"{proxy.cuts} connections cut")
                assert traffic.unanswered == 0
                assert site.runs
