"""The npm package `phoenix` cannot tell this server from Phoenix, and with `from` it misses nothing."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.clients.conftest import Shop, open_shop
from tests.clients.node import Node, node
from tests.world import Database

PACKAGES = ("phoenix-1.7", "phoenix-1.8")


@contextlib.asynccontextmanager
async def client(package: str, shop: Shop, **options: Any) -> AsyncIterator[Node]:
    """Connecting."""
    if "authToken" not in options:
        options.setdefault("token", shop.token)
    async with node("client.cjs", package, shop.socket, json.dumps(options)) as running:
        await running.do(do="connect")
        yield running


def skus(messages: list[dict[str, Any]]) -> list[str]:
    return [each["payload"]["sku"] for each in messages]


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_page_joins_hears_pushes_and_leaves(shop: Shop, package: str) -> None:
    topic, mine = f"tenant:{shop.tenant_id}", f"transaction:{shop.user_id}"
    async with client(package, shop) as page:
        await page.until(on="open")
        await page.do(do="join", topic=topic)
        assert (await page.until(on="joined", topic=topic))["response"]["position"]
        await page.do(do="join", topic=mine)
        await page.until(on="joined", topic=mine)
        await page.do(do="join", topic="tenant:x")
        assert (await page.until(on="refused"))["response"] == {"reason": "unauthorized"}
        await page.do(do="join", topic="nothing")
        assert (await page.until(on="refused", topic="nothing"))["response"] == {"reason": "unmatched topic"}
        await shop.lists("MUG")
        told = await page.until(on="message")
        assert (told["event"], told["payload"]["sku"]) == ("product_listed", "MUG")
        sale = {"lines": [{"sku": "MUG", "quantity": 2}], "buyer_id": shop.user_id}
        await page.do(do="push", topic=mine, event="new_transaction", payload=sale)
        answered = [await page.until(on=what) for what in ("reply", "message")]
        assert answered[0]["status"] == "ok"
        assert answered[0]["response"]["data"]["id"] == answered[1]["payload"]["id"]
        await page.do(do="push", topic=mine, event="new_transaction", payload={})
        refused = await page.until(on="reply")
        assert (refused["status"], refused["response"]["reason"]) == ("error", "invalid")
        await page.do(do="push", topic=mine, event="new_transaction", payload={"bytes": [1, 2, 255]})
        assert (await page.until(on="reply"))["response"]["reason"] == "malformed"
        await page.do(do="leave", topic=topic)
        await page.until(on="left", topic=topic)
        await shop.lists("CUP")
        await page.do(do="push", topic=mine, event="new_transaction", payload={})
        await page.until(on="reply")
        assert "CUP" not in json.dumps(page.heard)


async def test_the_token_goes_among_the_subprotocols(shop: Shop) -> None:
    """The option authToken of clients from 1.8.0 on."""
    topic = f"tenant:{shop.tenant_id}"
    async with client("phoenix-1.8", shop, authToken=shop.token) as page:
        await page.do(do="join", topic=topic)
        await page.until(on="joined", topic=topic)


@pytest.mark.parametrize("package", PACKAGES)
async def test_who_is_refused_goes_on_trying_with_a_new_token(shop: Shop, package: str) -> None:
    async with client(package, shop, token="stale") as page:
        for _ in range(2):
            await page.until(on="close", code=1006)
        await page.do(do="token", token=shop.token)
        await page.until(on="open")


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_channel_that_broke_is_joined_again(shop: Shop, package: str) -> None:
    topic = f"tenant:{shop.tenant_id}"
    async with client(package, shop) as page:
        await page.do(do="join", topic=topic)
        await page.until(on="joined")
        await page.do(do="push", topic=topic, event="nobody_handles_this", payload={})
        await page.until(on="channel_error")
        await page.until(on="joined")


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_after_a_restart_it_comes_back_and_misses_nothing(shop: Shop, package: str, killed: bool) -> None:
    topic = f"tenant:{shop.tenant_id}"
    async with client(package, shop) as page:
        await page.do(do="join", topic=topic, follow=True)
        await page.until(on="joined")
        await shop.lists("A1", "A2")
        assert skus(await page.messages(2)) == ["A1", "A2"]
        await (shop.site.kill() if killed else shop.site.stop())
        assert (await page.until(on="close"))["code"] == (1006 if killed else 1012)
        await shop.site.start()
        await shop.lists("B1", "B2")  # perhaps before it is back
        await page.until(on="open")
        assert skus(await page.messages(2)) == ["B1", "B2"]
        await shop.lists("C1")
        assert skus(await page.messages(1)) == ["C1"]
        assert [each["payload"]["sku"] for each in page.heard if each["on"] == "message"] == [
            "A1",
            "A2",
            "B1",
            "B2",
            "C1",
        ]


async def test_the_database_goes_away_for_a_while(shop: Shop, server: str, database: Database) -> None:
    topic = f"tenant:{shop.tenant_id}"
    name = sql.Identifier(database.name)
    async with client("phoenix-1.8", shop) as page:
        await page.do(do="join", topic=topic, follow=True)
        await page.until(on="joined")
        await shop.lists("A1")
        await page.messages(1)
        with psycopg.connect(server, autocommit=True) as owner:
            owner.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(name))
            owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database.name,))
            await asyncio.sleep(10)
            owner.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(name))
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(AssertionError):
                    await shop.lists("B1")
                    break
                await asyncio.sleep(0.2)
        assert skus(await page.messages(1)) == ["B1"]
        assert [each["on"] for each in page.heard].count("open") == 1


# Raw frames


async def test_raw_frames(shop: Shop) -> None:
    """What no library hides: order, opcodes, fragments, pings, the subprotocol and the extensions."""
    topic = f"tenant:{shop.tenant_id}"
    bearer = base64.b64encode(shop.token.encode()).decode().rstrip("=")
    async with node(
        "frames.cjs", f"{shop.socket}/websocket?vsn=2.0.0", "phoenix", f"base64url.bearer.phx.{bearer}"
    ) as raw:
        assert await raw.hear() == {"on": "open", "protocol": "phoenix", "extensions": ""}
        join, heartbeat = json.dumps(["1", 2, topic, "phx_join", {}]), '[null,"3","phoenix","heartbeat",{}]'
        await raw.do(text=join)
        await raw.do(fragments=[heartbeat[:5], heartbeat[5:9], heartbeat[9:]])
        texts = [json.loads((await raw.hear())["text"])[:4] for _ in range(2)]
        assert texts == [["1", 2, topic, "phx_reply"], [None, "3", "phoenix", "phx_reply"]]
        await raw.do(ping=True)
        assert await raw.hear() == {"on": "pong"}
        leave = b"\x00\x01\x01" + bytes((len(topic), 9)) + b"14" + topic.encode() + b"phx_leave"
        await raw.do(bytes=list(leave))
        closing = [json.loads((await raw.hear())["text"])[:4] for _ in range(2)]
        assert closing == [["1", "4", topic, "phx_reply"], ["1", "1", topic, "phx_close"]]
        await raw.do(close=1000)
        assert await raw.hear() == {"on": "close", "code": 1000}
    async with node("frames.cjs", f"{shop.socket}/websocket?vsn=2.0.0&token=x") as raw:
        assert await raw.hear() == {"on": "answer", "status": 403, "body": ""}


@pytest.mark.parametrize("frame", ["x", "", "[1]", '[null,"1","phoenix","heartbeat","\\ud800"]', "[" * 100_000])
async def test_a_violation_closes_with_1011(shop: Shop, frame: str) -> None:
    async with node("frames.cjs", f"{shop.socket}/websocket?vsn=2.0.0&token={shop.token}") as raw:
        await raw.hear()
        await raw.do(text=frame)
        assert await raw.hear() == {"on": "close", "code": 1011}


@pytest.mark.parametrize("package", PACKAGES)
async def test_the_clients_presence_follows_who_is_there(shop: Shop, package: str) -> None:
    topic, join = f"tenant:{shop.tenant_id}", {"do": "join", "payload": {"presence": True}, "presence": True}
    async with client(package, shop) as first:
        await first.do(topic=topic, **join)
        await first.until(on="presence", keys=[[shop.user_id, 1]])
        async with client(package, shop) as second:
            await second.do(topic=topic, **join)
            await second.until(on="presence", keys=[[shop.user_id, 2]])
            await first.until(on="presence", keys=[[shop.user_id, 2]])
        await first.until(on="presence", keys=[[shop.user_id, 1]])


# Long polling


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("blocked", [False, True], ids=["open", "blocked"])
async def test_only_a_page_whose_websockets_do_not_come_through_falls_back(
    shop: Shop, package: str, blocked: bool
) -> None:
    """By the option longPollFallbackMs: whoever can have a WebSocket must not be taken for one who cannot."""
    topic = f"tenant:{shop.tenant_id}"
    async with client(package, shop, longPollFallbackMs=1_000, blocked=blocked) as page:
        await page.until(on="open", longpoll=blocked)
        await page.do(do="join", topic=topic)
        await page.until(on="joined", topic=topic)
        await asyncio.sleep(1.5)
        await shop.lists("A1")
        assert skus(await page.messages(1)) == ["A1"]
        assert [each["longpoll"] for each in page.heard if each["on"] == "open"] == [blocked]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("longpoll", [False, True], ids=["websocket", "longpoll"])
async def test_who_logs_out_is_disconnected_and_comes_back_when_logged_in(
    shop: Shop, package: str, longpoll: bool
) -> None:
    """On every page, also one that asks for nothing; it goes on trying, and misses nothing once it has a token again."""
    topic = f"tenant:{shop.tenant_id}"
    async with client(package, shop, longpoll=longpoll) as page:
        await page.do(do="join", topic=topic, follow=True)
        await page.until(on="joined")
        await shop.lists("A1")
        await page.messages(1)
        await shop.logs_out()
        closed = await page.until(on="close")
        assert longpoll or closed["code"] == 1001
        await page.until(on="close", code=1008 if longpoll else 1006)  # refused
        again = await open_shop(shop.site)
        await again.lists("B1")
        await page.do(do="token", token=again.token)
        assert skus(await page.messages(1)) == ["B1"]


@pytest.mark.parametrize("package", PACKAGES)
async def test_long_polling(shop: Shop, package: str) -> None:
    topic, mine = f"tenant:{shop.tenant_id}", f"transaction:{shop.user_id}"
    async with client(package, shop, longpoll=True) as page:
        await page.until(on="open")
        await page.do(do="join", topic=topic, follow=True)
        await page.until(on="joined", topic=topic)
        await page.do(do="join", topic=mine)
        await page.until(on="joined", topic=mine)
        await shop.lists("A1", "A2")
        assert skus(await page.messages(2)) == ["A1", "A2"]
        await page.do(do="push", topic=mine, event="new_transaction", payload={"lines": []})
        assert (await page.until(on="reply"))["response"]["reason"] == "invalid"
        await shop.site.kill()
        await shop.site.start()
        await shop.lists("B1")
        told = await page.until(on="message", topic=topic)
        assert told["payload"]["sku"] == "B1"
