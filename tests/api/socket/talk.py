"""A client of raw frames, and what a socket is opened with."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.api.house import PATIENCE_S, Person


class Talk:
    """A WebSocket with serializer 2.0.0."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._ref = 0

    async def say(self, *message: Any) -> None:
        """join_ref, ref, topic, event, payload."""
        await self.socket.send(json.dumps(message))

    async def hear(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.socket.recv())

    async def hears(self, count: int) -> list[Any]:
        return [await self.hear() for _ in range(count)]

    async def ask(self, join_ref: Any, topic: str, event: str, payload: Any) -> Any:
        """The payload of the reply, which must be the next frame."""
        self._ref += 1
        await self.say(join_ref, str(self._ref), topic, event, payload)
        answer = await self.hear()
        assert answer[:4] == [join_ref, str(self._ref), topic, "phx_reply"], answer
        return answer[4]

    async def join(self, topic: str, join_ref: str = "j", payload: Any = None) -> Any:
        return await self.ask(join_ref, topic, "phx_join", payload or {})

    async def beat(self) -> None:
        """Everything said before is answered when this comes back; nothing else may be."""
        assert await self.ask(None, "phoenix", "heartbeat", {}) == {"status": "ok", "response": {}}

    async def closed(self) -> int | None:
        """The code with which it is closed."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self.socket.recv()
        return self.socket.close_code


def url(address: str, person: Person | None = None, **parameters: str) -> str:
    asked = {**({"token": person.token} if person else {}), "vsn": "2.0.0", **parameters}
    return f"{address.replace('http', 'ws')}/socket/websocket?{urlencode(asked)}"


@contextlib.asynccontextmanager
async def talk(address: str, person: Person, **parameters: str) -> AsyncIterator[Talk]:
    # Without a limit of its queue: with one it would not read the answer to its close, and wait for it.
    opening = connect(url(address, person, **parameters), compression=None, ping_interval=None, max_queue=None)
    async with opening as socket:
        yield Talk(socket)


async def refused(address: str, **options: Any) -> tuple[int, bytes]:
    """Status and body of a refusal."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(address, **options):
            pass
    return caught.value.response.status_code, bytes(caught.value.response.body or b"")
