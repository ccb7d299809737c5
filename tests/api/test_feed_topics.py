"""Server-sent events: of which topics, and how they are compressed."""

import asyncio
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from api.feed import compression
from tests.api.house import PATIENCE_S, House, Person, Served, listening
from tests.api.streams import stream


@pytest_asyncio.fixture
async def address(served: Served) -> AsyncIterator[str]:
    async with listening(served.app, served.parts) as address:
        yield address


async def test_a_stream_tells_only_the_topics_that_were_asked_for(address: str, a: House) -> None:
    mine = f"transaction:{a.user.id}"
    async with (
        stream(address, a.user, topics=mine) as some,
        stream(address, a.admin, topics=f"{mine},affiliate:{a.affiliate.id}") as both,
    ):
        mug = await a.lists()
        bought = await a.sells(mug, buyer=a.user)
        brought = await a.sells(mug, affiliate=a.affiliate)
        last = await a.sells(mug, buyer=a.user, affiliate=a.affiliate)
        assert [event.data["id"] for event in await some.events(2)] == [str(bought.id), str(last.id)]
        found = [event.data["id"] for event in await both.events(3)]
        assert found == [str(bought.id), str(brought.id), str(last.id)]


async def test_topics_of_others_are_refused(served: Served, a: House, b: House) -> None:
    """By the rules of a channel's join."""
    for topics in (
        f"transaction:{a.admin.id}",
        f"affiliate:{a.affiliate.id}",
        f"notification:{a.admin.id}",
        f"tenant:{b.id}",
        "admin:events",
        "admin:nothing",
        f"tenant:{a.id},tenant:{b.id}",
        "nothing",
        "",
    ):
        refused = await served.get(a.user, "/feed", params={"topics": topics})
        assert refused.status_code == 403, topics
    for topics in ("admin:nothing", f"nothing:{a.id}", ",".join(f"tenant:{n}" for n in range(101))):
        refused = await served.get(a.admin, "/feed", params={"topics": topics})
        assert (refused.status_code, "topics" in refused.json()["errors"]) == (422, True), topics
    assert served.app.state.feed.listeners == 0


async def raw(address: str, person: Person, accept: str, until: bytes) -> tuple[str | None, bytes, bytes]:
    """The coding, the bytes and what a browser makes of them, each as far as `until` can be read."""
    sent = b""
    async with (
        asyncio.timeout(PATIENCE_S),
        httpx.AsyncClient(base_url=address) as client,
        client.stream("GET", "/api/v1/feed", headers={**person.headers, "Accept-Encoding": accept}) as response,
    ):
        coding = response.headers.get("Content-Encoding")
        reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
        text = b""
        async for piece in response.aiter_raw():
            sent += piece
            text += reader.decompress(piece) if coding else piece
            if until in text:
                break
    return coding, sent, text


async def test_each_message_comes_at_once_though_compressed(address: str, a: House) -> None:
    """A compressor that waits for more would hold a sale back until the next one."""
    listening = asyncio.create_task(raw(address, a.user, "br, gzip", b'"sku":"LAST"'))
    while not a.ledger.revocations._listeners:  # noqa: ASYNC110  nobody tells when it listens
        await asyncio.sleep(0.01)
    for sku in ("A", "B", "C", "LAST"):
        await a.lists(sku)
    coding, sent, text = await listening
    assert coding == "gzip"
    assert text.count(b"event: product_listed") == 4
    assert len(sent) < len(text) * 0.6


async def test_a_compressed_stream_is_ended_properly(served: Served, address: str, a: House) -> None:
    """A browser takes a stream without gzip's trailer for a broken one, and may not tell the last event."""
    reader, text = zlib.decompressobj(16 + zlib.MAX_WBITS), b""
    async with (
        asyncio.timeout(PATIENCE_S),
        httpx.AsyncClient(base_url=address, headers={**a.user.headers, "Accept-Encoding": "gzip"}) as client,
        client.stream("GET", "/api/v1/feed") as response,
    ):
        assert response.headers["Vary"] == "accept-encoding"
        async for piece in response.aiter_raw():
            text += reader.decompress(piece)
            served.parts.ledger.revocations.learn(a.id, a.user.session_id, True)
    assert (text.count(b"event: session_ended"), reader.eof) == (1, True)


@pytest.mark.parametrize("accept", ["", "identity", "gzip;q=0", "*;q=0", "gzip;q=x", "br"])
async def test_who_asks_for_no_gzip_gets_none(address: str, a: House, accept: str) -> None:
    coding, _, text = await raw(address, a.user, accept, b"id: ")
    assert (coding, text.startswith(b"retry: ")) == (None, True)


@pytest.mark.parametrize("accept", ["gzip", "GZIP", "deflate, gzip;q=0.5", "*", "x-gzip", "gzip ; q=1"])
def test_gzip_is_asked_for_in_many_ways(accept: str) -> None:
    assert compression.takes_gzip(accept)


async def test_compressors_are_bounded(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps 32 KiB: who comes when there are too many is told the same, plainly."""
    monkeypatch.setattr(compression, "COMPRESSED_MAX", 1)
    async with stream(address, a.user) as first, stream(address, a.user) as second:
        assert "Content-Encoding" in first.response.headers
        assert "Content-Encoding" not in second.response.headers
    for _ in range(500):
        async with stream(address, a.user) as third:
            if "Content-Encoding" in third.response.headers:
                return
        await asyncio.sleep(0.01)
    raise AssertionError("a stream that ended keeps its compressor")
