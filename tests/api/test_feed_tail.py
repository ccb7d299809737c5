"""A tenant's tail: what an event costs does not grow with who listens, but for the sending."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from api.feed import feed, queue
from api.feed.messages import Frame, Message
from tests.api.house import PATIENCE_S, House, Served

LISTENERS = 30


async def test_an_event_is_read_once_and_encoded_once_an_encoding_however_many_listen(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    live: feed.Feed = served.app.state.feed
    encoded: Counter[str] = Counter()
    reads: list[int] = []
    entries = served.parts.ledger.entries

    async def read(tenant_id: Any, after: int, limit: int) -> Any:
        found = await entries(tenant_id, after, limit)
        reads.extend(entry.position for entry in found)
        return found

    def one(message: Message, topic: str) -> Frame:
        encoded["one"] += 1
        return Frame(message.position, message.data)

    def another(message: Message, topic: str) -> Frame:
        encoded["another"] += 1
        return Frame(message.position, message.data)

    monkeypatch.setattr(served.parts.ledger, "entries", read)  # at once: a tail reads until nothing is left
    sinks = [queue.Queue(encode, 0) for encode in (one, another) for _ in range(LISTENERS)]
    listeners = [await live.join(a.id, (f"tenant:{a.id}",), sink, None) for sink in sinks]
    await a.lists("MUG")
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(sink.wake.wait() for sink in sinks))
    encoded.clear()
    reads.clear()
    for sink in sinks:
        sink.take()
    await a.lists("CUP")
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(sink.wake.wait() for sink in sinks))
    assert encoded == {"one": 1, "another": 1}
    assert reads == [(await a.ledger.head(a.id)).position]
    assert live.tails == 1
    for each in listeners:
        live.leave(each)
