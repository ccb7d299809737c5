"""The feed over a plain WebSocket: who may open it, what it tells, and that nothing is lost."""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api import tokens
from api.app import create_app
from api.feed import feed
from api.plainsocket import client
from api.socket import wire
from tests.api import house
from tests.api.house import PATIENCE_S, House, Person, Served, listening


@pytest_asyncio.fixture
async def address(served: Served) -> AsyncIterator[str]:
    async with listening(served.app, served.parts) as address:
        yield address


class Talk:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, **members: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **members}))

    async def hear(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.socket.recv())

    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        await self.say("subscribe", topic=topic, **({"from": after} if after else {}))
        return await self.hear()

    async def closed(self) -> int | None:
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self.socket.recv()
        return self.socket.close_code


@contextlib.asynccontextmanager
async def talk(address: str, person: Person | None, query: str = "", **headers: str) -> AsyncIterator[Talk]:
    """With a person: by its header, after the welcome."""
    sent = {**(person.headers if person else {}), **headers}
    url = f"{address.replace('http', 'ws')}/api/v1/feed/ws{query}"
    async with connect(url, additional_headers=sent, compression=None, ping_interval=None, max_queue=None) as socket:
        opened = Talk(socket)
        if person is not None:
            assert (await opened.hear())["type"] == "authenticated"
        yield opened


async def test_a_client_says_who_it_is_subscribes_hears_and_leaves(served: Served, address: str, a: House) -> None:
    topic = f"tenant:{a.id}"
    async with talk(address, None) as page:
        await page.say("authenticate", token=a.user.token)
        welcome = await page.hear()
        assert (welcome["type"], welcome["account_id"]) == ("authenticated", str(a.user.id))
        assert welcome["expires_at"] > time.time()
        joined = await page.subscribe(topic)
        assert (joined["type"], joined["topic"]) == ("subscribed", topic)
        assert (await page.subscribe(topic))["reason"] == "subscribed"
        mug = await a.lists("MUG")
        told = await page.hear()
        assert (told["type"], told["topic"], told["event"]) == ("event", topic, "product_listed")
        assert (told["data"]["id"], told["position"]) == (str(mug.id), told["data"]["position"])
        await page.say("unsubscribe", topic=topic)
        assert await page.hear() == {"type": "unsubscribed", "topic": topic}
        assert (served.app.state.feed.listeners, served.app.state.feed.topics) == (0, 0)
        await page.say("ping")
        assert await page.hear() == {"type": "pong"}


async def test_a_ticket_opens_one_socket(served: Served, address: str, a: House) -> None:
    ticket = (await served.post(a.user, "/feed/tickets", None)).json()["data"]["ticket"]
    async with talk(address, None, f"?ticket={ticket}") as page:
        assert (await page.hear())["account_id"] == str(a.user.id)
    with pytest.raises(InvalidStatus) as caught:
        async with talk(address, None, f"?ticket={ticket}"):
            pass
    assert caught.value.response.status_code == 403


async def test_who_is_nobody_is_not_taken(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for headers in ({"Authorization": "Bearer x"}, {"Origin": "https://evil.example", **a.user.headers}):
        with pytest.raises(InvalidStatus) as caught:
            async with talk(address, None, **headers):
                pass
        assert caught.value.response.status_code == 403
    async with talk(address, None) as page:
        await page.say("subscribe", topic=f"tenant:{a.id}")
        assert await page.closed() == 1008
    async with talk(address, None) as page:
        await page.say("authenticate", token="x")
        assert (await page.hear())["reason"] == "unauthenticated"
        assert await page.closed() == 1008
    async with talk(address, a.user) as page:  # somebody else's token does not change who it is
        await page.say("authenticate", token=a.admin.token)
        assert (await page.hear())["reason"] == "forbidden"
        assert await page.closed() == 1008
    monkeypatch.setattr(client, "AUTHENTICATE_S", 0.0)
    async with talk(address, None) as page:
        assert await page.closed() == 1008


async def test_topics_of_others_are_refused(address: str, a: House, b: House) -> None:
    async with talk(address, a.user) as page:
        for topic, reason in (
            (f"tenant:{b.id}", "unauthorized"),
            (f"transaction:{a.admin.id}", "unauthorized"),
            ("admin:events", "unauthorized"),
            (f"nothing:{a.id}", "unknown"),
        ):
            assert await page.subscribe(topic) == {"type": "refused", "topic": topic, "reason": reason}


async def test_a_message_that_cannot_be_read_is_answered_and_ends_the_socket(address: str, a: House) -> None:
    for wrong in (
        "",
        "{",
        "[]",
        '{"type":"x"}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","topic":1}',
        b"\x00",
        "[" * 9999,
    ):
        async with talk(address, a.user) as page:
            await page.socket.send(wrong)
            assert (await page.hear())["reason"] == "malformed", wrong
            assert await page.closed() == 1007, wrong


async def test_who_comes_back_after_a_restart_misses_nothing(served: Served, a: House) -> None:
    """The process says 1012, never 1000."""
    topic = f"tenant:{a.id}"
    async with listening(served.app, served.parts) as address, talk(address, a.user) as page:
        await page.subscribe(topic)
        await a.lists("A")
        last = (await page.hear())["position"]
        served.parts.stopping.set()
        assert await page.closed() == 1012
    for sku in ("B", "C"):
        await a.lists(sku)
    parts = dataclasses.replace(served.parts, stopping=asyncio.Event())
    async with listening(create_app(parts), parts) as address, talk(address, a.user) as page:
        await page.subscribe(topic, last)
        assert [(await page.hear())["data"]["sku"] for _ in range(2)] == ["B", "C"]
        await a.lists("D")
        assert (await page.hear())["data"]["sku"] == "D"


async def test_a_place_that_there_is_not_is_refused(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BEHIND_MAX", 1)
    topic = f"tenant:{a.id}"
    async with talk(address, a.user) as page:
        assert (await page.subscribe(topic, "x"))["reason"] == "malformed"
        assert (await page.subscribe(topic, served.parts.tokens.token(a.id, 1)))["reason"] == "refetch"


async def test_a_socket_ends_with_its_token_and_its_session(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new token of the session in time lets it stay."""
    monkeypatch.setattr(tokens, "LIFETIME_S", 2)
    short = house.access_tokens().issue(tenant_id=a.id, account_id=a.user.id, role="user", session_id=a.user.session_id)
    person = dataclasses.replace(a.user, token=short)
    async with talk(address, person) as ending, talk(address, person) as staying:
        await staying.say("authenticate", token=a.user.token)
        assert (await staying.hear())["type"] == "authenticated"
        assert await ending.hear() == {"type": "session_ended", "reason": "token_expired"}
        assert await ending.closed() == 1001
        await staying.say("ping")
        assert await staying.hear() == {"type": "pong"}
        served.parts.ledger.revocations.learn(a.id, a.user.session_id, True)
        assert await staying.hear() == {"type": "session_ended", "reason": "session_revoked"}
        assert await staying.closed() == 1001


async def test_a_quiet_listener_is_told_where_it_is_and_a_silent_one_is_let_go(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MARK_S", 0.0)
    async with talk(address, a.user) as page:
        await page.subscribe(f"transaction:{a.user.id}")
        await a.lists("MUG")  # nothing of it is for this topic
        head = served.parts.tokens.token(a.id, (await a.ledger.head(a.id)).position)
        async with asyncio.timeout(PATIENCE_S):
            while await page.hear() != {"type": "position", "position": head}:
                pass
        monkeypatch.setattr(client, "IDLE_S", 0.0)
        assert await page.closed() == 1002


async def test_a_client_that_does_not_read_is_let_go(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MARK_S", 1_000.0)  # which would find it too, later
    async with talk(address, a.user) as slow, talk(address, a.admin) as quick:
        for page in (slow, quick):
            await page.subscribe(f"tenant:{a.id}")
        sink = next(iter(served.app.state.sockets._clients))
        monkeypatch.setattr(wire.Wire, "write", lambda line, frame: line is not sink._line and write(line, frame))
        await a.lists("MUG")
        assert (await quick.hear())["event"] == "product_listed"
        assert await slow.closed() == 1013
        assert served.app.state.feed.listeners == 1


write = wire.Wire.write
