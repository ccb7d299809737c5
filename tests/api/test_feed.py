"""Server-sent events: what comes, to whom, and that nothing is lost or told twice."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from api import tokens
from api.app import create_app
from api.feed import controller, feed, past, queue, tail
from api.parts import Parts
from tests.api import house
from tests.api.house import PATIENCE_S, House, Person, Served, listening
from tests.api.streams import Event, stream


@pytest_asyncio.fixture
async def address(served: Served) -> AsyncIterator[str]:
    async with listening(served.app, served.parts) as address:
        yield address


def positions(parts: Parts, house: House, events: list[Event]) -> list[int]:
    return [parts.tokens.position(house.id, event.id or "") for event in events]


async def test_a_stream_begins_with_where_it_is(served: Served, address: str, a: House) -> None:
    head = (await a.ledger.head(a.id)).position
    async with stream(address, a.user) as opened:
        assert opened.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert opened.response.headers["Cache-Control"] == "no-store"
        assert opened.response.headers["X-Accel-Buffering"] == "no"
        assert opened.retry_ms == 1000
        assert opened.last_id == served.parts.tokens.token(a.id, head)


async def test_each_sees_by_stream_what_he_sees_by_query(served: Served, address: str, a: House, b: House) -> None:
    async with stream(address, a.admin) as admin, stream(address, a.user) as user, stream(address, b.admin) as other:
        mug = await a.lists("MUG", "9.00")
        bought = await a.sells(mug, quantity=3, buyer=a.user)
        brought = await a.sells(mug, affiliate=a.affiliate)
        await a.refunds(bought, 1)
        unmatched = await a.refunds_the_unknown()
        await b.lists("CUP")
        told = await admin.events(5)
        assert [(event.name, event.data["id"]) for event in told] == [
            ("product_listed", str(mug.id)),
            ("new_transaction", str(bought.id)),
            ("new_transaction", str(brought.id)),
            ("transaction_refunded", str(bought.id)),
            ("refund_recorded", str(unmatched.id)),
        ]
        mine = await user.events(3)
        assert [(event.name, event.data["id"]) for event in mine] == [
            ("product_listed", str(mug.id)),
            ("new_transaction", str(bought.id)),
            ("transaction_refunded", str(bought.id)),
        ]
        assert (await other.event()).data["sku"] == "CUP"
    shown = (await served.get(a.user, f"/transactions/{bought.id}")).json()["data"]
    assert mine[-1].data == shown
    assert positions(served.parts, a, told) == sorted(positions(served.parts, a, told))


async def test_who_resumes_sees_no_more_than_who_stayed(served: Served, address: str, a: House) -> None:
    begin = (await a.ledger.head(a.id)).position
    mug = await a.lists()
    await a.sells(mug, buyer=a.user)
    await a.refunds_the_unknown()
    brought = await a.sells(mug, affiliate=a.affiliate)
    async with stream(address, a.affiliate, served.parts.tokens.token(a.id, begin)) as opened:
        told = await opened.events(2)
    assert [event.data["id"] for event in told] == [str(mug.id), str(brought.id)]


async def test_who_comes_from_a_process_that_was_ahead_hears_nothing_again(served: Served, a: House) -> None:
    """A process whose tail is behind must not tell again what the client had from another one."""
    live: feed.Feed = served.app.state.feed
    first = await live.join(a.id, (f"tenant:{a.id}",), queue.Queue(controller.encode, 0), None)
    first.tail.position -= 2  # as if it had not read the last two yet
    await a.lists("MUG")
    sink = queue.Queue(controller.encode, 0)
    at = (await a.ledger.head(a.id)).position
    listener = await live.join(a.id, (f"tenant:{a.id}",), sink, at)
    assert not listener.live
    first.tail.wake.set()
    async with asyncio.timeout(PATIENCE_S):
        await live.catch_up(listener, a.user.id)
    await a.lists("CUP")
    async with asyncio.timeout(PATIENCE_S):
        await sink.wake.wait()
    told = sink.take()
    assert (told.count(b"event: "), b'"CUP"' in told, listener.live) == (1, True, True)
    for each in (first, listener):
        live.leave(each)


async def test_a_message_on_two_topics_of_a_listener_comes_once(served: Served, a: House) -> None:
    live: feed.Feed = served.app.state.feed
    sink = queue.Queue(controller.encode, 0)
    listener = await live.join(a.id, (f"tenant:{a.id}", "admin:events"), sink, None)
    await a.lists("MUG")
    async with asyncio.timeout(PATIENCE_S):
        await sink.wake.wait()
    assert sink.take().count(b"event: ") == 1
    live.leave(listener)
    assert (live.listeners, live.topics, live.tails) == (0, 0, 0)


async def test_a_thousand_that_come_back_read_the_past_once(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart all come back within a second, each from where it was."""
    begin = (await a.ledger.head(a.id)).position
    await lists_many(a, 8, "x")
    live: feed.Feed = served.app.state.feed
    reads = []
    entries = served.parts.ledger.entries

    async def counted(*arguments: Any) -> Any:
        reads.append(arguments)
        return await entries(*arguments)

    monkeypatch.setattr(served.parts.ledger, "entries", counted)
    stayed = await live.join(a.id, (f"tenant:{a.id}",), queue.Queue(controller.encode, 0), None)
    sinks = [queue.Queue(controller.encode, 0) for _ in range(50)]
    listeners = [await live.join(a.id, (f"tenant:{a.id}",), sink, begin + n % 8) for n, sink in enumerate(sinks)]
    await asyncio.gather(*(live.catch_up(each, a.user.id) for each in listeners))
    assert [sink.take().count(b"event: ") for sink in sinks] == [8 - n % 8 for n in range(50)]
    assert len([each for each in reads if each[1] < begin + 8]) == 1
    for each in (stayed, *listeners):
        live.leave(each)


async def test_changes_of_products_have_their_names(served: Served, address: str, a: House) -> None:
    product = await a.lists()
    async with stream(address, a.affiliate) as opened:
        path = f"/products/{product.id}"
        await served.ask(a.admin, "PATCH", path, json={"name": "Cup"})
        await served.ask(a.admin, "PUT", f"{path}/price", json={"price": "7"})
        await served.ask(a.admin, "DELETE", path)
        names = [event.name for event in await opened.events(3)]
    assert names == ["product_renamed", "product_repriced", "product_retired"]


async def lists_many(a: House, count: int, prefix: str) -> None:
    for n in range(count):
        await a.lists(f"{prefix}{n}")


async def test_who_resumes_while_much_happens_misses_and_doubles_nothing(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seam between what the ledger gives and what is live, tried at many moments."""
    monkeypatch.setattr(tail, "EVENTS_PER_READ", 3)
    monkeypatch.setattr(past, "STRETCH", 3)
    begin = (await a.ledger.head(a.id)).position
    await lists_many(a, 10, "before")
    writing = asyncio.create_task(lists_many(a, 60, "during"))
    expected = list(range(begin + 1, begin + 71))

    async def listens(last_id: str, at_once: int) -> list[int]:
        """Leaves after a few events, comes back with the last id, until all is there."""
        seen: list[int] = []
        while len(seen) < len(expected):
            async with stream(address, a.user, last_id) as opened:
                some = await opened.events(min(at_once, len(expected) - len(seen)))
                seen += positions(served.parts, a, some)
                last_id = opened.last_id or ""
        return seen

    first = served.parts.tokens.token(a.id, begin)
    for seen in await asyncio.gather(*(listens(first, at_once) for at_once in (1, 7, 13, 70))):
        assert seen == expected
    await writing


async def test_a_listener_misses_nothing_when_the_server_is_restarted(served: Served, a: House) -> None:
    begin = (await a.ledger.head(a.id)).position
    last_id: str | None = served.parts.tokens.token(a.id, begin)
    seen: list[int] = []
    async with listening(served.app, served.parts) as address, stream(address, a.user, last_id) as opened:
        await lists_many(a, 5, "first")
        seen += positions(served.parts, a, await opened.events(3))
        last_id = opened.last_id
    await lists_many(a, 5, "between")
    parts = dataclasses.replace(served.parts, stopping=asyncio.Event())
    async with listening(create_app(parts), parts) as address, stream(address, a.user, last_id) as opened:
        await lists_many(a, 5, "then")
        seen += positions(parts, a, await opened.events(12))
    assert seen == list(range(begin + 1, begin + 16))


async def test_a_stream_ends_when_the_process_stops(served: Served, a: House) -> None:
    async with listening(served.app, served.parts) as address, stream(address, a.user) as opened:
        served.parts.stopping.set()
        await opened.ends()


async def test_a_quiet_listener_moves_on(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sees little would otherwise resume from long ago, and be told to fetch all anew."""
    monkeypatch.setattr(controller, "KEEP_ALIVE_S", 0.05)
    async with stream(address, a.user) as opened:
        await a.refunds_the_unknown()
        head = served.parts.tokens.token(a.id, (await a.ledger.head(a.id)).position)
        async with asyncio.timeout(PATIENCE_S):
            while opened.last_id != head:
                block = await opened.block()
                assert (block.name, block.data) == (None, None)


async def test_where_a_stream_begins_is_before_what_happens_meanwhile(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is cut off after the first id and resumes from there must not miss what was queued behind it."""
    head = (await a.ledger.head(a.id)).position
    begun = controller._Connection.__call__

    async def late(connection: Any, *arguments: Any) -> None:
        await a.lists("MUG")
        await connection._queue.wake.wait()
        await begun(connection, *arguments)

    monkeypatch.setattr(controller._Connection, "__call__", late)
    async with stream(address, a.user) as opened:
        assert opened.last_id == served.parts.tokens.token(a.id, head)
        assert (await opened.event()).data["sku"] == "MUG"


async def test_a_stream_whose_past_cannot_be_told_ends(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be kept alive by its marks, and tell nothing for ever."""
    head = (await a.ledger.head(a.id)).position

    async def broken(listener: tail.Listener) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(served.app.state.feed, "catch_up", broken)
    async with stream(address, a.user, served.parts.tokens.token(a.id, head - 1)) as opened:
        await opened.ends()


async def test_the_query_can_say_where_to_begin_and_the_header_goes_before_it(
    served: Served, address: str, a: House
) -> None:
    begin = (await a.ledger.head(a.id)).position
    await lists_many(a, 3, "x")
    auditor = {"from": str(begin + 1)}
    async with stream(address, a.admin, **auditor) as opened:
        assert positions(served.parts, a, await opened.events(2)) == [begin + 2, begin + 3]
    token = {"from": served.parts.tokens.token(a.id, begin)}
    async with stream(address, a.user, served.parts.tokens.token(a.id, begin + 2), **token) as opened:
        assert positions(served.parts, a, await opened.events(1)) == [begin + 3]


async def test_a_place_that_there_is_not_is_refused(
    served: Served, a: House, b: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = (await a.ledger.head(a.id)).position
    token = served.parts.tokens.token
    for wrong in (token(a.id, head + 1), token(b.id, 1), "x", "1", "A" * 32):
        refused = await served.get(a.user, "/feed", params={"from": wrong})
        assert refused.status_code == 400, wrong
        refused = await served.get(a.user, "/feed", headers={"Last-Event-ID": wrong})
        assert refused.status_code == 400, wrong
    monkeypatch.setattr(feed, "BEHIND_MAX", 3)
    refused = await served.get(a.user, "/feed", params={"from": token(a.id, head - 4)})
    assert (refused.status_code, refused.json()["type"]) == (410, "urn:bitnexus:problem:refetch")
    assert (served.app.state.feed.listeners, served.app.state.feed.tails) == (0, 0)


async def test_a_stream_ends_with_its_token(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LIFETIME_S", 2)
    token = house.access_tokens().issue(tenant_id=a.id, account_id=a.user.id, role="user", session_id=a.user.id)
    async with stream(address, Person(a.user.id, a.user.email, "user", token)) as opened:
        await opened.ends()


async def test_a_stream_says_that_its_token_has_expired(
    address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where so much happens that its queue is never empty. The client refreshes, and resumes."""
    monkeypatch.setattr(tokens, "LIFETIME_S", 2)
    token = house.access_tokens().issue(tenant_id=a.id, account_id=a.user.id, role="user", session_id=a.user.id)
    async with stream(address, Person(a.user.id, a.user.email, "user", token)) as opened:
        assert await opened.event() == Event(None, "session_ended", {"reason": "token_expired"})
        await opened.ends()


async def test_a_stream_ends_when_its_session_does(served: Served, address: str, a: House) -> None:
    """Who logs out on one device must not go on watching on it."""
    async with stream(address, a.user) as opened, stream(address, a.admin) as other:
        assert (await served.post(a.user, "/auth/logout", None)).status_code == 204
        assert await opened.event() == Event(None, "session_ended", {"reason": "session_revoked"})
        await opened.ends()
        await a.lists()
        assert (await other.event()).name == "product_listed"
        assert (await served.get(a.user, "/feed")).status_code == 401


async def test_streams_end_when_their_tenant_is_suspended(served: Served, address: str, a: House, b: House) -> None:
    known = served.parts.ledger.revocations
    async with stream(address, a.user) as first, stream(address, a.admin) as second, stream(address, b.admin) as other:
        known.learn(a.id, a.id, True)
        for opened in (first, second):
            assert await opened.event() == Event(None, "session_ended", {"reason": "tenant_suspended"})
            await opened.ends()
        await b.lists()
        assert (await other.event()).name == "product_listed"
    live: feed.Feed = served.app.state.feed
    async with asyncio.timeout(PATIENCE_S):
        while live.listeners:  # noqa: ASYNC110  nobody tells when they are gone
            await asyncio.sleep(0.01)
    assert not known._listeners


async def test_who_leaves_is_noticed(served: Served, address: str, a: House, b: House) -> None:
    """Otherwise every page that was ever open would cost for ever."""
    live: feed.Feed = served.app.state.feed
    async with stream(address, a.user), stream(address, a.admin), stream(address, b.admin):
        assert (live.listeners, live.tails) == (3, 2)
    async with asyncio.timeout(PATIENCE_S):
        while live.listeners or live.tails or feed_tasks():  # noqa: ASYNC110  nobody tells when they are gone
            await asyncio.sleep(0.01)


def feed_tasks() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("feed-") and name != "feed-stopping"]


async def test_a_client_that_does_not_read_is_let_go_and_the_others_are_not(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "QUEUED_MAX", 3)
    live: feed.Feed = served.app.state.feed
    slow, quick = queue.Queue(controller.encode, 0), queue.Queue(controller.encode, 0)
    listeners = [await live.join(a.id, (f"tenant:{a.id}",), each, None) for each in (slow, quick)]
    for n in range(5):
        await a.lists(f"S{n}")
        async with asyncio.timeout(PATIENCE_S):
            await quick.wake.wait()
        assert quick.take()
    assert (slow.ended.is_set(), quick.ended.is_set()) == (True, False)
    assert slow.take().count(b"event: ") == 3
    for listener in listeners:
        live.leave(listener)
    assert live.tails == 0


async def test_a_stream_does_not_hold_up_a_database_that_comes_back(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tail whose read fails goes on from where it was."""

    monkeypatch.setattr(tail, "RETRY_S", 0.01)
    entries, failures = served.parts.ledger.entries, 2

    async def flaky(*arguments: object) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise psycopg.OperationalError("gone")
        return await entries(*arguments)  # type: ignore[arg-type]  # as they came

    async with stream(address, a.user) as opened:
        monkeypatch.setattr(served.parts.ledger, "entries", flaky)
        await a.lists("MUG")
        assert (await opened.event()).data["sku"] == "MUG"
