"""Tickets: what opens a stream where no header can be sent, once, in any process."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio

from api.app import create_app
from bitnexus import expiry
from ledger import feed_tickets
from tests.api.house import PATIENCE_S, House, Person, Served, listening
from tests.api.streams import Stream


@pytest_asyncio.fixture
async def address(served: Served) -> AsyncIterator[str]:
    async with listening(served.app, served.parts) as address:
        yield address


async def issued(served: Served, person: Person) -> str:
    answer = await served.post(person, "/feed/tickets", None)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.json()["data"]["expires_in"] == 30
    ticket: str = answer.json()["data"]["ticket"]
    return ticket


async def tried(address: str, ticket: str) -> tuple[int, str]:
    """Status and, of a refusal, the text."""
    async with (
        httpx.AsyncClient(base_url=address, timeout=PATIENCE_S) as client,
        client.stream("GET", "/api/v1/feed", params={"ticket": ticket}) as response,
    ):
        return response.status_code, "" if response.status_code == 200 else (await response.aread()).decode()


class EventSource:
    """What browsers have: it sends no header but Last-Event-ID, comes back by itself to the same address when the stream ends,
    and stops for good at an answer that is not 200 (HTML Living Standard, 9.2.3)."""

    def __init__(self, client: httpx.AsyncClient, address: str) -> None:
        self._client, self.address = client, address
        self.last_id: str | None = None
        self.heard: list[Any] = []
        self.closed = False

    async def run(self) -> None:
        """Until it stops for good."""
        while not self.closed:
            try:
                await self._listen()
            except (StopAsyncIteration, httpx.HTTPError):
                await asyncio.sleep(0.05)  # a browser waits as long as `retry` says

    async def _listen(self) -> None:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": self.last_id} if self.last_id else {})}
        async with self._client.stream("GET", self.address, headers=headers) as response:
            if response.status_code != 200:
                self.closed = True
                return
            opened = Stream(response)
            while True:
                block = await opened.block()
                self.last_id = opened.last_id
                if block.name is not None:
                    self.heard.append(block)


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)


async def test_a_page_listens_by_ticket_and_comes_back_by_another_one(served: Served, a: House) -> None:
    """When the stream ends the browser tries the used ticket, is refused and stops; the page goes on with a new one."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        async with listening(served.app, served.parts) as address:
            first = EventSource(client, f"{address}/api/v1/feed?ticket={await issued(served, a.user)}")
            running = asyncio.create_task(first.run())
            await until(lambda: first.last_id)
            await a.lists("MUG")
            await until(lambda: len(first.heard) == 1)
        await a.lists("CUP")
        parts = dataclasses.replace(served.parts, stopping=asyncio.Event())
        async with listening(create_app(parts), parts) as address:
            first.address = f"{address}{first.address[first.address.index('/api') :]}"
            await running
            assert first.closed
            ticket = await issued(served, a.user)
            second = EventSource(client, f"{address}/api/v1/feed?ticket={ticket}&from={first.last_id}")
            running = asyncio.create_task(second.run())
            await until(lambda: second.heard)
            assert [each.data["sku"] for each in (*first.heard, *second.heard)] == ["MUG", "CUP"]
            running.cancel()


async def test_a_ticket_opens_one_stream_in_whichever_process_and_no_second(served: Served, a: House) -> None:
    """Whoever finds it in a log or a history must not be able to listen."""
    parts = dataclasses.replace(served.parts, stopping=asyncio.Event())
    async with listening(served.app, served.parts) as one, listening(create_app(parts), parts) as other:
        ticket = await issued(served, a.user)
        assert (await tried(other, ticket))[0] == 200
        for address in (one, other):
            assert (await tried(address, ticket))[0] == 401
        ticket = await issued(served, a.user)
        statuses = await asyncio.gather(*(tried(each, ticket) for each in (one, other, one, other, one, other)))
        assert sorted(status for status, _ in statuses) == [200, *[401] * 5]


async def test_a_ticket_that_is_too_old_is_refused(
    served: Served, address: str, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_tickets, "GOOD_S", 0)
    answer = await served.post(a.user, "/feed/tickets", None)
    assert (await tried(address, answer.json()["data"]["ticket"]))[0] == 401


async def test_a_ticket_ends_with_its_session(served: Served, address: str, a: House) -> None:
    ticket = await issued(served, a.user)
    assert (await served.post(a.user, "/auth/logout", None)).status_code == 204
    assert (await tried(address, ticket))[0] == 401


async def test_a_ticket_sees_what_its_owner_sees(served: Served, address: str, a: House, b: House) -> None:
    """And no longer than the access token that it was issued to."""
    ticket = await issued(served, a.user)
    async with (
        httpx.AsyncClient(base_url=address, timeout=PATIENCE_S) as client,
        client.stream("GET", "/api/v1/feed", params={"ticket": ticket}) as response,
    ):
        opened = Stream(response)
        await opened.block()
        await b.lists("CUP")
        mug = await a.lists("MUG")
        await a.sells(mug)
        await a.sells(mug, buyer=a.user)
        told = [await opened.event() for _ in range(2)]
    assert [(each.name, each.data["sku" if each.name == "product_listed" else "buyer_id"]) for each in told] == [
        ("product_listed", "MUG"),
        ("new_transaction", str(a.user.id)),
    ]
    ticket = await issued(served, a.user)
    refused = await served.get(None, "/feed", params={"ticket": ticket, "topics": f"tenant:{b.id}"})
    assert refused.status_code == 403


async def test_what_is_no_ticket_is_refused_and_not_repeated(
    served: Served, address: str, a: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers and logs are read by others: a ticket must be in none of them, a good one neither."""
    caplog.set_level(logging.INFO)
    good = await issued(served, a.user)
    changed = good[:-1] + ("A" if good[-1] != "A" else "B")
    for wrong in ("", "x", "ä" * 64, "A" * 64, changed, f"{good}A", good.upper()):
        status, text = await tried(address, wrong)
        assert (status, "ticket is not valid" in text, good[:16] in text) == (401, True, False), wrong
    async with httpx.AsyncClient(base_url=address) as client:
        assert (await client.get("/api/v1/feed?ticket=" + "&a=" * 200)).status_code == 401
    assert (await tried(address, good))[0] == 200
    # What the client logs, and uvicorn's own log of requests, which `bitnexus serve` turns off, is not ours.
    others = ("httpx", "httpcore", "uvicorn.access")
    told = [record.getMessage() for record in caplog.records if not record.name.startswith(others)]
    assert not [each for each in told if good in each or good[22:] in each]
    assert good not in (await served.parts.scrape()).decode()


async def test_the_database_knows_no_ticket_and_forgets_the_unused(
    served: Served, a: House, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump must open no stream, and a page that asks again and again must not fill the table."""
    found = [await issued(served, a.user) for _ in range(feed_tickets.UNUSED_MAX + 3)]
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("SET ROLE bitnexus_writer")
        rows = owner.execute("SELECT digest, session_id, holder FROM ledger.feed_tickets").fetchall()
        assert (len(rows), {row[1] for row in rows}) == (feed_tickets.UNUSED_MAX, {a.user.session_id})
        assert not [each for each in found if each[22:].encode() in b"".join(row[0] + row[2] for row in rows)]
        assert [(await served.get(None, "/feed", params={"ticket": each})).status_code for each in found[:3]] == [
            401
        ] * 3
        monkeypatch.setattr(feed_tickets, "GOOD_S", -1)
        await served.post(a.admin, "/feed/tickets", None)
        async with served.parts.projector.connection() as connection:
            await connection.execute(expiry.EXPIRE_TICKETS, (expiry.TICKETS_MAX,))
        rows = owner.execute("SELECT session_id FROM ledger.feed_tickets").fetchall()
        assert [row[0] for row in rows] == [a.user.session_id] * feed_tickets.UNUSED_MAX
