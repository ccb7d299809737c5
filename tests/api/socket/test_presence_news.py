"""What processes tell each other of who is there, without a database: pauses, and more entries than are told at once."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest

from api.feed.messages import Frame, Message
from api.parts import Parts
from api.socket import presence
from api.socket.presence import Presence, Watcher

TENANT = UUID(int=1)


class Between:
    """What is said by one process waits, in order and bounded as a waker bounds it, until a step carries it to the others."""

    def __init__(self, waiting_max: int = 1_000) -> None:
        self.hearers: dict[int, Callable[[str], None]] = {}
        self.waiting: deque[tuple[int, str]] = deque(maxlen=waiting_max)

    def process(self) -> Presence:
        number = len(self.hearers)

        class Waker:
            def hear(_, callback: Callable[[str], None]) -> Callable[[], None]:
                self.hearers[number] = callback
                return lambda: None

            def say(_, text: str) -> None:
                self.waiting.append((number, text))

        class Stub:
            waker = Waker()

        return Presence(cast(Parts, Stub()))

    def carry(self, count: int = 1_000_000) -> None:
        for _ in range(min(count, len(self.waiting))):
            origin, text = self.waiting.popleft()
            for number, hear in self.hearers.items():
                if number != origin:
                    hear(text)


def watcher(told: list[Any], key: str = "x") -> Watcher:
    def encode(message: Message, topic: str) -> Frame:
        return Frame(0, message.data)

    return Watcher(TENANT, "tenant:1", key, encode, lambda frame: told.append(msgspec.json.decode(frame.data)))


async def test_who_is_forgotten_and_heard_again_at_once_is_not_said_to_have_gone() -> None:
    """A process that was paused hears nothing for longer than a beat, and then everything. Clients take joins first, then leaves."""
    between, told = Between(), list[Any]()
    here, there = between.process(), between.process()
    other = watcher([], "other")
    here.join(watcher(told))
    there.join(other)
    here._flush()
    there._flush()
    for _ in range(4):
        between.carry()
        await asyncio.sleep(0)
        here._flush()
    assert len(here) == 2
    told.clear()
    (entry,) = [each for each in here._entries.values() if each.key == "other"]
    here._remove(entry.ref)  # as `_beat` does with a peer that was silent
    here._add(entry)
    here._flush()
    assert [diff["leaves"] for diff in told] in ([], [{}])
    here._remove(entry.ref)
    here._flush()
    assert list(told[-1]["leaves"]) == ["other"]
    for each in (here, there):
        await each.close()


async def test_more_entries_than_wait_at_once_are_all_told_with_the_changes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "ENTRIES_PER_NEWS", 1)
    monkeypatch.setattr(presence, "NEWS_AT_ONCE", 10)
    monkeypatch.setattr(presence, "PORTIONS_S", 0.002)
    monkeypatch.setattr(presence, "BEAT_S", 0.2)
    between = Between(waiting_max=20)
    here = between.process()
    watchers = [watcher([], str(n)) for n in range(100)]
    for each in watchers:
        here.join(each)
    here._flush()
    between.waiting.clear()
    there = between.process()
    changed = False
    until = time.monotonic() + 5.0
    while time.monotonic() < until and not (changed and len(there) == 99):
        between.carry(5)
        if between.waiting and len(there) == 0 and not changed and '"parts"' in between.waiting[0][1]:
            here.leave(watchers[0])
            here.leave(watchers[99])
            here.join(watcher([], "late"))
            here._flush()
            changed = True
        await asyncio.sleep(0.0005)
    assert sorted(each.key for each in there._entries.values()) == sorted([*map(str, range(1, 99)), "late"])
    for process in (here, there):
        await process.close()
