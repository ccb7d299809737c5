"""Phoenix Channels over a real server: who is taken in, what channels are told, what happens at the end."""

import asyncio
import base64
import contextlib
import dataclasses
import socket
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from api import tokens
from api.app import create_app
from api.feed import feed as feeds
from api.socket import client, sockets, wire
from api.socket.protocol import connection, pace
from tests.api.house import PATIENCE_S, SEED, House, Person, Served, listening
from tests.api.socket.talk import Talk, talk, url

UNAUTHORIZED = {"status": "error", "response": {"reason": "unauthorized"}}


async def refused(address: str, **options: Any) -> tuple[int, bytes]:
    """Status and body of a refusal."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(address, **options):
            pass
    return caught.value.response.status_code, bytes(caught.value.response.body or b"")


# Opening


async def test_who_is_not_taken_gets_403_before_the_upgrade(address: str, a: House) -> None:
    """An upgrade would reset the client's backoff: it would come back every 10 ms."""
    other = tokens.AccessTokens(bytes(32))
    forged = other.issue(tenant_id=a.id, account_id=a.user.id, role="admin", session_id=a.user.id)
    for wrong in (
        url(address),
        url(address, token=""),
        url(address, token="x"),
        url(address, token=forged),
        url(address, a.user, vsn="3.0.0"),
        url(address, a.user) + "&vsn=2.1.0",
        url(address, a.user) + "&token=x",
        url(address, a.user) + "&vsn[a]=2.0.0",
        url(address, a.user) + "&a=" * 200,
    ):
        assert await refused(wrong) == (403, b""), wrong


async def test_the_last_value_of_a_parameter_counts_and_others_are_ignored(address: str, a: House) -> None:
    query = f"?&a[b]=1&undefined&token=x&vsn=9&token={a.user.token}&vsn=2.0.0"
    async with connect(f"{address.replace('http', 'ws')}/socket/websocket{query}") as opened:
        await Talk(opened).beat()


async def test_without_a_version_it_is_1_0_0(address: str, a: House) -> None:
    async with connect(f"{address.replace('http', 'ws')}/socket/websocket?token={a.user.token}") as opened:
        await opened.send('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}')
        assert (await Talk(opened).hear())["ref"] == "1"


def offer(token: str, *others: str) -> list[Subprotocol]:
    bearer = base64.b64encode(token.encode()).decode().rstrip("=")
    return [Subprotocol(each) for each in (*others, f"base64url.bearer.phx.{bearer}")]


async def test_the_token_may_come_among_the_subprotocols(address: str, a: House) -> None:
    async with connect(url(address), subprotocols=offer(a.user.token, "phoenix")) as opened:
        assert opened.subprotocol == "phoenix"
        await Talk(opened).beat()
    assert (await refused(url(address), subprotocols=offer(a.user.token, "graphql")))[0] == 403
    assert (await refused(url(address), subprotocols=offer("x", "phoenix")))[0] == 403
    undecodable = [Subprotocol("phoenix"), Subprotocol("base64url.bearer.phx.!")]
    assert (await refused(url(address), subprotocols=undecodable))[0] == 403
    async with connect(url(address, a.user), subprotocols=[Subprotocol("phoenix")]) as opened:
        assert opened.subprotocol == "phoenix"


async def test_pages_of_other_hosts_are_refused(served: Served, a: House) -> None:
    parts = dataclasses.replace(
        served.parts, socket_origins=("shop.example", "//*.beta.example", "https://gamma.example:8443")
    )
    async with listening(create_app(parts), parts) as address:
        port = address.rpartition(":")[2]
        for good in (
            f"http://127.0.0.1:{port}",
            "http://127.0.0.1",
            "https://shop.example",
            "http://shop.example:3000",
            "https://beta.example",
            "https://www.beta.example",
            "https://gamma.example:8443",
        ):
            async with connect(url(address, a.user), origin=good):  # type: ignore[arg-type]  # a string
                pass
        for bad in (
            "null",
            "https://evil.example",
            "https://shop.example.evil",
            "https://evilbeta.example",
            "http://gamma.example:8443",
            "https://gamma.example",
            "file://",
            "http://[",
        ):
            assert (await refused(url(address, a.user), origin=bad))[0] == 403, bad


async def test_what_is_no_websocket_gets_400(address: str) -> None:
    async with httpx.AsyncClient(base_url=address) as asked:
        for method in ("GET", "POST", "PUT"):
            assert (await asked.request(method, "/socket/websocket")).status_code == 400


async def test_a_full_process_refuses(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CLIENTS_MAX", 1)
    async with talk(address, a.user):
        assert (await refused(url(address, a.user)))[0] == 403


# Topics


async def test_each_joins_what_is_his(address: str, a: House, b: House) -> None:
    user, affiliate = a.user.id, a.affiliate.id
    everybody = [f"tenant:{a.id}", f"transaction:{user}", f"affiliate:{user}", f"notification:{user}"]
    admins = ["admin:events", "admin:transactions", "admin:projections", f"transaction:{affiliate}"]
    nobody = [f"tenant:{b.id}", f"notification:{affiliate}", f"transaction:{str(user).upper()}", "transaction:x"]
    async with talk(address, a.user) as mine, talk(address, a.admin) as admin:
        for topic in everybody:
            assert (await mine.join(topic))["status"] == "ok", topic
        for topic in [*admins, *nobody, "admin:x"]:
            assert await mine.join(topic) == UNAUTHORIZED, topic
        for topic in [*admins, f"transaction:{user}", f"affiliate:{user}"]:
            assert (await admin.join(topic))["status"] == "ok", topic
        for topic in [*nobody, f"notification:{user}"]:
            assert await admin.join(topic) == UNAUTHORIZED, topic
        await admin.say("1", "1", "admin:x", "phx_join", {})
        assert (await admin.hear())[4]["response"] == {"reason": "unmatched topic"}


async def test_channels_tell_what_http_shows(served: Served, address: str, a: House) -> None:
    mine, brought = f"transaction:{a.user.id}", f"affiliate:{a.affiliate.id}"
    async with talk(address, a.user) as user, talk(address, a.affiliate) as affiliate, talk(address, a.admin) as admin:
        await user.join(f"tenant:{a.id}")
        await user.join(mine)
        await affiliate.join(brought)
        await admin.join("admin:events")
        mug = await a.lists("MUG", "9.00")
        sale = await a.sells(mug, quantity=3, buyer=a.user, affiliate=a.affiliate)
        await a.refunds(sale, 1)
        await a.sells(mug)
        heard = await user.hears(3)
        assert [each[:4] for each in heard] == [
            [None, None, f"tenant:{a.id}", "product_listed"],
            [None, None, mine, "new_transaction"],
            [None, None, mine, "transaction_refunded"],
        ]
        await served.views_reach(a)
        shown = (await served.get(a.user, f"/transactions/{sale.id}")).json()["data"]
        assert heard[2][4] == shown
        assert [each[:4] for each in await affiliate.hears(2)] == [
            [None, None, brought, "new_transaction"],
            [None, None, brought, "transaction_refunded"],
        ]
        assert [each[3] for each in await admin.hears(4)] == [
            "product_listed",
            "new_transaction",
            "transaction_refunded",
            "new_transaction",
        ]
        for each in (user, affiliate, admin):
            await each.beat()


async def test_who_left_or_was_refused_hears_nothing(address: str, a: House, b: House) -> None:
    async with talk(address, a.user) as user, talk(address, b.user) as other:
        await user.join(f"tenant:{a.id}")
        await other.join(f"tenant:{a.id}")
        await user.say(None, "9", f"tenant:{a.id}", "phx_leave", {})
        assert [each[3] for each in await user.hears(2)] == ["phx_reply", "phx_close"]
        async with talk(address, a.admin) as admin:
            await admin.join(f"tenant:{a.id}")
            await a.lists()
            await admin.hear()
        for each in (user, other):
            await each.beat()


async def test_a_duplicate_join_hears_each_event_once(address: str, a: House) -> None:
    topic = f"tenant:{a.id}"
    async with talk(address, a.user) as user:
        await user.join(topic, "1")
        await user.join(topic, "2")
        assert await user.hear() == ["1", "1", topic, "phx_close", {}]
        await a.lists()
        assert (await user.hear())[3] == "product_listed"
        await user.beat()


async def test_frames_are_the_same_in_1_0_0(address: str, a: House) -> None:
    topic = f"tenant:{a.id}"
    async with connect(url(address, a.user, vsn="1.0.0")) as opened:
        await opened.send(f'{{"topic":"{topic}","event":"phx_join","payload":{{}},"ref":"1"}}')
        talking = Talk(opened)
        assert (await talking.hear())["event"] == "phx_reply"
        product = await a.lists()
        told = await talking.hear()
        assert (told["topic"], told["event"], told["ref"], told["payload"]["id"]) == (
            topic,
            "product_listed",
            None,
            str(product.id),
        )


# Resuming


async def lists_many(a: House, count: int, prefix: str) -> None:
    for n in range(count):
        await a.lists(f"{prefix}{n}")


async def test_who_resumes_while_much_happens_misses_and_doubles_nothing(
    served: Served, address: str, a: House
) -> None:
    topic = f"tenant:{a.id}"
    begin = (await a.ledger.head(a.id)).position
    await lists_many(a, 10, "before")
    writing = asyncio.create_task(lists_many(a, 60, "during"))
    expected = [f"before{n}" for n in range(10)] + [f"during{n}" for n in range(60)]

    async def listens(at_once: int) -> list[str]:
        seen: list[str] = []
        last = served.parts.tokens.token(a.id, begin)
        while len(seen) < len(expected):
            async with talk(address, a.user) as user:
                await user.join(topic, payload={"from": last})
                some = await user.hears(min(at_once, len(expected) - len(seen)))
                seen += [each[4]["sku"] for each in some]
                last = some[-1][4]["position"]
        return seen

    for seen in await asyncio.gather(*(listens(at_once) for at_once in (1, 7, 13, 70))):
        assert seen == expected
    await writing


async def test_a_position_in_a_payload_is_its_events(served: Served, address: str, a: House) -> None:
    """The row may be newer: to go on after its position would skip what other rows did meanwhile."""
    begin = served.parts.tokens.token(a.id, (await a.ledger.head(a.id)).position)
    mug = await a.lists()
    sale = await a.sells(mug, buyer=a.user)
    other = await a.sells(mug, buyer=a.user)
    await a.refunds(sale, 1)
    topic = f"transaction:{a.user.id}"
    async with talk(address, a.user) as user:
        await user.join(topic, payload={"from": begin})
        first = await user.hear()
        assert first[4]["refunded"] == "9.00"
    async with talk(address, a.user) as user:
        await user.join(topic, payload={"from": first[4]["position"]})
        assert (await user.hear())[4]["id"] == str(other.id)


async def test_the_reply_names_the_position_and_a_wrong_one_is_refused(
    served: Served, address: str, a: House, b: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, token = f"tenant:{a.id}", served.parts.tokens.token
    head = (await a.ledger.head(a.id)).position
    monkeypatch.setattr(feeds, "BEHIND_MAX", 3)
    async with talk(address, a.user) as user:
        assert await user.join(topic) == {"status": "ok", "response": {"position": token(a.id, head)}}
        places: list[Any] = ["x", token(b.id, 1), token(a.id, head + 1), 5, {}]
        for wrong in places:
            refusal = await user.join(f"notification:{a.user.id}", payload={"from": wrong})
            assert refusal == {"status": "error", "response": {"reason": "malformed"}}, wrong
        behind = await user.join(f"notification:{a.user.id}", payload={"from": token(a.id, head - 4)})
        assert behind == {"status": "error", "response": {"reason": "refetch"}}
        assert (await user.join(f"notification:{a.user.id}", payload={"from": None}))["status"] == "ok"


# Commands


async def test_a_push_records_a_sale_as_http_does(served: Served, address: str, a: House) -> None:
    mug = await a.lists("MUG", "9.00")
    topic = f"transaction:{a.user.id}"
    async with talk(address, a.user) as user:
        await user.join(topic)
        answered = await user.ask("j", topic, "new_transaction", {"product_id": str(mug.id), "amount": "9.00"})
        assert answered["status"] == "ok", answered
        sale = answered["response"]["data"]
        assert (sale["buyer_id"], sale["amount"], sale["status"]) == (str(a.user.id), "9.00", "recorded")
        told = await user.hear()
        assert told[3:] == ["new_transaction", sale]
        cheap = await user.ask("j", topic, "new_transaction", {"product_id": str(mug.id), "amount": "1.00"})
        assert (cheap["status"], cheap["response"]["reason"]) == ("error", "invalid")
        assert list(cheap["response"]["errors"]) == ["lines.0.unit_price"]
        payloads: list[Any] = [5, None, [], {"what": 1}, {"lines": []}, {"buyer_id": str(a.admin.id), "lines": []}]
        for wrong in payloads:
            assert (await user.ask("j", topic, "new_transaction", wrong))["status"] == "error", wrong
        forbidden = {"lines": [{"sku": "MUG", "quantity": 1}], "source": "till"}
        assert (await user.ask("j", topic, "new_transaction", forbidden))["response"]["reason"] == "forbidden"


async def test_a_push_that_is_repeated_records_one_sale(address: str, a: House) -> None:
    await a.lists("MUG", "9.00")
    topic, lines = f"transaction:{a.user.id}", [{"sku": "MUG", "quantity": 1}]
    keyed = {"transaction": {"lines": lines}, "idempotency_key": "k1"}
    async with talk(address, a.user) as user:
        await user.join(f"notification:{a.user.id}")
        await user.join(topic)
        first = await user.ask("j", topic, "new_transaction", keyed)
        await user.hear()
        await user.say("j", "r", topic, "new_transaction", {"lines": lines})
        plain, _ = await user.hears(2)
        await user.say("j", "r", topic, "new_transaction", {"lines": lines})
        repeated = await user.hear()
        await user.beat()
    async with talk(address, a.user) as user:
        await user.join(topic)
        again = await user.ask("j", topic, "new_transaction", keyed)
        other = await user.ask("j", topic, "new_transaction", {**keyed, "transaction": {"lines": lines * 2}})
        bad = await user.ask("j", topic, "new_transaction", {**keyed, "idempotency_key": "é"})
    assert first == again
    assert plain[4] == repeated[4] != first
    assert other["response"]["reason"] == "idempotency-key-reused"
    assert list(bad["response"]["errors"]) == ["idempotency_key"]


async def test_an_event_without_a_handler_breaks_its_channel_alone(address: str, a: House) -> None:
    async with talk(address, a.user) as user:
        await user.join(f"tenant:{a.id}")
        await user.join(f"transaction:{a.user.id}")
        await user.say("j", "5", f"tenant:{a.id}", "new_transaction", {})
        assert await user.hear() == ["j", "j", f"tenant:{a.id}", "phx_error", {"reason": "channel_crash"}]
        await a.sells(await a.lists(), buyer=a.user)
        assert (await user.hear())[2:4] == [f"transaction:{a.user.id}", "new_transaction"]


# The end


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
    token = tokens.AccessTokens(SEED).issue(tenant_id=a.id, account_id=a.user.id, role="user", session_id=a.user.id)
    async with talk(address, Person(a.user.id, a.user.email, "user", token)) as user:
        assert await user.closed() == 1001


async def test_a_session_that_is_over_ends_its_sockets(served: Served, address: str, a: House) -> None:
    async with talk(address, a.user) as user, talk(address, a.admin) as admin:
        await user.beat()
        await admin.beat()
        served.app.state.sockets.disconnect(lambda who: who.account_id == a.user.id, "revoked")
        assert await user.closed() == 1001
        await admin.beat()


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
                line = next(iter(served.app.state.sockets._clients))._line
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
        for n in range(300):
            await admin.say(str(n), str(n), f"transaction:{n:08x}-0000-0000-0000-000000000000", "phx_join", {})
            await admin.say(str(n), "l", f"transaction:{n:08x}-0000-0000-0000-000000000000", "phx_leave", {})
        assert [each[3] for each in await admin.hears(900)].count("phx_close") == 300
        assert (live.listeners, live.topics) == (0, 0)
        assert next(iter(served.app.state.sockets._clients))._members == {}


def test_the_patterns_are_those_of_the_topics() -> None:
    assert client.PATTERNS == ("tenant:*", "transaction:*", "affiliate:*", "notification:*", "admin:*")
