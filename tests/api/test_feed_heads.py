"""What no wake told is found, and finding it costs no tenant a query."""

import asyncio
from typing import Any

import pytest

from api.feed import controller, feed, heads, queue
from projections import cross_tenant
from tests.api.house import PATIENCE_S, House, Served


async def test_a_stream_that_moved_unheard_is_found_by_one_look_at_all(
    served: Served, a: House, b: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "LOOK_S", 0.05)
    live: feed.Feed = served.app.state.feed
    live._unsubscribe()
    live._unsubscribe = lambda: None
    looks: list[int] = []
    reads: list[Any] = []
    moved, entries = cross_tenant.moved, served.parts.ledger.entries

    async def looked(connection: Any, known: Any) -> Any:
        looks.append(len(known))
        return await moved(connection, known)

    async def read(*arguments: Any) -> Any:
        reads.append(arguments[0])
        return await entries(*arguments)

    monkeypatch.setattr(cross_tenant, "moved", looked)
    monkeypatch.setattr(served.parts.ledger, "entries", read)
    sinks = {house.id: queue.Queue(controller.encode, 0) for house in (a, b)}
    listeners = [await live.join(id, (f"tenant:{id}",), sink, None) for id, sink in sinks.items()]
    for _ in range(2):
        reads.clear()  # of a tail that was looked at before it had begun: it reads once more
        looks.clear()
        async with asyncio.timeout(PATIENCE_S):
            while looks.count(2) < 5:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
    assert reads == []
    await a.lists("MUG")
    async with asyncio.timeout(PATIENCE_S):
        await sinks[a.id].wake.wait()
    assert b'"MUG"' in sinks[a.id].take()
    assert set(reads) == {a.id}
    for each in listeners:
        live.leave(each)
