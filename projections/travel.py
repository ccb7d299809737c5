"""A view as it stood at a position of its tenant's stream, made of the events up to it beside the view that is read.

It is made in temporary tables, which only their session sees and no log is written for, by the view's own projector: what it
says about `views.<table>` is said about `pg_temp.<table>`. The session is of the app role with the tenant set. It may read
that tenant alone and write no view, so that neither another tenant nor what is read can be touched, whatever a projector says.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString, TypeVar
from uuid import UUID

import psycopg
from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow

from ledger import codec, replay
from projections import batches, columns, comparison, failures, positions, stream
from projections.view import Table, View

RUNNING_MAX = 2
"""In a process, and of a tenant one: each takes a connection, and at full speed most of a core."""
BATCH_EVENTS = 250
"""Then the requests of the same process have their turn: some 8 ms."""
GENERATION = 1
"""Of the rows: there is one."""

TENANT: LiteralString = "SELECT ledger.set_tenant(%(tenant)s)"
SINCE: LiteralString = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
ERASED_MEANWHILE: LiteralString = """
SELECT subject_id FROM ledger.erased_subjects WHERE tenant_id = %(tenant)s AND erased_in >= %(since)s::text::xid8
"""

R = TypeVar("R")
Progress = Callable[[int, int], None]
"""Called with the position that it is at, and the one that it goes to."""


class Crowded(Exception):
    """As many are made already as a process makes at one time, or one for the same tenant."""

    def __init__(self, running: int) -> None:
        super().__init__(
            f"Views of the past that are being made in this process: {running}, of a tenant one at a time. "
            "Ask again when the answer before has come."
        )


class Undigested(Exception):
    """The view cannot be made up to there: an event before it is in the way."""

    def __init__(self, view: str, after: int, to: int, error: BaseException) -> None:
        super().__init__(
            f"The view {view} cannot digest an event from {after + 1:,} to {to:,}: {failures.described(error)}. "
            f"Ask for a position up to {after:,}, or correct the view."
        )


class Past:
    """A view as it stood at `position`. Lives as long as the session."""

    def __init__(self, connection: positions.Connection, view: View, tenant_id: UUID, position: int) -> None:
        self.position = position
        self._connection = connection
        self._view = view
        self._tenant_id = tenant_id

    async def many(self, row: Callable[..., R], statement: LiteralString, **parameters: Any) -> list[R]:
        """All rows that one of the view's statements gives, each made by `row` of its columns."""
        values = {**parameters, "tenant": self._tenant_id, "generation": GENERATION}
        found = await self._connection.execute(statement, values)
        return [row(*columns) for columns in await found.fetchall()]

    async def count(self, table: Table) -> int:
        """Rows."""
        query = sql.SQL("SELECT count(*) FROM pg_temp.{}").format(sql.Identifier(table.name))
        (found,) = await (await self._connection.execute(query)).fetchall()
        return int(found[0])

    async def first(self, table: Table, limit: int) -> list[dict[str, Any]]:
        """At most `limit` rows in order of their key, as JSON has them."""
        query = sql.SQL(
            "SELECT to_jsonb(t) - 'tenant_id' - 'generation' FROM pg_temp.{} t ORDER BY {} LIMIT {}"
        ).format(sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.key)), limit)
        return [found for (found,) in await (await self._connection.execute(query)).fetchall()]


class Travels:
    """One a process. Touched by the event loop's thread only.

    `connect` gives new connections of the app role, in autocommit.
    """

    def __init__(self, connect: positions.Connect, source: stream.Source, *, running_max: int = RUNNING_MAX) -> None:
        self._connect = connect
        self._source = source
        self._running_max = running_max
        self._running: set[UUID] = set()

    @asynccontextmanager
    async def to(
        self,
        view: View,
        tenant_id: UUID,
        position: int,
        *,
        rest: float = 0.0,
        progress: Progress = lambda at, end: None,
    ) -> AsyncIterator[Past]:
        """The view as it stood at a position that there is.

        `rest`: how many times as long as a batch takes nothing is done after it. Left early or cancelled, nothing is left of
        it. Raises Crowded at once, PositionBeyond, Undigested, TableMissing, MasterKeyMissing, and what psycopg raises.
        """
        if len(self._running) >= self._running_max or tenant_id in self._running:
            raise Crowded(len(self._running))
        self._running.add(tenant_id)
        try:
            async with await self._connect() as connection:  # its end is the tables' end
                making = _Making(connection, self._source, view, tenant_id)
                await making.run(position, rest, progress)
                yield Past(connection, view, tenant_id, position)
        finally:
            self._running.discard(tenant_id)


class _Making:
    def __init__(self, connection: positions.Connection, source: stream.Source, view: View, tenant_id: UUID) -> None:
        self._connection = connection
        self._source = source
        self._view = view
        self._tenant_id = tenant_id
        self._topics = sorted(view.wanted)

    async def run(self, position: int, rest: float, progress: Progress) -> None:
        await self._make_tables()
        columns.register(self._connection.adapters)
        self._connection.cursor_factory = _aside(self._view.tables)
        ((since,),) = await (await self._connection.execute(SINCE)).fetchall()
        loop = asyncio.get_running_loop()
        at = 0
        progress(at, position)
        while at < position:
            begun = loop.time()
            reached = await self._batch(at, min(BATCH_EVENTS, position - at))
            if reached == at:  # the database was restored to an earlier moment
                raise replay.PositionBeyond(position, at)
            at = reached
            progress(at, position)
            await asyncio.sleep((loop.time() - begun) * rest)
        await self._forget(since)

    async def _make_tables(self) -> None:
        make = sql.SQL("CREATE TEMPORARY TABLE {table} (LIKE views.{table} INCLUDING ALL)")  # of no tenant: no rows
        for table in self._view.tables:
            try:
                await self._connection.execute(make.format(table=sql.Identifier(table.name)))
            except psycopg.errors.UndefinedTable as error:
                raise comparison.TableMissing(self._view.name, table.name) from error

    async def _batch(self, after: int, limit: int) -> int:
        """Where it ends. A transaction of its own each: a long one would keep the server from clearing up behind everybody."""
        async with self._connection.transaction():
            await self._set_tenant()
            stretch = await stream.read_stretch(
                self._connection, self._source, self._topics, self._tenant_id, after, limit
            )
            try:
                await batches.project(self._connection, self._view, self._tenant_id, GENERATION, stretch.events)
            except Exception as error:
                if failures.is_outage(error):
                    raise
                raise Undigested(self._view.name, after, stretch.to, error) from error
        return stretch.to

    async def _forget(self, since: str) -> None:
        """Whoever was erased while it was made: the events that were read before hold them still."""
        if self._view.erase is None:
            return
        async with self._connection.transaction():
            await self._set_tenant()
            values = {"tenant": self._tenant_id, "since": since}
            erased = await (await self._connection.execute(ERASED_MEANWHILE, values)).fetchall()
            if erased:
                subjects = [subject for (subject,) in erased]
                values = {"tenant": self._tenant_id, "subjects": subjects, "marker": codec.ERASED}
                await self._connection.execute(self._view.erase, values)

    async def _set_tenant(self) -> None:
        await self._connection.execute(TENANT, {"tenant": self._tenant_id}, prepare=True)


def _aside(tables: Sequence[Table]) -> type[AsyncCursor[TupleRow]]:
    """Cursors that say of `pg_temp.<table>` what they are told to say of `views.<table>`."""
    names = "|".join(re.escape(table.name) for table in tables)
    named = re.compile(rf"\bviews\.({names})\b")

    class Aside(AsyncCursor[TupleRow]):
        async def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            told = named.sub(r"pg_temp.\1", query) if isinstance(query, str) else query
            return await super().execute(told, *arguments, **options)

    return Aside
