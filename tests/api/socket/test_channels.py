"""Channels over a real server: who may join what, what is told, resuming, and commands that are pushed."""

import asyncio
from typing import Any

import psycopg
import pytest
from websockets.asyncio.client import connect

from api.feed import feed as feeds
from api.socket import client, sockets
from domain import accounts, tenants
from projections import catalogue
from tests.api import house
from tests.api.house import PATIENCE_S, House, Served
from tests.api.socket.talk import Talk, talk, url
from tests.api.test_refusals_kept import open_to_all, stored
from tests.world import World

UNAUTHORIZED = {"status": "error", "response": {"reason": "unauthorized"}}


async def test_each_joins_what_is_his(address: str, a: House, b: House) -> None:
    user, affiliate = a.user.id, a.affiliate.id
    everybody = [f"tenant:{a.id}", f"transaction:{user}", f"affiliate:{user}", f"notification:{user}"]
    admins = ["admin:events", "admin:transactions", f"transaction:{affiliate}"]
    nobody = [f"tenant:{b.id}", f"notification:{affiliate}", f"transaction:{str(user).upper()}", "transaction:x"]
    async with talk(address, a.user) as mine, talk(address, a.admin) as admin:
        for topic in everybody:
            assert (await mine.join(topic))["status"] == "ok", topic
        for topic in [*admins, *nobody, "admin:projections", "admin:x"]:
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


async def test_a_push_that_was_refused_stays_refused_under_its_key(address: str, a: House, world: World) -> None:
    """Over another connection, too, though the product is listed by now; who has not the push cannot read it."""
    topic, lines = f"transaction:{a.user.id}", [{"sku": "MUG", "quantity": 1}]
    keyed = {"lines": lines, "idempotency_key": "k1"}
    async with talk(address, a.user) as user:
        await user.join(topic)
        first = await user.ask("j", topic, "new_transaction", keyed)
    with psycopg.connect(world.database.owner_url) as owner:
        assert len(stored(owner)) == 1
        assert open_to_all(owner) == []
    await a.lists("MUG", "9.00")
    async with talk(address, a.user) as user:
        await user.join(topic)
        again = await user.ask("j", topic, "new_transaction", keyed)
        other = await user.ask("j", topic, "new_transaction", {**keyed, "idempotency_key": "k2"})
    assert (first["status"], first["response"]["reason"]) == ("error", "invalid")
    assert again == first
    assert other["status"] == "ok"


async def test_a_push_over_the_tenants_limit_is_refused_as_by_http(
    served: Served, address: str, a: House, world: World
) -> None:
    """Or a socket would be the way round what the platform allows a tenant."""
    await a.lists("MUG")
    root = await house.person(world, tenants.PLATFORM_ID, accounts.Role.SUPER_ADMIN, "root@platform.test")
    path, topic = f"/platform/tenants/{a.id}/limits", f"transaction:{a.admin.id}"
    assert (await served.ask(root, "PUT", path, json={"events_per_day": 3})).status_code == 200
    sale = {"lines": [{"sku": "MUG", "quantity": 1}]}
    async with talk(address, a.admin) as admin:
        await admin.join(topic)
        answered = [await admin.ask("j", topic, "new_transaction", sale) for _ in range(4)]
        assert [each["status"] for each in answered] == ["ok", "ok", "error", "error"]  # the mug was the first
        assert answered[-1]["response"]["reason"] == "limit-reached"
        assert (await served.post(a.admin, "/transactions", sale)).status_code == 403
        assert (await served.ask(root, "PUT", path, json={})).status_code == 200
        async with asyncio.timeout(PATIENCE_S):
            while (await admin.ask("j", topic, "new_transaction", sale))["status"] != "ok":  # noqa: ASYNC110  limits are read anew after seconds
                await asyncio.sleep(0.05)


async def test_an_event_without_a_handler_breaks_its_channel_alone(address: str, a: House) -> None:
    async with talk(address, a.user) as user:
        await user.join(f"tenant:{a.id}")
        await user.join(f"transaction:{a.user.id}")
        await user.say("j", "5", f"tenant:{a.id}", "new_transaction", {})
        assert await user.hear() == ["j", "j", f"tenant:{a.id}", "phx_error", {"reason": "channel_crash"}]
        await a.sells(await a.lists(), buyer=a.user)
        assert (await user.hear())[2:4] == [f"transaction:{a.user.id}", "new_transaction"]


async def test_admins_are_told_how_far_the_views_are(served: Served, address: str, a: House) -> None:
    async with talk(address, a.admin) as admin:
        await admin.join("admin:projections")
        told = await admin.hears(len(catalogue.VIEWS))
        assert {each[4]["view"] for each in told} == {view.name for view in catalogue.VIEWS}
        assert {tuple(each[:4]) for each in told} == {(None, None, "admin:projections", "projection")}
        await a.lists()
        head = served.parts.tokens.token(a.id, (await a.ledger.head(a.id)).position)
        async with asyncio.timeout(PATIENCE_S):
            while (lag := (await admin.hear())[4])["view"] != "products" or lag["position"] != head:
                pass
        shown = (await served.get(a.admin, "/admin/projections")).json()["data"]
        assert set(lag) == set(shown[0])


async def test_a_channel_that_hears_nothing_moves_on_if_it_asks_for_that(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever sees little of a busy tenant is told at each return to fetch all anew."""
    monkeypatch.setattr(client, "MARK_S", 0.05)
    monkeypatch.setattr(sockets, "LOOK_S", 0.05)
    topic = f"transaction:{a.user.id}"
    async with talk(address, a.user) as user, talk(address, a.user) as old:
        await old.join(topic)
        await user.join(topic, payload={"positions": True})
        await a.refunds_the_unknown()
        head = served.parts.tokens.token(a.id, (await a.ledger.head(a.id)).position)
        told: Any = [None] * 5
        async with asyncio.timeout(PATIENCE_S):
            while told[4] != {"position": head}:
                told = await user.hear()
                assert told[:4] == ["j", None, topic, "position"]
        await old.beat()
