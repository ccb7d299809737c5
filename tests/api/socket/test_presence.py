"""Who is there: one set, whichever process a client is connected to."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from api.app import create_app
from api.parts import Parts
from api.socket import presence
from bitnexus import database as connections
from ledger.waker import Waker
from tests.api.house import PATIENCE_S, House, Served, listening
from tests.api.socket.talk import Talk, talk
from tests.world import World


class Page:
    """What the npm client's Presence makes of states and diffs."""

    def __init__(self, talking: Talk) -> None:
        self.talking = talking
        self.refs: dict[str, str] = {}  # key by ref

    async def sees(self, *wanted: str) -> None:
        """Until exactly these keys are there, one for each entry."""
        while sorted(self.refs.values()) != sorted(wanted):
            _, _, _, event, payload = await self.talking.hear()
            if event == "presence_state":
                self.refs = dict(self._refs(payload))
            elif event == "presence_diff":
                assert set(payload) == {"joins", "leaves"}
                self.refs |= dict(self._refs(payload["joins"]))
                for ref, _ in self._refs(payload["leaves"]):
                    self.refs.pop(ref, None)

    def _refs(self, shown: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for key, value in shown.items():
            for meta in value["metas"]:
                yield meta["phx_ref"], key


@contextlib.asynccontextmanager
async def other_process(served: Served, world: World) -> AsyncIterator[tuple[str, Parts, Waker]]:
    """The address of an application that only the database connects with the first one."""
    waker = Waker(connections.connector(world.database.app_url, "app"))
    await waker.start()
    parts = dataclasses.replace(served.parts, waker=waker, stopping=asyncio.Event())
    async with listening(create_app(parts), parts) as address:
        yield address, parts, waker
    await waker.close()


async def test_who_is_there_is_told(served: Served, address: str, a: House, b: House) -> None:
    topic = f"tenant:{a.id}"
    user, admin = str(a.user.id), str(a.admin.id)
    async with talk(address, a.user) as first, talk(address, b.user) as stranger:
        await stranger.join(f"tenant:{b.id}", payload={"presence": True})
        await first.join(topic, payload={"presence": True})
        page = Page(first)
        await page.sees(user)
        async with talk(address, a.admin) as second, talk(address, a.user) as third:
            await second.join(topic, payload={"presence": True})
            await page.sees(user, admin)
            await third.join(topic, payload={"presence": True})
            await page.sees(user, user, admin)
            await Page(third).sees(user, user, admin)
            await third.say("j", "9", topic, "phx_leave", {})
            await page.sees(user, admin)
        await page.sees(user)
        await Page(stranger).sees(str(b.user.id))
    async with asyncio.timeout(PATIENCE_S):
        while len(served.app.state.presence):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
    assert not served.app.state.presence._by_topic
    assert not served.app.state.presence._watchers


async def test_who_does_not_ask_is_not_told(address: str, a: House) -> None:
    topic = f"tenant:{a.id}"
    async with talk(address, a.user) as quiet, talk(address, a.admin) as seen:
        await quiet.join(topic)
        await seen.join(topic, payload={"presence": True})
        await Page(seen).sees(str(a.admin.id))
        await quiet.beat()


async def test_it_is_one_set_over_processes(
    served: Served, address: str, world: World, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "BEAT_S", 0.1)
    topic, user, admin = f"tenant:{a.id}", str(a.user.id), str(a.admin.id)
    async with talk(address, a.user) as first:
        await first.join(topic, payload={"presence": True})
        page = Page(first)
        await page.sees(user)
        async with other_process(served, world) as (elsewhere, _, _):
            async with talk(elsewhere, a.admin) as second:
                await second.join(topic, payload={"presence": True})
                await Page(second).sees(user, admin)
                await page.sees(user, admin)
            await page.sees(user)


async def test_a_killed_process_takes_its_people_with_it(
    served: Served, address: str, world: World, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert presence.PEER_S + presence.BEAT_S < 10
    monkeypatch.setattr(presence, "BEAT_S", 0.1)
    monkeypatch.setattr(presence, "PEER_S", 1.0)
    topic, user, admin = f"tenant:{a.id}", str(a.user.id), str(a.admin.id)
    async with talk(address, a.user) as first, other_process(served, world) as (elsewhere, _, waker):
        await first.join(topic, payload={"presence": True})
        page = Page(first)
        async with talk(elsewhere, a.admin) as second:
            await second.join(topic, payload={"presence": True})
            await page.sees(user, admin)
            await waker.close()  # nothing is heard of it any more
            await page.sees(user)


async def test_lost_news_are_asked_for_again(
    served: Served, address: str, world: World, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NOTIFY may be lost with its connection."""
    monkeypatch.setattr(presence, "BEAT_S", 0.1)
    monkeypatch.setattr(presence, "ENTRIES_PER_NEWS", 2)
    topic, user, admin = f"tenant:{a.id}", str(a.user.id), str(a.admin.id)
    async with (
        talk(address, a.user) as first,
        other_process(served, world) as (elsewhere, parts, _),
        contextlib.AsyncExitStack() as stack,
    ):
        await first.join(topic, payload={"presence": True})
        page = Page(first)
        pages = [await stack.enter_async_context(talk(elsewhere, a.admin)) for _ in range(6)]
        for each in pages[:3]:
            await each.join(topic, payload={"presence": True})
        await page.sees(user, *[admin] * 3)
        with monkeypatch.context() as lost:
            lost.setattr(parts.waker, "say", lambda _: None)
            for each in pages[3:]:
                await each.join(topic, payload={"presence": True})
            await pages[0].say("j", "9", topic, "phx_leave", {})
            await asyncio.sleep(0.3)
        await page.sees(user, *[admin] * 5)
