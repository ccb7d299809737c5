"""Sessions of long polling over two real workers: each request comes to whichever is free, and one of them is killed."""

import asyncio
import base64
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from api.socket import sessions
from tests.api.house import Person
from tests.api.socket.test_longpoll import HEARTBEAT, Poller
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.faults.site import Site
from tests.faults.test_channels import PATIENCE_S, ROOT, Admin, admin, workers
from tests.world import Database

EACH = 4
"""Sessions of either worker."""
OPENED_MAX = 200


@pytest.fixture
def database(shop_database: Database) -> Database:
    return shop_database


@pytest.fixture
def shop(database: Database) -> CommandLine:
    return commandline.on(database, PYTHONPATH=str(ROOT))


class Page:
    """As the npm client: polls, and joins a new session from after the last message that it had when the old one is dead or broken."""

    def __init__(self, http: httpx.AsyncClient, url: str, person: Person, topic: str) -> None:
        self.poller = Poller(http, person, url)
        self.topic = topic
        self.skus: list[str] = []
        self._joined = 0
        self._last: str | None = None

    @property
    def port(self) -> int:
        """Of the process that has the session."""
        assert self.poller.token is not None
        port: int = sessions._NAME.unpack(base64.urlsafe_b64decode(self.poller.token)[: sessions._NAME.size])[0]
        return port

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except httpx.TransportError:  # what was in that answer is lost with it, so the client begins a new session
                self.poller.token = None

    async def turn(self) -> None:
        told = await self.poller.poll()
        assert told["status"] in (200, 204, 410)
        if told["status"] == 410:
            await self._join()
        for text in told["messages"]:
            _, _, topic, event, payload = json.loads(text)
            if event == "phx_error":
                await self._join()
            elif event == "product_listed":
                self.skus.append(payload["sku"])
                self._last = payload["position"]
            elif topic == self.topic and self._last is None:
                self._last = payload["response"]["position"]

    async def _join(self) -> None:
        self._joined += 1
        join = {} if self._last is None else {"from": self._last}
        await self.poller.say(json.dumps([f"{self._joined}", "1", self.topic, "phx_join", join]))


@contextlib.asynccontextmanager
async def two_workers(shop: CommandLine, log: Path) -> AsyncIterator[tuple[Site, Admin, httpx.AsyncClient]]:
    one_each = httpx.Limits(
        max_keepalive_connections=0
    )  # a new connection for each request, to whichever worker takes it
    async with (
        Site(shop, log, workers=2) as site,
        admin(site) as here,
        httpx.AsyncClient(timeout=PATIENCE_S, limits=one_each, trust_env=False) as http,
    ):
        yield site, here, http


async def test_sessions_over_two_workers_miss_nothing_when_one_is_killed(shop: CommandLine, tmp_path: Path) -> None:
    """Half of the requests are forwarded, many at a time. A dead worker's sessions are dead, and no others."""
    async with two_workers(shop, tmp_path / "serve.log") as (site, here, http):
        pages: dict[int, list[Page]] = {}
        for _ in range(OPENED_MAX):
            page = Page(http, site.url, here.person, f"tenant:{here.tenant_id}")
            await page.turn()
            same = pages.setdefault(page.port, [])
            if len(same) < EACH:
                same.append(page)
            if [len(each) for each in pages.values()] == [EACH, EACH]:
                break
        first, second = pages.values()
        running = [asyncio.create_task(each.run()) for each in (*first, *second)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                while any(each._last is None for each in (*first, *second)):  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.02)
            listed = [f"S{n}" for n in range(20)]
            for sku in listed:
                await here.lists(sku)
            await all_heard(pages, listed)
            tokens = {port: each[0].poller.token for port, each in pages.items()}
            os.kill(workers(site.announced["pid"])[0], signal.SIGKILL)
            listed += [f"T{n}" for n in range(20)]
            for sku in listed[20:]:
                await here.lists(sku)
            await all_heard(pages, listed)
            assert sorted([await status(http, site.url, each) for each in tokens.values()]) == [200, 410]
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def all_heard(pages: dict[int, list[Page]], listed: list[str]) -> None:
    """Each in order, and none twice."""
    heard = [each for some in pages.values() for each in some]
    async with asyncio.timeout(PATIENCE_S):
        while any(each.skus[-1:] != listed[-1:] for each in heard):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
    assert [each.skus for each in heard] == [listed] * len(heard)


async def status(http: httpx.AsyncClient, url: str, token: str | None) -> int:
    """Of a sending to a session."""
    params = {"vsn": "2.0.0", "token": token or ""}
    answer = await http.post(f"{url}/socket/longpoll", params=params, content=HEARTBEAT)
    found: int = answer.json()["status"]
    return found
