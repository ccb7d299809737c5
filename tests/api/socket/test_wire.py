"""The server's side of a WebSocket, without a network: what a client may send and leave unread before it is let go."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from api.socket import wire
from api.socket.protocol import pace

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Transport:
    """What is written waits until a test says that it was sent."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.waiting = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.waiting += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str) -> Any:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Opened(wire.Wire):
    """A wire whose application takes the socket and asks for nothing."""

    ends: Transport


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Opened]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        await asyncio.sleep(60)

    config = uvicorn.Config(app, lifespan="off", log_config=None, **wire.OPTIONS)
    config.load()
    opened = Opened(config, ServerState(), {})
    opened.ends = Transport()
    opened.connection_made(opened.ends)  # type: ignore[arg-type]  # as much of a transport as it asks for
    opened.data_received(UPGRADE)
    while not opened.handshake_complete:  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0)
    opened.ends.written.clear()
    opened.ends.waiting = 0
    yield opened
    for task in opened.tasks:
        task.cancel()
    await asyncio.gather(*opened.tasks, return_exceptions=True)
    if opened.close_timer is not None:
        opened.close_timer.cancel()


def sent(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


async def test_who_pings_without_reading_is_cut_off_before_the_pongs_fill_the_memory(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "WAITING_BYTES_MAX", 10_000)
    for _ in range(200):
        opened.data_received(sent(Opcode.PING, b"x" * 125))
    assert opened.ends.aborted
    assert opened.ends.waiting < 10_500


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_more_pings_than_anybody_needs_end_the_connection(opened: Opened, opcode: Opcode) -> None:
    for _ in range(40):
        opened.data_received(sent(opcode) * 100)
    assert opened.close_sent
    assert len(opened.ends.written) < pace.FRAMES_AT_ONCE + 100
    assert opened.queue.get_nowait()["code"] == 1008  # type: ignore[typeddict-item]  # one of many kinds of message
    assert opened.queue.empty()


async def test_pings_now_and_then_are_answered(opened: Opened) -> None:
    for n in range(100):
        opened.data_received(sent(Opcode.PING, b"%d" % n))
    assert b"".join(opened.ends.written).endswith(b"\x8a\x0299")
    assert not opened.close_sent


async def test_a_message_of_empty_fragments_without_end_is_refused(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "FRAGMENTS_MAX", 100)
    opened.data_received(sent(Opcode.TEXT, fin=False) + sent(Opcode.CONT, fin=False) * 500)
    assert opened.queue.get_nowait()["code"] == 1009  # type: ignore[typeddict-item]  # one of many kinds of message
    assert opened.frames == []


async def test_a_reader_that_is_slow_and_steady_is_kept(opened: Opened) -> None:
    """Over a slow line something always waits; a thousand messages that were read do not count for ever."""
    for _ in range(3 * wire.WAITING_FRAMES_MAX):
        assert opened.write(wire.framed(json.dumps(["x"] * 20).encode()))
        if opened.ends.waiting > 64 * 1024:
            opened.ends.waiting = wire.DRAINED_BYTES - 1
    opened.ends.waiting = wire.DRAINED_BYTES + 1
    assert False in [opened.write(b"x") for _ in range(wire.WAITING_FRAMES_MAX + 1)]


async def test_a_wire_says_that_something_waits_until_all_of_it_has_left(opened: Opened) -> None:
    """Whoever is not said to wait keeps what was written of somebody who is erased then, and reads it whenever they like."""

    def waits() -> bool:
        return opened.waits

    assert not waits()
    assert opened.write(wire.framed(b"told"))
    assert waits()
    opened.ends.waiting = 1
    assert waits()
    opened.ends.waiting = 0
    assert not waits()
    opened.data_received(sent(Opcode.PING, b"also what uvicorn writes"))
    assert waits()
    opened.hang_up(1001, "no more")
    assert not waits()  # it goes with the connection, which is cut in 5 s
