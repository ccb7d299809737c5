"""HTTP/1.1 as attackers speak it, on raw sockets: what the server takes for a request, how long it waits, how much it reads."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import uvicorn

from bitnexus import protocol

WAIT_S_MAX = 10.0
END = b"\r\n\r\n"


class Site:
    """A server of `bitnexus.protocol`; `seen` is what reached the application."""

    def __init__(self, port: int, seen: list[tuple[str, str, bytes]], connections: Collection[Any]) -> None:
        self.port = port
        self.connections = connections  # that are open
        self.seen = seen

    async def say(self, *pieces: bytes, pause_s: float = 0.0) -> bytes:
        """All that is answered until the server closes or says nothing more."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answered = asyncio.create_task(self.rest(reader, quiet_s=1.0 + 2 * pause_s))
        try:
            for piece in pieces:
                if answered.done():
                    break  # whoever goes on writing to a closed connection loses what came before
                writer.write(piece)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                await asyncio.sleep(pause_s)
            return await answered
        finally:
            writer.close()

    async def rest(self, reader: asyncio.StreamReader, quiet_s: float = 1.0) -> bytes:
        said = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := await asyncio.wait_for(reader.read(65_536), quiet_s):
                said += piece
        return said


Serving = Callable[[], AbstractAsyncContextManager[Site]]


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Serving:
    monkeypatch.setattr(protocol, "LOOK_S", 0.05)

    @contextlib.asynccontextmanager
    async def serve() -> AsyncIterator[Site]:
        seen: list[tuple[str, str, bytes]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            body, more = b"", True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body, more = body + message["body"], message["more_body"]
            seen.append((scope["method"], scope["path"], body))
            if scope["path"] == "/chunks":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await asyncio.sleep(0.05)
                await send({"type": "http.response.body", "body": b"well", "more_body": False})
                return
            answer = b"x" * (32 * 1024 * 1024) if scope["path"] == "/much" else b"well"
            headers = [(b"content-length", b"%d" % len(answer))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": answer, "more_body": False})

        config = uvicorn.Config(app, http=protocol.Http, ws="none", lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]  # pytest's stay pytest's
        with socket.create_server(("127.0.0.1", 0)) as listener:
            task = asyncio.create_task(server.serve([listener]))
            async with asyncio.timeout(WAIT_S_MAX):
                while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
                    await asyncio.sleep(0.01)
            async with protocol.watching(server.server_state.connections):
                yield Site(listener.getsockname()[1], seen, server.server_state.connections)
            server.should_exit = server.force_exit = True
            await task

    return serve


def statuses(said: bytes) -> list[int]:
    return [int(part[1:4]) for part in said.split(b"HTTP/1.1")[1:]]


async def test_requests_are_answered_one_after_another_on_one_connection(serving: Serving) -> None:
    async with serving() as site:
        post = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        said = await site.say(
            post + b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
    assert statuses(said) == [200, 200, 200]
    assert site.seen == [("POST", "/a", b"hello"), ("GET", "/b", b""), ("GET", "/c", b"")]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", id="length and chunks"),
        pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", id="chunks and length"),
        pytest.param(b"Content-Length: 0\r\nContent-Length: 40\r\n", id="two lengths"),
        pytest.param(b"Content-Length: 0, 40\r\n", id="a list of lengths"),
        pytest.param(b"Content-Length: +40\r\n", id="a signed length"),
        pytest.param(b"Content-Length: 0x28\r\n", id="a hexadecimal length"),
        pytest.param(b"Content-Length : 40\r\n", id="a blank before the colon"),
        pytest.param(b"Transfer-Encoding: chunked, identity\r\n", id="chunks not last"),
        pytest.param(b"Transfer-Encoding: xchunked\r\n", id="an unknown coding"),
        pytest.param(b"X-A: b\r\n Content-Length: 40\r\n", id="a folded line"),
        pytest.param(b"X-A: b\nContent-Length: 40\r\n", id="a bare line feed"),
        pytest.param(b"X-A: b\rContent-Length: 40\r\n", id="a bare carriage return"),
        pytest.param(b"X-A: b\0c\r\n", id="a zero byte"),
    ],
)
async def test_a_request_that_two_servers_could_read_differently_is_none(serving: Serving, head: bytes) -> None:
    """Behind a proxy that takes it for one request, the rest would be a second one, in somebody else's name."""
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving() as site:
        said = await site.say(b"POST /first HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + smuggled)
    assert "/smuggled" not in [path for _, path, _ in site.seen]
    assert statuses(said) in ([400], [200, 400], []), said[:300]


async def test_headers_are_read_up_to_32_kib(serving: Serving) -> None:
    """They are kept until they end: without a bound a single client fills the memory."""
    async with serving() as site:
        line = b"X-Filler: " + b"y" * 1_000 + b"\r\n"
        endless = await site.say(b"GET / HTTP/1.1\r\n", *[line * 10 for _ in range(50)], pause_s=0.005)
        at_once = await site.say(b"GET / HTTP/1.1\r\nHost: x\r\n" + line * 60 + b"\r\n")
        fits = await site.say(b"GET / HTTP/1.1\r\nHost: x\r\n" + line * 30 + b"Connection: close\r\n\r\n")
        target = await site.say(b"GET /" + b"z" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        blank = await site.say(*[b"\r\n" * 8_000 for _ in range(10)], pause_s=0.005)
    assert [statuses(each)[:1] for each in (endless, at_once, fits)] == [[431], [431], [200]]
    assert statuses(target) in ([431], [400], [200])
    assert statuses(blank) in ([431], [])
    assert len(site.seen) <= 2


async def test_trailers_are_bounded_like_a_body(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_BYTES_MAX", 200_000)
    async with serving() as site:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        said = await site.say(head, *[(b"X-T: " + b"y" * 9_000 + b"\r\n") for _ in range(100)], pause_s=0.002)
        assert (statuses(said), site.seen, len(site.connections)) == ([], [], 0)


async def test_who_sends_too_slowly_is_cut_off(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred such clients would otherwise hold all connections."""
    monkeypatch.setattr(protocol, "REQUEST_S_MAX", 0.4)
    async with serving() as site:
        silent, in_head, in_body, in_blanks, on_time = await asyncio.gather(
            site.say(b""),
            site.say(b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 20, pause_s=0.1),
            site.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", *[b"y"] * 20, pause_s=0.1),
            site.say(*[b"\r\n"] * 20, pause_s=0.1),
            site.say(b"GET /on/time HTTP/1.1\r\nHost: x\r\n", b"Connection: close\r\n\r\n", pause_s=0.05),
        )
    assert [statuses(each) for each in (silent, in_head, in_body, in_blanks, on_time)] == [
        [408],
        [408],
        [408],
        [408],
        [200],
    ]
    assert [path for _, path, _ in site.seen] == ["/on/time"]


async def test_who_is_fast_once_and_slow_the_second_time_is_cut_off_too(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REQUEST_S_MAX", 0.4)
    async with serving() as site:
        first = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
        second = b"GET /second HTTP/1.1\r\n"
        said, blanks = await asyncio.gather(
            site.say(first, second, *[b"X: y\r\n"] * 20, pause_s=0.1), site.say(first, *[b"\r\n"] * 30, pause_s=0.1)
        )
    assert [statuses(said), statuses(blanks)] == [[200, 408], [200, 408]]


async def test_an_answer_that_nobody_reads_is_not_kept_for_ever(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_S_MAX", 0.3)
    async with serving() as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1)
        writer.write(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(WAIT_S_MAX):
            while not site.seen:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        assert len(site.connections) == 1
        await asyncio.sleep(1.5)
        assert len(site.connections) == 0
        writer.close()


def segments_received(client: socket.socket) -> int:
    """With data, so far: tcpi_data_segs_in of Linux's struct tcp_info (linux/tcp.h)."""
    (count,) = struct.unpack_from("=I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 152)
    return int(count)


@pytest.mark.parametrize(
    ("head", "segments"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n", 1, id="a body of known length"),
        pytest.param(b"HEAD / HTTP/1.1\r\n", 1, id="no body"),
        pytest.param(b"GET /chunks HTTP/1.1\r\n", 2, id="a stream, whose head does not wait"),
        pytest.param(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n", 2, id="100 Continue"),
    ],
)
async def test_an_answer_is_one_packet(serving: Serving, head: bytes, segments: int) -> None:
    loop = asyncio.get_running_loop()
    async with serving() as site:
        with socket.create_connection(("127.0.0.1", site.port)) as client:
            client.setblocking(False)
            for _ in range(3):
                before, said = segments_received(client), b""
                await loop.sock_sendall(client, head + b"Host: x\r\n\r\n")
                async with asyncio.timeout(WAIT_S_MAX):
                    if b"Expect" in head:
                        assert await loop.sock_recv(client, 1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
                        await loop.sock_sendall(client, b"hi")
                    while not said.endswith((b"well", b"0\r\n\r\n")) and not (head.startswith(b"HEAD") and END in said):
                        said += await loop.sock_recv(client, 65_536)
                assert statuses(said) == [200]
                assert segments_received(client) - before == segments
