"""Connections that are given up while they are made."""

import asyncio

from psycopg import conninfo

from bitnexus import database as connections
from tests.world import Database

PATIENCE_S = 10.0


async def test_what_is_half_made_when_it_is_cancelled_is_closed_at_once(database: Database) -> None:
    """The server keeps a place for it for a minute, and whoever drops a database waits so long."""
    server = conninfo.conninfo_to_dict(database.app_url)
    begun, left = asyncio.Event(), asyncio.Event()

    async def withhold(said: asyncio.StreamReader, tell: asyncio.StreamWriter) -> None:
        """Between the client and the server, whose first word it keeps."""
        host, port = str(server["host"]), int(str(server.get("port", 5432)))
        if host.startswith("/"):
            answers, asks = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            answers, asks = await asyncio.open_connection(host, port)
        asks.write(await said.read(10_000))
        await answers.read(1)
        begun.set()
        await said.read()
        left.set()
        asks.close()
        tell.close()

    async with asyncio.timeout(PATIENCE_S), await asyncio.start_server(withhold, "127.0.0.1", 0) as between:
        port = between.sockets[0].getsockname()[1]
        url = conninfo.make_conninfo(database.app_url, host="127.0.0.1", port=port)
        connecting = asyncio.ensure_future(connections.connector(url, "app")())
        await begun.wait()
        connecting.cancel()
        await asyncio.wait([connecting])
        await left.wait()
    assert connecting.cancelled()  # it is kept, as those who close keep the tasks that they cancelled
