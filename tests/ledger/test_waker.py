"""Wakes reach every process on the database once, and come back after a connection was lost."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import cast
from uuid import UUID

import msgspec
import psycopg
import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from ledger import ids, waker
from ledger.waker import CHANNEL, Waker
from tests.world import Database

PATIENCE_S = 20
"""How long a test waits for what must come; it is over as soon as that is there."""


class Heard:
    """A subscriber that can be waited for."""

    def __init__(self, to: Waker) -> None:
        self.moves: list[tuple[UUID, int]] = []
        self.unsubscribe = to.subscribe(self._hear)
        self._news = asyncio.Event()

    def _hear(self, tenant_id: UUID, position: int) -> None:
        self.moves.append((tenant_id, position))
        self._news.set()

    async def until(self, tenant_id: UUID, position: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (tenant_id, position) not in self.moves:
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def at_work(database: Database, connected: int) -> AsyncIterator[Waker]:
    """A waker once it sends and listens: `connected` connections of wakers are there then.

    Closed while it connects, it would leave a backend behind that waits for a password.
    """
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND state = 'idle'"
    found = Waker(connections.connector(database.app_url, "app"))
    await found.start()
    async with (
        asyncio.timeout(PATIENCE_S),
        await AsyncConnection.connect(database.owner_url, autocommit=True) as owner,
    ):
        while True:
            if await (await owner.execute(query, (f"{database.name}_login",))).fetchone() == (connected,):
                break
            await asyncio.sleep(0.01)
    yield found
    await found.close()


@pytest_asyncio.fixture
async def here(database: Database) -> AsyncIterator[Waker]:
    async with at_work(database, 2) as found:
        yield found


@pytest_asyncio.fixture
async def there(database: Database, here: Waker) -> AsyncIterator[Waker]:
    """The waker of another process."""
    async with at_work(database, 4) as found:
        yield found


async def listening(database: Database, count: int = 2, gone: frozenset[int] = frozenset()) -> set[int]:
    """The backends that listen, once there are so many beside those that are gone."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = %s AND state = 'idle'"
    async with (
        asyncio.timeout(PATIENCE_S),
        await AsyncConnection.connect(database.owner_url, autocommit=True) as owner,
    ):
        while True:
            rows = await (await owner.execute(query, (f"LISTEN {CHANNEL}",))).fetchall()
            found = {pid for (pid,) in rows} - gone
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def terminate(database: Database, pids: set[int]) -> None:
    async with await AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
        await owner.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS p (pid)", (list(pids),))


async def test_a_move_wakes_this_process_at_once_and_the_other_by_notify(
    database: Database, here: Waker, there: Waker
) -> None:
    await listening(database)
    near, far, tenant = Heard(here), Heard(there), ids.new_id()
    here.moved(tenant, 7)
    assert near.moves == [(tenant, 7)]
    await far.until(tenant, 7)


async def test_a_process_does_not_hear_its_own_notify(database: Database, here: Waker, there: Waker) -> None:
    """It was woken already; a second wake doubles the work of every projector."""
    await listening(database)
    near, far, mine, theirs = Heard(here), Heard(there), ids.new_id(), ids.new_id()
    here.moved(mine, 1)
    await far.until(mine, 1)
    there.moved(theirs, 1)  # comes after the first one, so that would have been heard before it
    await near.until(theirs, 1)
    assert near.moves == [(mine, 1), (theirs, 1)]
    assert far.moves == [(mine, 1), (theirs, 1)]


async def test_many_moves_become_few_notifications_and_the_last_position_arrives(
    database: Database, here: Waker, there: Waker
) -> None:
    await listening(database)
    far, tenants = Heard(there), [ids.new_id() for _ in range(250)]
    async with await AsyncConnection.connect(database.owner_url, autocommit=True) as raw:
        await raw.execute(f"LISTEN {CHANNEL}")
        for position in range(1, 21):
            for tenant in tenants:
                here.moved(tenant, position)
        for tenant in tenants:
            await far.until(tenant, 20)
        payloads = [each.payload async for each in raw.notifies(timeout=PATIENCE_S, stop_after=3)]
        payloads += [each.payload async for each in raw.notifies(timeout=0.1)]
    assert len(payloads) == 3  # 250 tenants at 100 a notification
    assert all(len(payload) < 8_000 for payload in payloads)
    assert sorted(far.moves) == sorted((tenant, 20) for tenant in tenants)


async def test_who_unsubscribes_is_left_alone_and_the_others_are_not(here: Waker) -> None:
    gone, stays, tenant = Heard(here), Heard(here), ids.new_id()
    gone.unsubscribe()
    here.moved(tenant, 1)
    assert (gone.moves, stays.moves) == ([], [(tenant, 1)])


async def test_without_a_database_it_wakes_its_own_process() -> None:
    alone, tenant = Waker(), ids.new_id()
    await alone.start()
    near = Heard(alone)
    alone.moved(tenant, 1)
    await alone.close()
    assert near.moves == [(tenant, 1)]


async def test_a_listener_whose_connection_is_cut_hears_again(database: Database, here: Waker, there: Waker) -> None:
    far, tenant = Heard(there), ids.new_id()
    cut = await listening(database)
    await terminate(database, cut)
    await listening(database, gone=frozenset(cut))
    here.moved(tenant, 1)
    try:
        await asyncio.wait_for(far.until(tenant, 1), PATIENCE_S / 10)
    except TimeoutError:  # the sender's connection was not cut: nothing may be lost
        raise AssertionError("the wake after the cut was not heard") from None


async def test_a_sender_whose_connection_is_cut_sends_again(database: Database, here: Waker, there: Waker) -> None:
    """What it was about to send may be lost, a poll makes up for that; what moves later is sent."""
    listeners = await listening(database)
    far, tenant = Heard(there), ids.new_id()
    here.moved(tenant, 1)
    await far.until(tenant, 1)
    async with await AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'SELECT pg_notify%%' AND pid <> ALL (%s)",
            (list(listeners),),
        )
    position = 1
    async with asyncio.timeout(PATIENCE_S):
        while far.moves[-1] == (tenant, 1):
            position += 1
            here.moved(tenant, position)
            await asyncio.sleep(0.05)


async def test_a_notification_that_is_none_of_ours_does_not_end_the_listening(
    database: Database, here: Waker, there: Waker
) -> None:
    """Whoever may connect may notify: one stray payload must not leave a node asleep for good."""
    await listening(database)
    far, tenant = Heard(there), ids.new_id()
    async with await psycopg.AsyncConnection.connect(database.owner_url, autocommit=True) as stranger:
        for payload in ("", "hello", "[]", '["x", [["no uuid", 1]]]', '["x", null]'):
            await stranger.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
    here.moved(tenant, 1)
    try:
        await asyncio.wait_for(far.until(tenant, 1), PATIENCE_S / 10)
    except TimeoutError:
        raise AssertionError("the listener is gone") from None


def test_a_full_notification_fits_in_a_payload() -> None:
    """PostgreSQL refuses 8,000 bytes and more, and the sender would end."""
    moves = [(ids.new_id(), 2**63 - 1)] * waker.TENANTS_PER_NOTIFY_MAX
    assert len(msgspec.json.encode(["0" * 16, moves])) < 8_000


async def test_what_a_process_says_the_others_hear_in_order(database: Database, here: Waker, there: Waker) -> None:
    await listening(database)
    near: list[str] = []
    far: list[str] = []
    heard = asyncio.Event()

    def hear(text: str) -> None:
        far.append(text)
        heard.set()

    here.hear(near.append)
    forget = there.hear(hear)
    for text in ("one", "zwölf 'und' \\", "three"):
        here.say(text)
    async with asyncio.timeout(20):
        while len(far) < 3:
            await heard.wait()
            heard.clear()
    assert (far, near) == (["one", "zwölf 'und' \\", "three"], [])
    forget()
    with pytest.raises(ValueError, match="Say it in parts"):
        here.say("é" * 4_000)


async def test_much_news_does_not_hold_up_a_wake() -> None:
    """Presence has thousands of entries to tell when another process comes; events are told within milliseconds meanwhile."""
    tenant_id = ids.new_id()
    sent: list[str] = []

    class Connection:
        async def execute(self, statement: str, values: tuple[str, str]) -> None:
            sent.append(values[0])
            if len(sent) == 10:
                busy.moved(tenant_id, 1)
            if len(sent) == 501:
                raise psycopg.OperationalError("enough")

    busy = Waker(cast(waker.Connect, object()))
    for n in range(500):
        busy.say(str(n))
    with pytest.raises(psycopg.OperationalError):
        await busy._send(cast(AsyncConnection[TupleRow], Connection()))
    assert sent.index(CHANNEL) <= 10 + waker.NEWS_AT_ONCE
    assert sent.count(waker.NEWS) == 500


async def test_of_a_busy_tenant_a_notify_says_what_many_flushes_moved(
    database: Database, here: Waker, there: Waker
) -> None:
    """Each costs every process something. The last position is always told."""
    await listening(database)
    heard, tenant_id = Heard(there), ids.new_id()
    begun = time.monotonic()
    for position in range(10, 10_001, 10):
        here.moved(tenant_id, position)
        await asyncio.sleep(0.001)
    lasted_s = time.monotonic() - begun
    await heard.until(tenant_id, 10_000)
    assert len(heard.moves) <= lasted_s / waker.GATHER_BUSY_S + 3
