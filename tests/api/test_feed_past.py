"""The past as those hear it who come back: bounded by bytes, and without those who were erased."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from api.feed import past
from ledger import ids
from tests.api.house import House, Served


@pytest_asyncio.fixture
async def told(served: Served) -> AsyncIterator[past.Past]:
    told = past.Past(served.parts)
    yield told
    await told.close()


async def test_whoever_is_erased_is_forgotten_at_once(
    served: Served, told: past.Past, a: House, b: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once more when the views have forgotten: rows may have been read in between."""
    monkeypatch.setattr(past, "ERASED_S", 0.05)
    heads = {house.id: (await house.ledger.head(house.id)).position for house in (a, b)}
    before = {id: await told.after(id, 0, head) for id, head in heads.items()}
    reading = asyncio.create_task(told.after(a.id, 0, heads[a.id]))
    served.parts.ledger.keyring.drop([(a.id, ids.new_id())])
    between = await told.after(a.id, 0, heads[a.id])
    assert between is not before[a.id]
    await asyncio.sleep(0.1)
    assert await told.after(a.id, 0, heads[a.id]) is not between
    assert await told.after(b.id, 0, heads[b.id]) is before[b.id]
    await reading


async def test_a_stretch_of_large_messages_is_a_short_one_and_nothing_is_left_out(
    told: past.Past, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "EVENTS_PER_READ", 2)
    monkeypatch.setattr(past, "STRETCH_BYTES_MAX", 1)
    for n in range(6):
        await a.lists(f"S{n}")
    head = (await a.ledger.head(a.id)).position
    positions: list[int] = []
    at = 0
    while at < head:
        stretch = await told.after(a.id, at, head)
        assert at < stretch.end <= head
        assert len(stretch.messages) <= 2
        positions += [message.position for message in stretch.messages]
        at = stretch.end
    assert positions == list(range(head - 5, head + 1))
    assert [each.position for each in (await told.after(a.id, head - 1, head)).messages] == [head]


async def test_what_is_kept_is_bounded_by_its_bytes(
    told: past.Past, a: House, b: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "KEPT_BYTES_MAX", 1)
    for house in (a, b):
        await house.lists()
        await told.after(house.id, 0, (await house.ledger.head(house.id)).position)
    assert [tenant_id for tenant_id, _ in told._kept] == [b.id]
