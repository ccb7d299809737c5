"""How far the views are, for whoever listens: also for who comes back, and for who comes later."""

import asyncio

import pytest

from api.feed import controller, feed, lags, queue
from tests.api.house import PATIENCE_S, House, Served

TOPICS = ("admin:projections",)


async def heard(sink: queue.Queue) -> int:
    """How many messages came."""
    async with asyncio.timeout(PATIENCE_S):
        await sink.wake.wait()
    return sink.take().count(b"event: projection\n")


async def test_who_comes_back_and_who_comes_later_hears_how_far_the_views_are(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lags, "LOOK_S", 0.05)
    monkeypatch.setattr("api.projections.of_lag", lambda lag, token: {"view": lag.view})  # nothing changes
    live: feed.Feed = served.app.state.feed
    await a.lists()
    await served.views_reach(a)
    head = (await a.ledger.head(a.id)).position
    back, later = queue.Queue(controller.encode, 0), queue.Queue(controller.encode, 0)
    first = await live.join(a.id, TOPICS, back, head - 1)
    await asyncio.sleep(0.02)  # in which a look finds nobody
    assert not first.live
    await live.catch_up(first, a.user.id)
    views = await heard(back)
    assert views >= 5
    second = await live.join(a.id, TOPICS, later, None)
    assert await heard(later) == views
    for each in (first, second):
        live.leave(each)
