"""How sockets end: who goes, who is sent away, who breaks the protocol, is silent, slow or without end."""

import asyncio
import contextlib
import socket

import pytest
from websockets.asyncio.client import connect

from api import tokens
from api.feed import feed as feeds
from api.socket import client, sockets, wire
from api.socket.protocol import connection, pace
from tests.api import house
from tests.api.house import PATIENCE_S, House, Person, Served, listening
from tests.api.socket.talk import Talk, refused, talk, url


async def gone(served: Served) -> None:
    live: feeds.Feed = served.app.state.feed
    async with asyncio.timeout(PATIENCE_S):
        while live.listeners or live.tails or live.topics or len(served.app.state.sockets):  # noqa: ASYNC110  no event
            await asyncio.sleep(0.01)


async def test_a_socket_that_is_gone_costs_nothing(served: Served, address: str, a: House) -> None:
    async with talk(address, a.user) as user, talk(address, a.admin) as admin:
        await user.join(f"tenant:{a.id}")
        await admin.join(f"tenant:{a.id}")
        user.socket.transport.abort()
    await gone(served)


async def test_a_socket_ends_with_its_token(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LIFETIME_S", 2)
    token = house.access_tokens().issue(tenant_id=a.id, account_id=a.user.id, role="user", session_id=a.user.id)
    async with talk(address, Person(a.user.id, a.user.email, "user", token)) as user:
        assert await user.closed() == 1001


async def test_a_session_that_is_over_ends_its_sockets(served: Served, address: str, a: House) -> None:
    async with talk(address, a.user) as user, talk(address, a.admin) as admin:
        await user.beat()
        await admin.beat()
        assert (await served.post(a.user, "/auth/logout", None)).status_code == 204
        assert await user.closed() == 1001
        await admin.beat()
        assert (await refused(url(address, a.user)))[0] == 403
        served.parts.ledger.revocations.learn(a.id, a.id, True)
        assert await admin.closed() == 1001
    await gone(served)
    assert not served.parts.ledger.revocations._listeners


async def test_a_silent_client_is_closed_and_a_ping_is_no_silence(
    address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_S", 1.0)
    monkeypatch.setattr(sockets, "LOOK_S", 0.1)
    async with talk(address, a.user) as silent, talk(address, a.admin) as pinging:

        async def ping() -> None:
            while True:
                await pinging.socket.ping()
                await asyncio.sleep(0.1)

        pings = asyncio.create_task(ping())
        assert await silent.closed() == 1002
        await pinging.beat()
        pings.cancel()


async def test_a_process_that_stops_says_1012(served: Served, a: House) -> None:
    async with listening(served.app, served.parts) as address, talk(address, a.user) as user:
        await user.join(f"tenant:{a.id}")
        served.parts.stopping.set()
        assert await user.closed() == 1012


@pytest.mark.parametrize(
    ("frame", "code"),
    [("[", 1011), ("", 1011), (b"\x00", 1011), ("[" * 100_000, 1011), ("x" * (wire.WAITING_BYTES_MAX + 1), 1009)],
    ids=["no JSON", "empty", "short", "deep", "large"],
)
async def test_what_breaks_the_protocol_ends_this_connection_alone(
    address: str, a: House, frame: str | bytes, code: int
) -> None:
    async with talk(address, a.user) as user, talk(address, a.admin) as admin:
        await user.socket.send(frame)
        assert await user.closed() == code
        await admin.beat()


async def test_text_that_is_not_utf_8_ends_with_1007(address: str, a: House) -> None:
    async with talk(address, a.user) as user:
        await user.socket.send(b"\xff\xfe", text=True)
        assert await user.closed() == 1007


async def test_fragments_are_put_together_and_a_large_frame_is_read(address: str, a: House) -> None:
    async with talk(address, a.user) as user:
        await user.socket.send(iter(['[null,"1","phoe', 'nix","heartbeat","', "x" * 900_000, '"]']))
        assert (await user.hear())[1] == "1"


async def test_who_does_not_read_is_closed_and_the_others_hear_all(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "WAITING_BYTES_MAX", 2_000)
    topic = f"tenant:{a.id}"
    async with talk(address, a.admin) as quick:
        host, port = address.removeprefix("http://").split(":")
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            plain.connect((host, int(port)))
            plain.setblocking(False)
            async with connect(url(address, a.user), sock=plain, compression=None, max_queue=1) as opened:
                slow = Talk(opened)
                await slow.join(topic)
                opened.transport.pause_reading()
                line = list(served.app.state.sockets._clients)[-1]._line
                line.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
                await quick.join(topic)
                for n in range(60):
                    await a.lists(f"S{n}")
                assert [each[4]["sku"] for each in await quick.hears(60)] == [f"S{n}" for n in range(60)]
                async with asyncio.timeout(PATIENCE_S):
                    while len(served.app.state.sockets) > 1:  # noqa: ASYNC110  nobody tells
                        await asyncio.sleep(0.01)
                opened.transport.resume_reading()
                assert await slow.closed() == 1013


async def test_who_sends_without_end_is_read_slowly_and_others_are_answered(
    address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FRAMES_AT_ONCE", 50)
    heartbeat = '[null,"1","phoenix","heartbeat",{}]'
    async with talk(address, a.user) as wild, talk(address, a.admin) as calm:

        async def storm() -> None:
            while True:
                await wild.socket.send(heartbeat)
                await asyncio.sleep(0)  # the server is in the same event loop

        storming = asyncio.create_task(storm())
        answered = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while True:
                    await wild.socket.recv()
                    answered += 1
        for _ in range(10):
            await calm.beat()
        storming.cancel()
        await asyncio.gather(storming, return_exceptions=True)
        wild.socket.transport.abort()
    assert 50 <= answered <= 3 * (50 + pace.FRAMES_PER_S)


async def test_topics_joined_and_left_leave_nothing(served: Served, address: str, a: House) -> None:
    live: feeds.Feed = served.app.state.feed
    async with talk(address, a.admin) as admin:
        await admin.join(f"tenant:{a.id}")
        for n in range(300):
            await admin.say(str(n), str(n), f"transaction:{n:08x}-0000-0000-0000-000000000000", "phx_join", {})
            await admin.say(str(n), "l", f"transaction:{n:08x}-0000-0000-0000-000000000000", "phx_leave", {})
        assert [each[3] for each in await admin.hears(900)].count("phx_close") == 300
        assert (live.listeners, live.topics) == (1, 1)
        assert list(next(iter(served.app.state.sockets._clients))._members) == [f"tenant:{a.id}"]


def test_the_patterns_are_those_of_the_topics() -> None:
    assert client.PATTERNS == ("tenant:*", "transaction:*", "affiliate:*", "notification:*", "admin:*")
