"""What one session, one user or one client may ask of a process over sockets."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from api.app import create_app
from api.rates import Policies, Policy
from api.socket import session
from api.socket.protocol import pace
from tests.api import test_plainsocket as plain
from tests.api.house import House, Person, Served, listening
from tests.api.socket.talk import refused, talk, url
from tests.api.socket.test_longpoll import HEARTBEAT, poller


@pytest_asyncio.fixture
async def small(served: Served) -> AsyncIterator[str]:
    """A server that takes two sockets of a session."""
    parts = dataclasses.replace(served.parts, sockets_per_session=2, stopping=asyncio.Event())
    app = create_app(parts)
    async with listening(app, parts) as address:
        yield address


async def test_pushes_count_as_requests_of_the_user(served: Served, address: str, a: House) -> None:
    """By a socket a runaway page would get round the limits of its user and of its tenant."""
    await a.lists()
    served.parts.rates.policies = Policies(user=Policy("user", 4, 60.0))  # the first for the socket
    topic, sale = f"transaction:{a.user.id}", {"lines": [{"sku": "MUG", "quantity": 1}]}
    async with talk(address, a.user) as user:
        await user.join(topic)
        for n in range(5):
            await user.say("j", f"r{n}", topic, "new_transaction", sale)
        replies: dict[str, dict[str, object]] = {}
        while len(replies) < 5:
            _, ref, _, event, payload = await user.hear()
            if event == "phx_reply":
                replies[ref] = payload
    told = [(replies[f"r{n}"]["status"], replies[f"r{n}"]["response"].get("reason")) for n in range(5)]  # type: ignore[attr-defined]  # JSON
    assert told == [("ok", None)] * 3 + [("error", "rate-limited")] * 2


async def test_a_long_poll_is_paced_as_a_websocket_is(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of 1 MiB holds thousands of commands."""
    async with poller(a.user, address) as page:
        monkeypatch.setattr(pace, "FRAMES_AT_ONCE", 10)
        monkeypatch.setattr(pace, "FRAMES_PER_S", 20)
        await page.open()
        begun = time.monotonic()
        assert await page.say(*[HEARTBEAT] * 30) == 200
        assert time.monotonic() - begun > 0.9  # 20 of 30 have to wait for their turn
        assert len(await page.hear(30)) == 30


async def test_few_bodies_wait_for_a_slow_session(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is up to 1 MiB: who sends them without waiting for answers could fill the memory."""
    monkeypatch.setattr(session, "HANDLE_S", 0.2)
    async with poller(a.user, address) as page:
        monkeypatch.setattr(pace, "FRAMES_AT_ONCE", 1)
        monkeypatch.setattr(pace, "FRAMES_PER_S", 1)
        await page.open()
        told = await asyncio.gather(*(page.say(*[HEARTBEAT] * 3) for _ in range(9)))
        assert set(told) <= {408, 410}
        assert not served.app.state.sessions._sessions


async def test_streams_of_events_count_among_the_sockets_of_a_session(small: str, a: House) -> None:
    """One member could open streams until a process had no memory left."""
    async with httpx.AsyncClient(base_url=small, headers=a.user.headers, timeout=30, trust_env=False) as user:
        async with user.stream("GET", "/api/v1/feed") as first, user.stream("GET", "/api/v1/feed") as second:
            assert (first.status_code, second.status_code) == (200, 200)
            async with user.stream("GET", "/api/v1/feed") as third:
                assert (third.status_code, "retry-after" in third.headers) == (503, True)
        async with asyncio.timeout(30):
            while True:  # the server is told by and by that they have gone
                async with user.stream("GET", "/api/v1/feed") as again:
                    if again.status_code == 200:
                        break


async def test_a_thousand_pages_behind_one_address_come_back_and_who_guesses_tokens_does_not(
    served: Served, address: str, a: House
) -> None:
    """After a restart all come at once, and a page of long polling asks anew after each message."""
    served.parts.rates.policies = Policies(address=Policy("address", 5, 60.0))
    for _ in range(10):
        async with talk(address, a.user):
            pass
    async with poller(a.user, address) as page, poller(None, address) as nobody:
        await page.open()
        for _ in range(10):
            assert await page.say(HEARTBEAT) == 200
            assert (await page.poll())["status"] == 200
        feed = f"{address.replace('http', 'ws')}/api/v1/feed/ws"
        assert (await refused(f"{address.replace('http', 'ws')}/socket/websocket?vsn=2.0.0&token=x"))[0] == 403
        assert (await refused(feed, additional_headers={"Authorization": "Bearer x"}))[0] == 403
        assert (await nobody.poll())["status"] == 403
        assert await nobody.say(HEARTBEAT) == 410
        async with plain.talk(address, None):
            pass
        assert (await refused(url(address, a.user)))[0] == 403
        answer = await page.ask("GET")
        assert (answer.status_code, answer.content) == (429, b"")  # the npm client gives up for ever if it reads 429


async def test_plain_sockets_behind_one_address_count_for_who_they_say_they_are(
    served: Served, address: str, a: House
) -> None:
    """200 programs of one office open theirs and then say who they are: the office's address must not run out by that. Who never
    says so, or lies, takes one of its requests each."""
    served.parts.rates.policies = Policies(address=Policy("address", 3, 600.0), user=Policy("user", 6, 600.0))
    for _ in range(6):
        async with plain.talk(address, None) as page:
            await page.say("authenticate", token=a.user.token)
            assert (await page.hear())["type"] == "authenticated"
            await page.say(
                "authenticate", token=a.user.token
            )  # a new token of the session: nothing is given back twice
            assert (await page.hear())["type"] == "authenticated"
    async with plain.talk(address, None) as page:
        await page.say("authenticate", token=a.user.token)
        assert (await page.hear())["reason"] == "rate-limited"
        assert await page.closed() == 1013
    async with plain.talk(address, None) as page:
        await page.say("authenticate", token="x")
        assert await page.closed() == 1008
    async with plain.talk(address, None):
        pass
    assert (await refused(f"{address.replace('http', 'ws')}/api/v1/feed/ws"))[0] == 403


async def test_a_session_has_so_many_sockets(small: str, a: House) -> None:
    """One that was stolen, or a page gone wild, would take all that a process has."""

    async def all_refused(person: Person) -> None:
        assert (await refused(url(small, person)))[0] == 403
        feed = f"{small.replace('http', 'ws')}/api/v1/feed/ws"
        assert (await refused(feed, additional_headers=person.headers))[0] == 403
        async with poller(person, small) as page:
            assert (await page.poll())["status"] == 403
        async with plain.talk(small, None) as late:
            await late.say("authenticate", token=person.token)
            assert (await late.hear())["reason"] == "too-many"
            assert await late.closed() == 1008

    async with talk(small, a.user), plain.talk(small, a.user):
        await all_refused(a.user)
        async with talk(small, a.admin) as other:
            await other.beat()
    async with plain.talk(small, None) as late:
        await late.say("authenticate", token=a.user.token)
        assert (await late.hear())["type"] == "authenticated"
        await late.say("authenticate", token=a.user.token)  # the same session's: it counts once
        assert (await late.hear())["type"] == "authenticated"
        async with poller(a.user, small) as page:
            await page.open()
            assert await page.say(json.dumps([None, "1", "phoenix", "heartbeat", {}])) == 200
            await all_refused(a.user)
