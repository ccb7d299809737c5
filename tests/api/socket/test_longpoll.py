"""Long polling: what a browser without WebSockets is told, also when its requests come to another process."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.socket import session
from tests.api.house import PATIENCE_S, House, Person, Served, listening

HEARTBEAT = '[null,"1","phoenix","heartbeat",{}]'
BEATEN = '[null,"1","phoenix","phx_reply",{"status":"ok","response":{}}]'


class Poller:
    """One session. `addresses` are processes; each request goes to the next one."""

    def __init__(self, http: httpx.AsyncClient, person: Person | None, *addresses: str) -> None:
        self.http = http
        self.addresses = addresses
        self.params: list[tuple[str, str | int | float | bool | None]] = [
            ("vsn", "2.0.0"),
            *([("token", person.token)] if person else []),
        ]
        self.token: str | None = None
        self._turn = 0

    async def ask(self, method: str, **request: Any) -> httpx.Response:
        self._turn += 1
        address = self.addresses[self._turn % len(self.addresses)]
        params = [*self.params, *([("token", self.token)] if self.token else [])]
        return await self.http.request(method, f"{address}/socket/longpoll", params=params, **request)

    async def poll(self, **request: Any) -> Any:
        answer = await self.ask("GET", **request)
        assert answer.status_code == 200
        told = answer.json()
        self.token = told.get("token")
        return told

    async def open(self) -> None:
        opened = await self.poll()
        assert (opened["status"], opened["messages"]) == (410, [])

    async def say(self, *lines: str, content_type: str = "application/x-ndjson") -> Any:
        answer = await self.ask("POST", content="\n".join(lines), headers={"Content-Type": content_type})
        assert answer.status_code == 200
        return answer.json()["status"]

    async def hear(self, count: int) -> list[Any]:
        heard: list[Any] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(heard) < count:
                told = await self.poll()
                assert told["status"] in (200, 204)
                heard += [json.loads(each) for each in told["messages"]]
        return heard


@contextlib.asynccontextmanager
async def poller(person: Person | None, *addresses: str) -> AsyncIterator[Poller]:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        yield Poller(http, person, *addresses)


async def test_a_session_joins_hears_and_leaves(address: str, a: House) -> None:
    topic = f"tenant:{a.id}"
    async with poller(a.user, address) as page:
        await page.open()
        assert await page.say(HEARTBEAT, json.dumps(["1", "2", topic, "phx_join", {}])) == 200
        told = await page.poll()
        assert (told["status"], told["messages"][0]) == (200, BEATEN)
        waiting = asyncio.create_task(page.poll())
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await a.lists("MUG")
        (message,) = (await waiting)["messages"]
        assert json.loads(message)[2:4] == [topic, "product_listed"]
        assert time.monotonic() - begun < 3.0
        await a.lists("CUP")
        await a.lists("JUG")
        assert [each[4]["sku"] for each in await page.hear(2)] == ["CUP", "JUG"]
        assert await page.say(json.dumps(["1", "3", topic, "phx_leave", {}]), content_type="application/json") == 200
        assert [each[3] for each in await page.hear(2)] == ["phx_reply", "phx_close"]


async def test_a_poll_with_nothing_to_tell_ends(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "POLL_S", 0.1)
    async with poller(a.user, address) as page:
        await page.open()
        token = page.token
        assert await page.poll() == {"status": 204, "token": token, "messages": []}


async def test_headers_and_methods(address: str, a: House) -> None:
    async with poller(a.user, address) as page:
        answer = await page.ask("GET")
        assert [answer.headers[name] for name in ("content-type", "access-control-allow-origin", "cache-control")] == [
            "application/json; charset=utf-8",
            "*",
            "no-store",
        ]
        asked = await page.ask("OPTIONS", headers={"Access-Control-Request-Headers": "x-a, x-b"})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-headers"] == "x-a, x-b"
        assert asked.headers["access-control-allow-methods"] == "get, post, options"
        assert asked.headers["access-control-max-age"] == "3600"
        assert (await page.ask("PUT")).status_code == 400
        assert (await page.poll(headers={"Origin": "https://evil.example"})) == {"status": 403}


async def test_who_may_open_a_session(address: str, a: House) -> None:
    async with poller(None, address) as nobody:
        assert await nobody.poll() == {"status": 403}
        opened = await nobody.poll(headers={"X-Phoenix-AuthToken": a.user.token})
        assert opened["status"] == 410
    async with poller(a.user, address) as page:
        page.params = [("vsn", "9"), ("token", a.user.token)]
        assert await page.poll() == {"status": 403}
        page.params = [("token", a.user.token), ("vsn", "2.0.0"), ("", "")]
        await page.open()


async def test_the_header_goes_before_the_parameter(address: str, a: House) -> None:
    async with poller(a.user, address) as page:
        await page.open()
        token = page.token or ""
        await page.say(HEARTBEAT)
        page.token = None
        told = await page.poll(headers={"X-Phoenix-Longpoll-Token": token})
        assert (told["status"], told["messages"]) == (200, [BEATEN])


async def test_a_dead_session(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sending is refused; a poll opens a new one for who may, which the client takes for a reconnection."""
    async with poller(a.user, address) as page:
        monkeypatch.setattr(session, "SILENT_S", 0.05)
        await page.open()
        await asyncio.sleep(0.2)
        monkeypatch.setattr(session, "SILENT_S", 30.0)
        dead = page.token
        assert await page.say(HEARTBEAT) == 410
        await page.open()
        assert page.token != dead
        forged = base64.urlsafe_b64encode(base64.urlsafe_b64decode(dead or "")[:-1] + b"x").decode()
        page.token = forged
        assert await page.say(HEARTBEAT) == 410


async def test_what_cannot_be_read(served: Served, address: str, a: House) -> None:
    async with poller(a.user, address) as page:
        await page.open()
        undecodable = await page.ask("POST", content="!!", headers={"Content-Type": "application/x-ndjson"})
        assert undecodable.status_code == 500
        large = await page.ask("POST", content="x" * 1_100_000)
        assert large.status_code == 413
        assert await page.say("[1]") == 408
        assert await page.say(HEARTBEAT) == 410
        assert (len(served.app.state.sessions), len(served.app.state.sockets)) == (0, 0)


async def test_a_binary_frame_comes_as_base64(address: str, a: House) -> None:
    frame = base64.b64encode(b"\x00\x00\x011".replace(b"1", b"\x07\x09") + b"5phoenixheartbeat").decode()
    async with poller(a.user, address) as page:
        await page.open()
        assert await page.say(frame, HEARTBEAT) == 200
        assert [each[1] for each in await page.hear(2)] == ["5", "1"]


async def test_a_session_is_found_from_every_process(served: Served, a: House) -> None:
    """Behind a load balancer each request comes to another one."""
    parts = [dataclasses.replace(served.parts, stopping=asyncio.Event()) for _ in range(2)]
    apps = [create_app(each) for each in parts]
    topic = f"tenant:{a.id}"
    async with (
        listening(apps[0], parts[0]) as first,
        listening(apps[1], parts[1]) as second,
        poller(a.user, first, second) as page,
    ):
        await page.open()
        assert await page.say(json.dumps(["1", "2", topic, "phx_join", {}]), HEARTBEAT) == 200
        assert len(await page.hear(2)) == 2
        for n in range(4):
            await a.lists(f"S{n}")
            assert [each[4]["sku"] for each in await page.hear(1)] == [f"S{n}"]
        assert sum(len(app.state.sessions) for app in apps) == 1
        owner = next(app for app in apps if len(app.state.sessions))
        owner.state.sessions._server.close()
        await owner.state.sessions.close()
        page.addresses = (first if owner is apps[1] else second,)
        assert await page.say(HEARTBEAT) == 410
        await page.open()


async def test_who_does_not_poll_is_let_go(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "WAITING_FRAMES_MAX", 3)
    async with poller(a.user, address) as page:
        await page.open()
        await page.say(json.dumps(["1", "2", f"tenant:{a.id}", "phx_join", {}]))
        for n in range(4):
            await a.lists(f"S{n}")
        async with asyncio.timeout(PATIENCE_S):
            while len(served.app.state.sessions):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
        assert await page.say(HEARTBEAT) == 410
    live = served.app.state.feed
    assert (live.listeners, live.topics) == (0, 0)
