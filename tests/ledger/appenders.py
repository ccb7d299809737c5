"""An appender alone on its database, and what tests say to it."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Sequence
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from ledger import ids
from ledger.appender import Appended, Appender
from ledger.packing import Command, Event, Reservation
from ledger.waker import Waker
from tests.world import Database

PATIENCE_S = 30
"""How long a test waits for what must come; it is over as soon as that is there."""


@dataclasses.dataclass
class Bench:
    """An appender alone on its database."""

    database: Database
    appender: Appender
    owner: AsyncConnection[TupleRow]
    moves: list[tuple[UUID, int]]
    connects: list[Exception]  # raised by the next attempts to connect, the last one first

    async def backends(self) -> list[int]:
        """Of the appender: at most one works, others are on their way out."""
        query = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND application_name = 'bitnexus app'"
        return [pid for (pid,) in await (await self.owner.execute(query, (f"{self.database.name}_login",))).fetchall()]

    async def terminate(self) -> None:
        for pid in await self.backends():
            await self.owner.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    @contextlib.asynccontextmanager
    async def head_locked(self, tenant: UUID) -> AsyncIterator[None]:
        async with await AsyncConnection.connect(self.database.owner_url) as other:
            await other.execute("SELECT FROM ledger.heads WHERE tenant_id = %s FOR UPDATE", (tenant,))
            yield

    async def until_waiting(self) -> None:
        """Until the appender's backend waits for a head."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'"
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if await (await self.owner.execute(query, (f"{self.database.name}_login",))).fetchone() == (1,):
                    return
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def at_work(database: Database) -> AsyncIterator[Bench]:
    moves: list[tuple[UUID, int]] = []
    connects: list[Exception] = []

    async def connect() -> AsyncConnection[TupleRow]:
        if connects:
            raise connects.pop()
        return await connections.connect(database.app_url, "app")

    waker = Waker()
    waker.subscribe(lambda tenant_id, position: moves.append((tenant_id, position)))
    found = Appender(connect, waker)
    await found.start()
    async with await AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
        yield Bench(database, found, owner, moves, connects)
    connects.clear()
    await found.close()


def event(originator: UUID | None = None, version: int = 1, topic: bytes = b"thing.made") -> Event:
    return Event((originator or ids.new_id()).bytes, version, topic, b'{"n":1}', b"{}")


def command(tenant: UUID, *events: Event, id: UUID | None = None, reservations: Sequence[Reservation] = ()) -> Command:
    return Command(tenant, id or ids.new_id(), b"f", b"outcome", events, reservations)


async def answers(futures: Sequence[Awaitable[Appended]]) -> list[Appended | BaseException]:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*futures, return_exceptions=True)


def appended(found: Sequence[Appended | BaseException]) -> list[Appended]:
    return [each for each in found if isinstance(each, Appended)]
