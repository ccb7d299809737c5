"""Sockets and tickets over real processes, while what wakes them is cut, or one of them is killed: nobody misses anything."""

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg import AsyncConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.api.house import Person
from tests.api.socket.talk import Talk, talk
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.faults.site import Site
from tests.world import Database

ROOT = Path(__file__).parents[2]
POLLED_S = 2.0
"""What is promised of what no wake told."""
HEARD_S_MAX = 3 * POLLED_S
"""For a machine that does much else."""
GONE_S = 10.0
"""Promised of who was there by a process that was killed."""
PATIENCE_S = 60.0
CLIENTS = 12
CUT_EACH_S = 0.05
"""The process opens its listening connection again after a second."""
LISTENING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query LIKE 'LISTEN %%' AND state = 'idle'"
    " AND backend_type = 'client backend'"
)


@pytest.fixture
def shop(database: Database) -> CommandLine:
    # Workers import what is installed, unless they are told where else.
    made = commandline.on(database, PYTHONPATH=str(ROOT))
    commandline.create_shop(made)
    return made


class Admin:
    """Over HTTP at one process; what could not be answered is sent again under the same key."""

    def __init__(self, client: httpx.AsyncClient, person: Person, tenant_id: str) -> None:
        self._client = client
        self.person = person
        self.tenant_id = tenant_id

    async def lists(self, sku: str) -> None:
        headers = {**self.person.headers, "Idempotency-Key": str(uuid.uuid4())}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    body = {"sku": sku, "name": "Mug", "price": "9.00"}
                    answer = await self._client.post("/products", json=body, headers=headers)
                    assert answer.status_code == 201, answer.text
                    return
                await asyncio.sleep(0.05)

    async def ask(self, method: str, path: str) -> Any:
        answer = await self._client.request(method, path, headers=self.person.headers)
        assert answer.is_success, answer.text
        return answer.json()["data"]


@contextlib.asynccontextmanager
async def admin(site: Site) -> AsyncIterator[Admin]:
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1", trust_env=False, timeout=30) as client:
        body = {"email": "admin@shop.example", "password": "correct horse", "tenant": "shop"}
        data = (await client.post("/auth/login", json=body)).json()["data"]
        user = data["user"]
        person = Person(user["id"], user["email"], user["role"], data["access_token"])
        yield Admin(client, person, user["tenant_id"])


async def next_sku(socket: Talk) -> str:
    _, _, _, event, payload = await socket.hear()
    assert event == "product_listed"
    sku: str = payload["sku"]
    return sku


# The listening connection


async def listeners(owner: AsyncConnection[Any], database: Database) -> set[int]:
    return {pid for (pid,) in await (await owner.execute(LISTENING, (database.name,))).fetchall()}


async def cut(owner: AsyncConnection[Any], database: Database, spared: set[int], cuts: list[int]) -> None:
    """Again and again: it must not come back meanwhile."""
    while True:
        for pid in await listeners(owner, database) - spared:
            await owner.execute("SELECT pg_terminate_backend(%s)", (pid,))
            cuts.append(pid)
        await asyncio.sleep(CUT_EACH_S)


async def test_a_process_that_is_told_nothing_finds_what_another_recorded_by_looking(
    shop: CommandLine, database: Database, tmp_path: Path
) -> None:
    """Its listening connection is killed; what it is not told it tells within two seconds nevertheless, in order, all of it."""
    owner = await AsyncConnection.connect(database.owner_url, autocommit=True)
    async with (
        owner,
        Site(shop, tmp_path / "one.log") as one,
        admin(one) as here,
    ):
        spared = await listeners(owner, database)
        assert len(spared) == 1
        async with Site(shop, tmp_path / "two.log") as two, talk(two.url, here.person) as socket:
            assert (await socket.join(f"tenant:{here.tenant_id}"))["status"] == "ok"
            await here.lists("TOLD")
            assert await next_sku(socket) == "TOLD"
            cuts: list[int] = []
            cutting = asyncio.create_task(cut(owner, database, spared, cuts))
            while not cuts:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(CUT_EACH_S)
            for n in range(5):
                await here.lists(f"FOUND{n}")
                recorded_at = time.monotonic()
                assert await next_sku(socket) == f"FOUND{n}"
                assert time.monotonic() - recorded_at < HEARD_S_MAX
            cutting.cancel()
            await asyncio.gather(cutting, return_exceptions=True)
            for n in range(5):
                await here.lists(f"AGAIN{n}")
            assert [await next_sku(socket) for _ in range(5)] == [f"AGAIN{n}" for n in range(5)]


# A killed worker


class Follower:
    """A client that comes back by itself, from after the last message that it had."""

    def __init__(self, url: str, person: Person, topic: str) -> None:
        self._url, self._person, self._topic = url, person, topic
        self._last: str | None = None
        self.joined = asyncio.Event()
        self.skus: list[str] = []
        self.lost = 0

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                await self._listen()
            self.lost += 1
            await asyncio.sleep(0.05)

    async def _listen(self) -> None:
        async with talk(self._url, self._person) as socket:
            joined = await socket.join(self._topic, payload={} if self._last is None else {"from": self._last})
            assert joined["status"] == "ok", joined
            self._last = self._last or joined["response"]["position"]
            self.joined.set()
            with contextlib.suppress(ConnectionClosed):
                async for message in socket.socket:
                    _, _, _, event, payload = json.loads(message)
                    if event == "phx_error":  # the views wait for the dead worker's lease: join again
                        return
                    assert event == "product_listed"
                    self.skus.append(payload["sku"])
                    self._last = payload["position"]


def workers(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def connections(pid: int) -> int:
    """How many clients are connected to it: the database is at a socket of Unix."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = {f"socket:[{row[9]}]" for row in rows if row[3] == "01"}
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(each) in established
    return found


async def test_clients_of_a_killed_worker_come_back_and_miss_nothing(shop: CommandLine, tmp_path: Path) -> None:
    """kill -9 of the one of two workers that has most of them, amidst commands."""
    async with Site(shop, tmp_path / "serve.log", workers=2) as site, admin(site) as here:
        followers = [Follower(site.url, here.person, f"tenant:{here.tenant_id}") for _ in range(CLIENTS)]
        running = [asyncio.create_task(each.run()) for each in followers]
        try:
            async with asyncio.timeout(PATIENCE_S):
                for each in followers:
                    await each.joined.wait()
            listed = [f"S{n}" for n in range(30)]
            before = workers(site.announced["pid"])
            assert len(before) == 2
            for n, sku in enumerate(listed):
                if n == 10:
                    os.kill(max(before, key=connections), signal.SIGKILL)
                await here.lists(sku)
            async with asyncio.timeout(PATIENCE_S):
                while any(each.skus[-1:] != listed[-1:] for each in followers):  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.02)
            assert [each.skus for each in followers] == [listed] * CLIENTS
            assert sum(each.lost > 0 for each in followers) >= CLIENTS // 2
            async with asyncio.timeout(PATIENCE_S):
                while len(workers(site.announced["pid"])) < 2:  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.02)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def holders(owner: AsyncConnection[Any]) -> dict[uuid.UUID, int]:
    """How many leases each process has that has shown itself in the last hour and has not let go of them."""
    rows = await owner.execute(
        "SELECT p.process_id, count(l.bucket) FROM views.processes p LEFT JOIN views.leases l ON l.holder = p.process_id"
        " GROUP BY p.process_id"
    )
    return dict(await rows.fetchall())


async def test_a_killed_workers_views_are_anothers_at_once(
    shop: CommandLine, database: Database, tmp_path: Path
) -> None:
    """As long as its leases run, 6 s, nothing new of half of the tenants is shown or told."""
    owner = await AsyncConnection.connect(database.owner_url, autocommit=True)
    async with owner, Site(shop, tmp_path / "serve.log", workers=2) as site, asyncio.timeout(PATIENCE_S):
        while len(before := await holders(owner)) != 2 or len(set(before.values())) != 1:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
        os.kill(workers(site.announced["pid"])[0], signal.SIGKILL)
        # Whose leases run out stays there for an hour.
        while before.keys() <= (await holders(owner)).keys():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
        while sum((await holders(owner)).values()) != sum(before.values()):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)


class Present:
    """A socket that joined with presence, and how many it sees there."""

    def __init__(self, socket: Talk) -> None:
        self.socket = socket
        self.refs: set[str] = set()
        self.is_open = True

    async def watch(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.socket.socket:
                _, _, _, event, payload = json.loads(text)
                if event == "presence_state":
                    self.refs |= _refs(payload)
                elif event == "presence_diff":
                    self.refs = self.refs - _refs(payload["leaves"]) | _refs(payload["joins"])
        self.is_open = False


def _refs(entries: dict[str, Any]) -> set[str]:
    return {meta["phx_ref"] for each in entries.values() for meta in each["metas"]}


async def test_the_people_of_a_killed_worker_leave_within_ten_seconds(shop: CommandLine, tmp_path: Path) -> None:
    """Or pages show for ever who has long been gone. Those of the other worker stay."""
    async with (
        Site(shop, tmp_path / "serve.log", workers=2) as site,
        admin(site) as here,
        contextlib.AsyncExitStack() as open_,
    ):
        there: list[Present] = []
        watching: list[asyncio.Task[None]] = []
        for _ in range(CLIENTS):
            socket = await open_.enter_async_context(talk(site.url, here.person))
            there.append(Present(socket))
            await socket.say("j", "1", f"tenant:{here.tenant_id}", "phx_join", {"presence": True})
            watching.append(asyncio.create_task(there[-1].watch()))
        async with asyncio.timeout(PATIENCE_S):
            while any(len(each.refs) != CLIENTS for each in there):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.02)
            os.kill(max(workers(site.announced["pid"]), key=connections), signal.SIGKILL)
            killed_at = time.monotonic()
            while all(each.is_open for each in there):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            left = [each for each in there if each.is_open]
            while any(len(each.refs) != len(left) for each in left):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.02)
        print(f"gone after {time.monotonic() - killed_at:.1f} s, {len(left)} of {CLIENTS} stayed")
        assert time.monotonic() - killed_at < 3 * GONE_S
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


# Tickets


async def opens(site: Site, ticket: str) -> int:
    """The status of a stream that is opened with it, and let go."""
    async with (
        httpx.AsyncClient(base_url=site.url, trust_env=False, timeout=30) as client,
        client.stream("GET", "/api/v1/feed", params={"ticket": ticket}) as answer,
    ):
        return answer.status_code


async def test_a_ticket_of_one_process_opens_one_stream_at_another(shop: CommandLine, tmp_path: Path) -> None:
    """Behind a load balancer the stream comes to whichever there is, and whoever finds the ticket later comes too late everywhere."""
    async with (
        Site(shop, tmp_path / "one.log") as one,
        Site(shop, tmp_path / "two.log") as two,
        admin(one) as here,
    ):
        ticket = (await here.ask("POST", "/feed/tickets"))["ticket"]
        assert await opens(two, ticket) == 200
        assert [await opens(site, ticket) for site in (one, two)] == [401, 401]
        raced = (await here.ask("POST", "/feed/tickets"))["ticket"]
        statuses = await asyncio.gather(*(opens(site, raced) for site in (one, two) * 3))
        assert sorted(statuses) == [200, 401, 401, 401, 401, 401]
