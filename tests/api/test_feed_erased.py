"""What waits for slow listeners when somebody is erased: they come back, and are told anew."""

import asyncio

import pytest

from api.feed import controller, feed, queue
from api.socket import session
from ledger import ids
from tests.api.house import PATIENCE_S, House, Served


def sink(house: House) -> queue.Queue:
    return queue.Queue(controller.encode, 0)


async def listening(served: Served, house: House, sink: queue.Queue) -> None:
    live: feed.Feed = served.app.state.feed
    await live.join(house.id, (f"tenant:{house.id}",), sink, None)


async def test_what_nobody_has_taken_is_dropped(
    served: Served, a: House, b: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads a minute later would be told of somebody who was forgotten."""
    monkeypatch.setattr(feed, "ERASED_S", 0.05)
    slow, quick, elsewhere = sink(a), sink(a), sink(b)
    for house, each in ((a, slow), (a, quick), (b, elsewhere)):
        await listening(served, house, each)
    for house in (a, b):
        await house.lists()
    async with asyncio.timeout(PATIENCE_S):
        for each in (slow, quick, elsewhere):
            await each.wake.wait()
    quick.take()
    served.parts.ledger.keyring.drop([(a.id, ids.new_id())])
    assert [each.ended.is_set() for each in (slow, quick, elsewhere)] == [True, False, False]
    assert elsewhere.waits


async def test_what_was_read_before_the_views_had_forgotten_is_dropped_too(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "ERASED_S", 0.5)
    slow = sink(a)
    await listening(served, a, slow)
    served.parts.ledger.keyring.drop([(a.id, ids.new_id())])
    assert not slow.ended.is_set()
    await a.lists()
    async with asyncio.timeout(PATIENCE_S):
        await slow.ended.wait()


async def test_a_long_poll_that_ends_keeps_nothing(served: Served) -> None:
    line = session.Session(lambda ended: None)
    assert line.write(b"told")
    assert line.waits
    line.end()
    assert not line.waits
