"""A client of server-sent events, as a browser's EventSource is one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

from tests.api.house import PATIENCE_S, Person


class Event(msgspec.Struct, frozen=True):
    """A block of the stream. `name` is None for one without data, which EventSource does not tell."""

    id: str | None
    name: str | None
    data: Any


class Stream:
    """Reads blocks; remembers the last id as EventSource does."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id: str | None = None
        self.retry_ms: int | None = None
        self._lines = response.aiter_lines()

    async def block(self) -> Event:
        """The next one. Raises StopAsyncIteration at the end of the stream."""
        found: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_S):
            while line := await anext(self._lines):
                name, _, value = line.partition(": ")
                found[name] = value
        if "retry" in found:
            self.retry_ms = int(found["retry"])
        self.last_id = found.get("id", self.last_id)
        data = json.loads(found["data"]) if "data" in found else None
        return Event(found.get("id"), found.get("event"), data)

    async def event(self) -> Event:
        """The next block with data."""
        async with asyncio.timeout(PATIENCE_S):
            while (block := await self.block()).name is None:
                pass
            return block

    async def events(self, count: int) -> list[Event]:
        return [await self.event() for _ in range(count)]

    async def ends(self) -> None:
        """Whatever still comes, and then the end."""
        with contextlib.suppress(StopAsyncIteration):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self.block()


@contextlib.asynccontextmanager
async def stream(address: str, person: Person, last_id: str | None = None, **parameters: str) -> AsyncIterator[Stream]:
    headers = {**person.headers, **({"Last-Event-ID": last_id} if last_id else {})}
    async with (
        httpx.AsyncClient(base_url=address, timeout=PATIENCE_S) as client,
        client.stream("GET", "/api/v1/feed", headers=headers, params=parameters) as response,
    ):
        assert response.status_code == 200, await response.aread()
        opened = Stream(response)
        await opened.block()
        yield opened
