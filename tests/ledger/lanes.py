"""Lanes on a real database for test_lane.py, a relay that cuts their connections, and both event loops."""

import asyncio
import dataclasses
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import uvloop
from psycopg import AsyncConnection, conninfo
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from bitnexus import database as connections
from ledger.lane import Lane
from tests.world import Database

PATIENCE_S = 30
"""How long a test waits for what must come; it is over as soon as that is there."""
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
LARGE_BYTES = 8 << 20
"""Of a parameter or a result: much more than a socket takes at once."""

SCHEMA = """
    CREATE SCHEMA lane;
    CREATE TABLE lane.kept (n int PRIMARY KEY, place serial);
    CREATE TABLE lane.referring (n int REFERENCES lane.kept DEFERRABLE INITIALLY DEFERRED);
    CREATE SEQUENCE lane.times;
    CREATE FUNCTION lane.ended() RETURNS bool LANGUAGE sql SECURITY DEFINER RETURN pg_terminate_backend(pg_backend_pid());
    CREATE FUNCTION lane.stopped(how text) RETURNS int LANGUAGE plpgsql AS $$
    DECLARE
        tried int := nextval('lane.times');
    BEGIN
        IF tried > 1 AND how !~ 'always' THEN
            RETURN tried;
        ELSIF how ~ 'terminated' THEN
            PERFORM lane.ended(), pg_sleep(60);
        ELSIF how ~ 'timeout' THEN
            PERFORM set_config('transaction_timeout', '20ms', true), pg_sleep(60);
        END IF;
        RAISE EXCEPTION 'stopped' USING ERRCODE = right(how, 5);
    END $$;
    GRANT USAGE ON SCHEMA lane TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA lane TO PUBLIC;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA lane TO PUBLIC;
"""
STATEMENTS = {
    "add_one": "AS SELECT $1::int + 1",
    "divide": "AS SELECT 12 / $1::int",
    "echo": "AS SELECT $1::bytea",
    "digest": "AS SELECT sha256($1::bytea)",
    "backend": "AS SELECT pg_backend_pid()",
    "insert": "AS INSERT INTO lane.kept (n) VALUES ($1::int) RETURNING n",
    "refer": "AS INSERT INTO lane.referring (n) VALUES ($1::int) RETURNING n",
    "lock": "AS SELECT n FROM lane.kept WHERE n = $1::int FOR UPDATE",
    "stop": "AS SELECT lane.stopped($1::text)",
}


class Relay:
    """Between a lane and its server, on the lane's own loop: what it does in one turn, the lane sees at once.

    It waits for the other side when it writes: large answers must not go through it.
    """

    def __init__(self, url: str) -> None:
        self._upstream = conninfo.conninfo_to_dict(url)
        self._directory = tempfile.TemporaryDirectory(prefix="lane-")  # a socket's path may have 107 bytes
        self.url = conninfo.make_conninfo(url, host=self._directory.name, port=5432, hostaddr="")
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_last = False

    async def __aenter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self._directory.name) / ".s.PGSQL.5432"))
        self._listener.listen()
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self.cut()
        self._directory.cleanup()

    def cut(self) -> None:
        for pair in self._pairs:
            for each in pair:
                asyncio.get_running_loop().remove_reader(each)
                each.close()
        self._pairs.clear()

    def hold(self) -> None:
        """What the lane sends from now on stays unread, and is lost with the connection."""
        for client, _ in self._pairs:
            asyncio.get_running_loop().remove_reader(client)

    def end_with_the_next_answer(self) -> None:
        """The server's last words are an answer, and tell nothing of the end."""
        self.hold()
        self._is_last = True

    def _accept(self) -> None:
        client, server = self._listener.accept()[0], self._connected()
        for each in (client, server):
            each.settimeout(PATIENCE_S)  # loops make them non-blocking
        self._pairs.append((client, server))
        asyncio.get_running_loop().add_reader(client, self._pass, client, server, False)
        asyncio.get_running_loop().add_reader(server, self._pass, server, client, True)

    def _connected(self) -> socket.socket:
        host, port = str(self._upstream.get("host", "/tmp")), int(self._upstream.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(ConnectionError):
            data = source.recv(1 << 16)
            target.sendall(data)
            if data and not (is_answer and self._is_last):
                return
        self._is_last = False
        self.cut()


@dataclasses.dataclass
class Bench:
    """A database, and what can be done to it and to those who connect."""

    database: Database
    owner: AsyncConnection[TupleRow]
    connects: list[Exception] = dataclasses.field(
        default_factory=list
    )  # raised by the next attempts, the last one first
    is_silent: bool = False  # attempts to connect do not end
    attempts: int = 0

    @asynccontextmanager
    async def lane(
        self, url: str | None = None, lock_timeout_ms: int = 0, recovery_s_max: float | None = None
    ) -> AsyncIterator[Lane]:
        async def connect() -> AsyncConnection[TupleRow]:
            self.attempts += 1
            if self.is_silent:
                await asyncio.Event().wait()
            if self.connects:
                raise self.connects.pop()
            return await connections.connect(url or self.database.app_url, "app")

        made = Lane(connect, STATEMENTS, lock_timeout_ms, recovery_s_max)
        await made.open()
        try:
            yield made
        finally:
            await made.close()

    async def ask(self, query: str, *parameters: object) -> list[TupleRow]:
        return await (await self.owner.execute(query.encode(), parameters)).fetchall()

    async def backends(self) -> list[int]:
        """Of lanes."""
        query = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND application_name = 'bitnexus app'"
        return [pid for (pid,) in await self.ask(query, f"{self.database.name}_login")]

    async def terminate(self) -> None:
        for pid in await self.backends():
            await self.owner.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    @asynccontextmanager
    async def locked(self, n: int) -> AsyncIterator[None]:
        """A row that `lock` waits for."""
        await self.owner.execute("INSERT INTO lane.kept (n) VALUES (%s) ON CONFLICT DO NOTHING", (n,))
        async with await AsyncConnection.connect(self.database.owner_url) as other:
            await other.execute("SELECT FROM lane.kept WHERE n = %s FOR UPDATE", (n,))
            yield

    async def until_waiting(self) -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'"
        await until(lambda: self.ask(query, f"{self.database.name}_login"), [(1,)])

    async def until_attempts(self, count: int) -> None:
        async def enough() -> bool:
            return self.attempts >= count

        await until(enough, True)


async def until(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await ask() == expected:
                return
            await asyncio.sleep(0.005)


def on_both_loops(scenario: Callable[[Bench], Awaitable[None]]) -> Callable[[Database, str], None]:
    """The scenario as a test. The loops tell of sockets differently; the process has uvloop's, the command line asyncio's."""

    @pytest.mark.parametrize("loop", LOOPS)
    def test(database: Database, loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(_run(database, scenario))

    test.__name__, test.__doc__ = str(getattr(scenario, "__name__", "")), scenario.__doc__
    return test


async def _run(database: Database, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async with await AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
        await owner.execute(SCHEMA.encode())
        await scenario(Bench(database, owner))


def int4(n: int) -> list[bytes]:
    return [struct.pack("!i", n)]


def large(count: int) -> list[list[bytes]]:
    return [[os.urandom(LARGE_BYTES)] for _ in range(count)]


def value(of: PGresult | BaseException) -> bytes | None:
    """Of the only column of the only row."""
    if isinstance(of, BaseException):
        raise of
    return of.get_value(0, 0)


def number(of: PGresult | BaseException) -> int | BaseException:
    return of if isinstance(of, BaseException) else int.from_bytes(value(of) or b"", signed=True)


async def answers(futures: Sequence["asyncio.Future[PGresult]"]) -> list[PGresult | BaseException]:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*futures, return_exceptions=True)


async def numbers(*futures: "asyncio.Future[PGresult]") -> list[int | BaseException]:
    return [number(each) for each in await answers(futures)]
