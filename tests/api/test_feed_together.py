"""What all connections of one user ask together, and what is left to the others meanwhile."""

import asyncio
import json
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection

from api.feed import controller, feed, queue, together
from api.feed.messages import Frame
from api.feed.together import Together
from tests.api import test_plainsocket as plain
from tests.api.house import House, Served, listening
from tests.api.socket.talk import talk
from tests.api.socket.test_longpoll import HEARTBEAT


async def test_many_that_are_told_the_past_leave_the_event_loop_its_turns(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever joins again and again from long ago would hold up what happens now, for everybody."""
    begin = (await a.ledger.head(a.id)).position
    for n in range(8):
        await a.lists(f"x{n}")
    live: feed.Feed = served.app.state.feed
    monkeypatch.setattr(feed, "BYTES_AT_ONCE", 1)
    sinks = [queue.Queue(controller.encode, 0) for _ in range(20)]
    listeners = [await live.join(a.id, (f"tenant:{a.id}",), sink, begin) for sink in sinks]
    told = 0

    def deliver(sink: queue.Queue, frame: Frame) -> None:
        nonlocal told
        told += 1

    monkeypatch.setattr(queue.Queue, "deliver", deliver)
    resuming = asyncio.gather(*(live.catch_up(each, uuid4()) for each in listeners))
    most = 0
    while not resuming.done():
        before = told
        await asyncio.sleep(0)
        most = max(most, told - before)
    assert (told, most) == (20 * 8, 1)
    for each in listeners:
        live.leave(each)


async def test_who_leaves_while_waiting_for_its_turn_is_told_nothing_more(served: Served, a: House) -> None:
    """A page would hear of a topic that it has left, or twice of one that it has joined anew."""
    begin = (await a.ledger.head(a.id)).position
    await a.lists("MUG")
    live: feed.Feed = served.app.state.feed
    sink = queue.Queue(controller.encode, 0)
    listener = await live.join(a.id, (f"tenant:{a.id}",), sink, begin)
    async with listener.tail.turn:
        resuming = asyncio.create_task(live.catch_up(listener, a.user.id))
        await asyncio.sleep(0.1)
        live.leave(listener)
    await resuming
    assert (sink.take(), listener.live) == (b"", False)


async def test_who_resumes_much_again_and_again_waits_and_others_do_not(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Joins cost no request: a page gone wild could keep a process busy with reading it the past."""
    begin = (await a.ledger.head(a.id)).position
    for n in range(8):
        await a.lists(f"x{n}")
    live: feed.Feed = served.app.state.feed
    live.together = Together(1)
    monkeypatch.setattr(together, "EVENTS_PER_FRAME", 0.1)  # eight of them cost 80 frames, and 100 may come at once
    sinks = [queue.Queue(controller.encode, 0) for _ in range(3)]
    listeners = [await live.join(a.id, (f"tenant:{a.id}",), sink, begin) for sink in sinks]
    whose = (a.user.id, a.user.id, a.admin.id)
    resuming = [asyncio.create_task(live.catch_up(*each)) for each in zip(listeners, whose, strict=True)]
    first, second, others = resuming
    await asyncio.gather(first, others)
    await asyncio.wait([second], timeout=0.1)
    assert [each.live for each in listeners] == [True, False, True]
    second.cancel()
    await asyncio.wait([second])
    for each in listeners:
        live.leave(each)


async def test_the_sockets_of_a_user_are_read_as_one_would_be_and_others_are_answered(served: Served, a: House) -> None:
    """Each keeps its own pace; 200 of them could still take all of a process."""
    served.app.state.feed.together = Together(1)
    answered = 0
    async with (
        listening(served.app, served.parts) as address,
        talk(address, a.user) as one,
        plain.talk(address, a.user) as two,
        talk(address, a.admin) as calm,
    ):
        for _ in range(600):
            await one.socket.send(HEARTBEAT)
            await two.socket.send(json.dumps({"type": "ping"}))

        async def hear(socket: ClientConnection) -> None:
            nonlocal answered
            async for _ in socket:
                answered += 1

        hearing = [asyncio.create_task(hear(each.socket)) for each in (one, two)]
        await asyncio.sleep(1.0)
        for _ in range(10):
            await calm.beat()
        assert 100 <= answered <= 3 * (100 + together.FRAMES_PER_S)
        for each in hearing:
            each.cancel()
        await asyncio.gather(*hearing, return_exceptions=True)
        for socket in (one.socket, two.socket):
            socket.transport.abort()


def test_who_has_been_quiet_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a process would else grow with everybody who ever came."""
    monkeypatch.setattr(together, "USERS_MAX", 2)
    users, bounded = [uuid4() for _ in range(3)], Together(1)
    for user in (users[0], users[1], users[0], users[2]):
        assert bounded.past(user, 100 * together.EVENTS_PER_FRAME) in (0.0, pytest.approx(10.0, abs=1.0))
    assert list(bounded._users) == [users[0], users[2]]
