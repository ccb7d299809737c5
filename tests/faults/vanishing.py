"""A database that vanishes without a word, in a network of the program's own: `unshare --net python -m tests.faults.vanishing URL`.

Prints what became of three connections, as JSON: the seconds until each was known to be lost.
"""

import asyncio
import contextlib
import fcntl
import json
import socket
import struct
import sys
import time
from typing import Any

import psycopg
from psycopg import conninfo

from bitnexus import database as connections

WAIT_S_MAX = 100.0
"""Left to itself the kernel tries for a quarter of an hour."""
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1
"""SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP."""


def turn(*, up: bool) -> None:
    """The only interface that there is (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, GET_FLAGS, struct.pack("16sH22x", b"lo", 0))
        _, flags = struct.unpack("16sH22x", request)
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH22x", b"lo", flags | UP if up else flags & ~UP))


async def main(app_url: str) -> dict[str, Any]:
    found = conninfo.conninfo_to_dict(app_url)
    path = f"{found['host']}/.s.PGSQL.{found.get('port') or 5432}"

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(path)
        with contextlib.suppress(asyncio.CancelledError):  # the program's end
            await asyncio.gather(copy(reader, to_server), copy(from_server, writer))

    turn(up=True)
    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = conninfo.make_conninfo(app_url, host="127.0.0.1", port=port)
    asked, waits = [await connections.connect(url, "app") for _ in range(2)]
    projects = await connections.projecting_connector(url)()

    async def lost(connection: psycopg.AsyncConnection[Any], statement: str) -> float:
        try:
            await connection.execute(statement.encode())
        except psycopg.OperationalError:
            return time.monotonic() - begun
        raise AssertionError(f"it was answered: {statement}")

    begun = time.monotonic()
    waiting = asyncio.create_task(lost(waits, f"SELECT pg_sleep({WAIT_S_MAX})"))
    await asyncio.sleep(0.5)  # the question is through
    turn(up=False)
    begun = time.monotonic()
    async with asyncio.timeout(WAIT_S_MAX):
        seconds = await asyncio.gather(lost(asked, "SELECT 1"), waiting, lost(projects, "BEGIN"))
    return dict(zip(("asked", "waits", "projects"), seconds, strict=True))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))), flush=True)
