"""A socket between a process and its PostgreSQL that can be cut at the worst moment: the request is through, the answer is not."""

import asyncio
import contextlib
import random
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg import conninfo

CHUNK_BYTES = 1 << 20
"""More than a flush here: what the client sends at once is passed on at once."""


class Proxy:
    """Listens in a directory of its own and forwards to the server that `url` names. Touched by the event loop's thread only."""

    def __init__(self, url: str, directory: Path, chosen: random.Random) -> None:
        self._upstream = conninfo.conninfo_to_dict(url)
        self._directory = directory
        self._chosen = chosen
        self._armed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts = 0
        self.url = conninfo.make_conninfo(url, host=str(directory), port=5432, hostaddr="")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._directory / ".s.PGSQL.5432")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def arm(self) -> None:
        """The next thing that the client sends, or a part of it, is its last on that connection."""
        self._armed = True

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = str(self._upstream.get("host", "/tmp")), int(self._upstream.get("port") or 5432)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await self._connect()
        back = asyncio.create_task(_copy(server, to_client))
        try:
            while data := await client.read(CHUNK_BYTES):
                armed = self._armed
                # Every fourth time the request itself is cut off, so that there is nothing to be found afterwards.
                whole = not armed or self._chosen.randrange(4) > 0
                to_server.write(data if whole else data[: self._chosen.randrange(len(data))])
                await to_server.drain()
                if armed:
                    self._armed = False
                    self.cuts += 1
                    back.cancel()
                    to_client.transport.abort()
                    # The old backend learns of it at once, amidst its work, or when it has long committed.
                    await asyncio.sleep(self._chosen.choice([0, 0.0005, 0.001, 0.002, 0.2]))
                    return
        except ConnectionError:
            pass
        finally:
            back.cancel()
            to_client.transport.abort()
            to_server.transport.abort()
            with contextlib.suppress(asyncio.CancelledError):
                await back


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(CHUNK_BYTES):
            target.write(data)
            await target.drain()
        target.close()
