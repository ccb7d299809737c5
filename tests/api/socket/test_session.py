"""A session of long polling, without HTTP: what it takes before it has handled what came earlier."""

import asyncio
from typing import cast

import pytest

from api.socket import session
from api.socket.client import Client
from api.socket.session import Session, Told


class Doing:
    """Handles a frame when a test lets it."""

    def __init__(self) -> None:
        self.handled: list[str | bytes] = []
        self.may = asyncio.Event()
        self.wait = 0.0

    def wait_s(self, frame_bytes: int) -> float:
        return self.wait

    async def receive(self, data: str | bytes) -> None:
        await self.may.wait()
        self.handled.append(data)


def opened() -> tuple[Session, Doing]:
    made, doing = Session(lambda ended: None), Doing()
    made.client = cast(Client, doing)
    return made, doing


async def test_requests_that_overtake_each_other_are_handled_in_order() -> None:
    """Clients before 1.7 send each frame by itself, all at once."""
    made, doing = opened()
    taking = [asyncio.create_task(made.take([f"{n}"])) for n in range(10)]
    await asyncio.sleep(0)
    doing.may.set()
    assert await asyncio.gather(*taking) == [Told(200)] * 10
    assert doing.handled == [f"{n}" for n in range(10)]
    made.end()


@pytest.mark.parametrize("frames", [["x" * 1024 * 1024], [""] * 1_000], ids=["megabytes", "empty ones"])
async def test_what_waits_to_be_handled_is_bounded(frames: list[str]) -> None:
    made, doing = opened()
    taking = [asyncio.create_task(made.take(frames)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert [each.done() for each in taking] == [False, False]
    assert await asyncio.wait_for(made.take(frames), 1.0) == Told(408)
    doing.may.set()
    await asyncio.gather(*taking)
    assert len(doing.handled) == 1
    assert await made.take(["x"]) == session.DEAD


async def test_nothing_is_done_after_a_request_has_been_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has been told that it failed, and sends it again."""
    monkeypatch.setattr(session, "HANDLE_S", 0.01)
    made, doing = opened()
    assert await made.take(["first", "second"]) == Told(408)
    doing.may.set()
    await asyncio.sleep(0.01)
    assert doing.handled == ["first"]


async def test_a_session_waits_as_long_as_its_user_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what all his connections have sent: one by long polling is no way round."""
    monkeypatch.setattr(session, "HANDLE_S", 0.01)
    made, doing = opened()
    doing.may.set()
    doing.wait = 60.0
    assert await made.take(["x"]) == Told(408)
    assert doing.handled == []


async def test_many_frames_of_one_request_leave_time_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made, doing = opened()
    doing.may.set()
    taking = asyncio.create_task(made.take(["x"] * 1_000))
    while not doing.handled:  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0)
    assert len(doing.handled) <= session.FRAMES_AT_ONCE
    assert await taking == Told(200)
    made.end()
