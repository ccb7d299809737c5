"""The summary as it stood: what was shown then is shown again, to nobody else, and for no longer than somebody waits."""

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest

from api import past
from ledger.positions import Tokens
from projections import batches, travel
from tests.api import house
from tests.api.house import PATIENCE_S, House, Served
from tests.world import MASTER, World

PATH = "/transactions/summary"
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bitnexus past'"
)


async def shown(served: Served, house: House, **parameters: object) -> dict[str, Any]:
    answer = await served.get(house.admin, PATH, params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def head(house: House) -> int:
    return (await house.ledger.head(house.id)).position


async def test_what_was_shown_is_shown_again_at_each_position(served: Served, a: House, b: House) -> None:
    """A refund of today must not change what last month's report said."""
    seen: dict[int, dict[str, Any]] = {}
    mug = await a.lists()
    for quantity in (1, 2, 3):
        sale = await a.sells(mug, quantity)
        await b.sells(await b.lists(sku=f"MUG-{quantity}"), 9)
        await served.views_reach(a)
        seen[await head(a)] = await shown(served, a)
        await a.refunds(sale, 1)
    await served.views_reach(a)
    seen[await head(a)] = await shown(served, a)
    assert len({str(each) for each in seen.values()}) == 4
    entries = (await served.get(a.admin, "/ledger/entries")).json()["data"]
    for position, then in seen.items():
        recorded_at = datetime.fromisoformat(entries[position - 1]["recorded_at"]).isoformat()
        for at in (position, Tokens(MASTER).token(a.id, position), recorded_at):
            answer = await served.get(a.admin, PATH, params={"at": at})
            assert (answer.json(), answer.headers["X-Position"]) == (then, str(position))
    nothing = {"data": [], "meta": {"totals": []}}
    assert await shown(served, a, at="1970-01-01T00:00:00Z") == nothing
    assert await shown(served, a, at=await head(a), to="1999-12-31") == nothing


async def test_what_cannot_be_asked_for_is_told_in_three_parts(served: Served, a: House, b: House) -> None:
    for at in ("yesterday", "", "-1", await head(a) + 1, Tokens(MASTER).token(b.id, 1), "2026-01-31T09:30:00"):
        refused = await served.get(a.admin, PATH, params={"at": at})
        assert (refused.status_code, list(refused.json()["errors"])) == (422, ["at"]), refused.text
        assert re.fullmatch(r".+\. .+\.", refused.json()["detail"]), refused.text
    assert (await served.get(a.user, PATH, params={"at": 1})).status_code == 403


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for the past is not done within a test's time."""
    monkeypatch.setattr(travel, "BATCH_EVENTS", 1)
    monkeypatch.setattr(past, "REST", 1e6)


def sessions(owner: psycopg.Connection) -> int:
    ((found,),) = owner.execute(SESSIONS).fetchall()
    return int(found)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not what():  # noqa: ASYNC110  another process's doing
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("endless")
async def test_one_too_many_is_told_to_come_back(served: Served, a: House, b: House, world: World) -> None:
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        first = asyncio.create_task(served.get(a.admin, PATH, params={"at": 2}))
        await until(lambda: sessions(owner) == 1)
        refused = await served.get(a.admin, PATH, params={"at": 2})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "of a tenant one at a time" in refused.json()["detail"]
        assert (await served.get(a.admin, PATH)).status_code == 200  # as things are now, it is there at once
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await until(lambda: sessions(owner) == 0)


@pytest.mark.usefixtures("endless")
async def test_it_ends_when_whoever_asked_leaves(served: Served, a: House, world: World) -> None:
    """Closed tabs must not add up to a full machine."""
    async with house.listening(served.app, served.parts) as url, httpx.AsyncClient(base_url=url) as client:
        asking = client.get(f"/api/v1{PATH}", params={"at": 2}, headers=a.admin.headers)
        with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
            task = asyncio.create_task(asking)
            await until(lambda: sessions(owner) == 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: sessions(owner) == 0)


@pytest.mark.usefixtures("endless")
async def test_it_ends_after_a_bounded_time(
    served: Served, a: House, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "SECONDS_MAX", 0.1)
    refused = await served.get(a.admin, PATH, params={"at": 2})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "bitnexus projections at" in refused.json()["detail"]
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        await until(lambda: sessions(owner) == 0)


@pytest.mark.usefixtures("endless")
async def test_it_ends_when_the_process_stops(served: Served, a: House) -> None:
    """A deployment does not wait a minute for it."""
    asking = asyncio.create_task(served.get(a.admin, PATH, params={"at": 2}))
    await asyncio.sleep(0.1)
    served.parts.stopping.set()
    refused = await asyncio.wait_for(asking, PATIENCE_S)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "Send the request again." in refused.json()["detail"]


async def test_an_event_in_the_way_is_an_operators_to_look_at(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*arguments: object) -> None:
        raise ValueError("secret@example.com is no price")

    monkeypatch.setattr(batches, "project", fails)
    refused = await served.get(a.admin, PATH, params={"at": 2})
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:bitnexus:problem:parked")
    assert "cannot digest an event from 1 to 2: ValueError" in caplog.text
    assert "secret" not in refused.text
    assert "ValueError" not in refused.text
