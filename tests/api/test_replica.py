"""Queries on a real streaming replica: what they show while it keeps up, lags, is silent, is killed, and is back."""

import asyncio
import base64
import dataclasses
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio

from api.app import create_app
from api.parts import Parts
from bitnexus import database as connections
from migrations import runner
from projections import replica, rows
from projections.replica import Replica
from tests import replica as servers
from tests.api.house import PATIENCE_S, House, Served
from tests.world import MASTER, World


@pytest.fixture(scope="session")
def pair() -> Iterator[tuple[servers.Server, servers.Server]]:
    with servers.pair() as made:
        yield made


@pytest.fixture(scope="session")
def server(pair: tuple[servers.Server, servers.Server]) -> str:
    """These tests' databases are on a primary of their own."""
    return pair[0].url


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """Of that primary, which goes with it."""
    name = "test_template"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    runner.migrate(
        psycopg.conninfo.make_conninfo(server, dbname=name), login_password=connections.login_password(MASTER)
    )
    return name


@pytest.fixture
def copy(pair: tuple[servers.Server, servers.Server]) -> servers.Server:
    return pair[1]


@pytest_asyncio.fixture
async def reading(world: World, copy: servers.Server) -> AsyncIterator[Replica]:
    url = connections.replica_url(f"postgresql://?host={copy.folder}", world.database.app_url)
    async with replica.running(
        connections.pool(url, "app", 4),
        connections.connector(url, "app"),
        connections.connector(url, "projector"),
        connections.connector(world.database.app_url, "app"),
    ) as made:
        yield made


async def comes_to(reading: Replica, state: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while reading.state != state:  # noqa: ASYNC110  nothing tells of it but the log
            await asyncio.sleep(0.02)


class NoPrimary(rows.Rows):
    """Says so if a query comes to it."""

    def find(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the primary was asked")

    page = find


@pytest_asyncio.fixture
async def both(parts: Parts, reading: Replica) -> AsyncIterator[Served]:
    """Queries read the replica, and the primary if they must."""
    app = create_app(dataclasses.replace(parts, replica=reading))
    served = Served(app, parts)
    async with served.client:
        yield served
    await app.state.feed.close()


async def sell(served: Served, a: House) -> tuple[str, dict[str, str]]:
    """Path and position of a new sale."""
    sold = await served.post(a.admin, "/transactions", {"lines": [{"sku": "MUG", "quantity": 1}]})
    assert sold.status_code == 201
    return f"/transactions/{sold.json()['data']['id']}", {"X-Position": sold.headers["X-Position"]}


async def shows(served: Served, a: House) -> None:
    """A sale, and then every list and sum, with what has just been done."""
    path, position = await sell(served, a)
    for each in (path, "/transactions", "/transactions/summary", "/products", "/refunds"):
        found: httpx.Response = await served.get(a.admin, each, headers=position)
        assert found.status_code == 200, found.text
        assert int(found.headers["X-Position"]) >= int(position["X-Position"])
    assert (await served.get(a.admin, path)).status_code == 200


async def test_queries_read_the_replica_and_show_what_was_asked_for(
    both: Served, reading: Replica, parts: Parts, a: House, b: House, copy: servers.Server
) -> None:
    await a.lists()
    await comes_to(reading, "in use")
    await shows(both, a)
    nobody = NoPrimary(connections.connector("", "app"))
    app = create_app(dataclasses.replace(parts, replica=reading, rows=nobody))
    async with Served(app, parts).client as client:
        for _ in range(5):
            path, position = await sell(both, a)
            found = await client.get(f"/api/v1{path}", headers={**a.admin.headers, **position})
            assert found.status_code == 200, found.text
            page = await client.get("/api/v1/transactions?limit=1", headers={**a.admin.headers, **position})
            assert page.json()["data"][0]["id"] == found.json()["data"]["id"]
            assert (await client.get(f"/api/v1{path}", headers=b.admin.headers)).status_code == 404
    await app.state.feed.close()


async def test_the_login_role_sees_no_tenant_on_the_replica_either_unless_it_is_set(
    both: Served, reading: Replica, a: House, world: World, copy: servers.Server
) -> None:
    await a.lists()
    await comes_to(reading, "in use")
    await shows(both, a)
    url = connections.replica_url(f"postgresql://?host={copy.folder}", world.database.app_url)
    async with await connections.connect(url, "app") as connection:
        for table in ("transactions", "products", "positions"):
            cursor = await connection.execute(f"SELECT count(*) FROM views.{table}".encode())
            assert await cursor.fetchone() == (0,)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(psycopg.conninfo.make_conninfo(url, password="another"))


async def test_a_replica_that_lags_is_passed_over_until_it_has_caught_up(
    both: Served, reading: Replica, a: House, copy: servers.Server, caplog: pytest.LogCaptureFixture
) -> None:
    await a.lists()
    await comes_to(reading, "in use")
    caplog.set_level(logging.INFO, logger="projections.replica")
    copy.execute("SELECT pg_wal_replay_pause()")
    try:
        begun = time.monotonic()
        while reading.in_use:  # each of these waits for the replica, a little, and is answered by the primary
            await shows(both, a)
            assert time.monotonic() - begun < 3 * PATIENCE_S
        assert reading.state == "behind"
        await shows(both, a)
    finally:
        copy.execute("SELECT pg_wal_replay_resume()")
    await comes_to(reading, "in use")
    await shows(both, a)
    said = [record.getMessage() for record in caplog.records if record.name == replica.__name__]
    assert len(said) == 2
    assert said[0].startswith("Queries read the primary, the replica is behind: it is 2.")
    assert said[1] == "Queries read the replica: it keeps up"


async def test_a_replica_that_is_killed_costs_nobody_an_answer_and_is_used_again(
    both: Served, reading: Replica, a: House, copy: servers.Server, caplog: pytest.LogCaptureFixture
) -> None:
    await a.lists()
    path, position = await sell(both, a)
    await comes_to(reading, "in use")
    caplog.set_level(logging.INFO, logger="projections.replica")
    stop = asyncio.Event()

    async def keeps_asking() -> int:
        answers = 0
        while not stop.is_set():
            assert (await both.get(a.admin, path, headers=position)).status_code == 200
            assert (await both.get(a.admin, "/products")).status_code == 200
            answers += 1
        return answers

    asking = [asyncio.create_task(keeps_asking()) for _ in range(4)]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(copy.kill)
    await comes_to(reading, "away")
    await shows(both, a)
    await asyncio.to_thread(copy.start)
    await comes_to(reading, "in use")
    stop.set()
    assert all(await asyncio.gather(*asking))
    said = [record.getMessage() for record in caplog.records if record.name == replica.__name__]
    assert "the replica is away" in said[0]
    assert "read the replica" in said[-1]
    assert len(said) <= 3  # it may be behind for a moment when it is back; nothing was said for each query


async def test_a_replica_that_says_nothing_holds_a_query_up_for_a_second_at_the_most(
    both: Served, reading: Replica, a: House, copy: servers.Server
) -> None:
    await a.lists()
    await comes_to(reading, "in use")
    copy.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        answers = await asyncio.gather(*(both.get(a.admin, "/products") for _ in range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        assert time.monotonic() - begun < 3 * replica.ANSWER_S_MAX
        assert reading.state == "away"
    finally:
        copy.signal(signal.SIGCONT)
    await comes_to(reading, "in use")
    await shows(both, a)


async def test_what_is_no_replica_is_never_read(world: World, a: House, caplog: pytest.LogCaptureFixture) -> None:
    """It may have been made a primary of its own, and know nothing of what happens here."""
    url = world.database.app_url
    connect = connections.connector(url, "app")
    async with replica.running(
        connections.pool(url, "app", 1), connect, connections.connector(url, "projector"), connect
    ) as made:
        await asyncio.sleep(3 * replica.LOOK_S)
        assert made.state == "away"


async def test_a_serving_process_reads_the_replica_that_it_is_told_of(
    world: World, copy: servers.Server, tmp_path: Path
) -> None:
    """Also its workers, which get their settings from it, and find their code where this test finds it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DATABASE_URL": world.database.owner_url,
        "DATABASE_REPLICA_URL": f"postgresql://?host={copy.folder}",
        "BITNEXUS_MASTER_KEY": base64.b64encode(bytes(range(32))).decode(),
    }
    command = ("-m", "bitnexus", "serve", "--json", "--port", "0", "--workers", "2", "--data-dir", str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = 0
            while said < 2:
                said += b"Queries read the replica: it keeps up" in await process.stderr.readline()
            announced = json.loads(await process.stdout.readuntil(b"\n}\n"))
            async with httpx.AsyncClient(base_url=announced["url"], trust_env=False) as client:
                metrics = (await client.get("/metrics")).text
            pools = set(re.findall(r'^bitnexus_pool_waiting{pool="(\w+)"}', metrics, re.MULTILINE))
            assert pools == {"app", "projector", "platform", "replica"}  # whoever waits for one of them is seen
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
