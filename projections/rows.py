"""Single rows of views by id, many at a time: what is asked for while an earlier call is in flight goes as one call.

Whoever kept something of a row says which one it was, by its stamp. A row that still is that one comes without its long
columns. So what was kept is used only if the database said, in a snapshot taken after the question, that nothing has changed.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import Format
from psycopg.pq.abc import PGresult

from ledger import arrays, lane
from projections import reading

CALLS_MAX = 2
"""In flight: while the database looks for one, the process renders what came of the other."""
GATHER_S = 0.0015
"""Between two calls: under load questions gather, as a call for eight rows costs no more than two calls for one; a lone question
goes out at once. Measured, by Python and database: 155 µs for a row alone, 31 for one of eight, 19 for one of thirty-two."""
ROWS_PER_CALL_MAX = 500
"""Of some kilobytes each, a call's answer stays under a few megabytes."""
RECOVERY_S_MAX = 5.0
"""How long a question waits for a database that went away: no longer than for a free connection."""

VIEWS = ("transactions", "products", "refunds")
STATEMENTS = {
    **{view: f"AS SELECT * FROM views.{view}_by_id($1, $2, $3, $4, $5)" for view in VIEWS},
    "newest": "AS SELECT * FROM views.newest_transactions($1, $2, $3)",
    "newest_of_person": "AS SELECT * FROM views.newest_transactions_of_person($1, $2, $3, $4)",
}
_LAST = UUID(int=2**128 - 1)
"""No id is as high: a UUIDv7 begins with the time."""
_FIXED = 6
"""Columns before those of the view."""
_PAGE_FIXED = 4
"""The same, of a page."""


class Stamp(NamedTuple):
    """Which version of a row it is. No two versions of a row have the same one: every change of a row is another transaction's.

    That is so for as long as the database lives. Projectors' commits do not wait for the disk: a crash takes the last ones, and
    gives the ids of these transactions to others. So a stamp is good in its era alone, which ends with the connection.
    """

    generation: int
    transaction: bytes  # its id, of 32 bits
    era: int


NO_STAMP = Stamp(0, bytes(4), 0)
_ERAS = itertools.count(1)
"""Of all connections: what was read of a replica is of another era than what was read of the primary."""


class Row(NamedTuple):
    """`columns` are those of the view's COLUMNS; if the row is the one that the asker knows, `same`, without the long ones."""

    stamp: Stamp
    version: int
    columns: tuple[Any, ...]
    same: bool


class Found(NamedTuple):
    """`position` is the view's, in the same snapshot; of `parked` originators it lacks events."""

    row: Row | None
    position: int
    parked: int


NOTHING = Found(None, 0, 0)
"""Of a view that has not begun."""


class PageRow(NamedTuple):
    """A row of a page: the view's COLUMNS, and which version they are of."""

    generation: int
    transaction: bytes
    era: int
    columns: tuple[Any, ...]


class XidArray(arrays.PackedArray):
    """xid[]: from 4 bytes each."""

    __slots__ = ()
    element_oid = 28

    @classmethod
    def of(cls, items: Sequence[bytes]) -> "XidArray":
        prefix = b"\0\0\0\4"
        return cls(len(items), prefix + prefix.join(items))


class _Ask(NamedTuple):
    tenant_id: UUID
    id: UUID
    known: Stamp
    answer: "asyncio.Future[Found]"


class Rows:
    """Lives from `start` to `close`. All of it is touched by the event loop's thread only.

    `connect` gives connections of the app role in autocommit.
    """

    def __init__(self, connect: lane.Connect, recovery_s_max: float = RECOVERY_S_MAX) -> None:
        self._lane = lane.Lane(
            connect, STATEMENTS, lock_timeout_ms=0, recovery_s_max=recovery_s_max, recovered=self._recovered
        )
        self._era = next(_ERAS)
        self._asked: dict[str, deque[_Ask]] = {view: deque() for view in VIEWS}
        self._in_flight = dict.fromkeys(VIEWS, 0)
        self._scheduled: set[str] = set()
        self._called_at = dict.fromkeys(VIEWS, 0.0)  # in the loop's time

    async def start(self) -> None:
        """Raises psycopg.OperationalError if the database is not there."""
        await self._lane.open()

    async def close(self) -> None:
        """Questions without an answer are cancelled."""
        await self._lane.close()

    def find(self, view: str, tenant_id: UUID, id: UUID, known: Stamp = NO_STAMP) -> Awaitable[Found]:
        """Raises psycopg.OperationalError if the database is not there, or does not come back in time."""
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._asked[view].append(_Ask(tenant_id, id, known, answer))
        self._schedule(view)
        return answer

    async def newest(
        self, tenant_id: UUID, before: UUID | None, limit: int, *, visible_to: UUID | None = None
    ) -> reading.Page[PageRow]:
        """At most `limit` (1–100) sales, newest first, those before `before`. Raises as `find`, and ValueError for another limit.

        `visible_to` leaves those of which that person is buyer or affiliate; None leaves all.
        """
        reading.check_limit(limit)
        values = [tenant_id.bytes, (before or _LAST).bytes, (limit + 1).to_bytes(4, "big")]
        try:
            if visible_to is None:
                result = await self._lane.call("newest", values)
            else:
                result = await self._lane.call("newest_of_person", [*values, visible_to.bytes])
        except lane.Lost as error:
            raise psycopg.OperationalError(str(error)) from error
        found = _loaded(result)
        position, parked = found[0][:2] if found else (0, 0)
        rows = [PageRow(row[2], row[3], self._era, row[_PAGE_FIXED:]) for row in found[:limit] if row[3] is not None]
        following: UUID | None = rows[-1].columns[0] if len(found) > limit else None
        return reading.Page(rows, following, position, parked)

    def _schedule(self, view: str) -> None:
        """Those who ask in this turn of the loop, or too soon after the last call, go together."""
        if view not in self._scheduled and self._asked[view] and self._in_flight[view] < CALLS_MAX:
            self._scheduled.add(view)
            loop = asyncio.get_running_loop()
            loop.call_at(self._called_at[view] + GATHER_S, self._call, view)

    def _call(self, view: str) -> None:
        self._scheduled.discard(view)
        self._called_at[view] = asyncio.get_running_loop().time()
        waiting = self._asked[view]
        asks = [self._of_now(waiting.popleft()) for _ in range(min(len(waiting), ROWS_PER_CALL_MAX))]
        asks.sort(key=lambda ask: ask.tenant_id.int)
        self._in_flight[view] += 1
        answer = self._lane.call(view, _packed(asks))
        answer.add_done_callback(partial(self._answered, view, asks, self._era))
        self._schedule(view)

    def _of_now(self, ask: _Ask) -> _Ask:
        """What is known from an era that has ended is not known."""
        return ask if ask.known.era == self._era else ask._replace(known=NO_STAMP)

    def _recovered(self) -> None:
        self._era = next(_ERAS)

    def _answered(self, view: str, asks: list[_Ask], era: int, answer: "asyncio.Future[PGresult]") -> None:
        self._in_flight[view] -= 1
        self._schedule(view)
        try:
            found = _read(asks, answer.result(), self._era)
        except asyncio.CancelledError:
            _refuse(asks, psycopg.OperationalError("the process is closing"))
        except (lane.Lost, psycopg.Error) as error:
            _refuse(asks, psycopg.OperationalError(str(error)) if isinstance(error, lane.Lost) else error)
        else:
            for ask, each in zip(asks, found, strict=True):
                if era != self._era and ask.known is not NO_STAMP:  # the lane sent the question again, with old stamps
                    self._asked[view].append(ask)
                    self._schedule(view)
                elif not ask.answer.done():
                    ask.answer.set_result(each)


def _refuse(asks: Sequence[_Ask], error: Exception) -> None:
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_exception(error)


def _packed(asks: Sequence[_Ask]) -> list[bytes]:
    counts: dict[UUID, int] = {}
    for ask in asks:
        counts[ask.tenant_id] = counts.get(ask.tenant_id, 0) + 1
    packed: list[arrays.PackedArray] = [
        arrays.UuidArray.of([tenant_id.bytes for tenant_id in counts]),
        arrays.Int4Array.of(list(counts.values())),
        arrays.UuidArray.of([ask.id.bytes for ask in asks]),
        arrays.Int4Array.of([ask.known.generation for ask in asks]),
        XidArray.of([ask.known.transaction for ask in asks]),
    ]
    return [each.data for each in packed]


def _read(asks: Sequence[_Ask], result: PGresult, era: int) -> list[Found]:
    found = [NOTHING] * len(asks)
    for columns in _loaded(result):
        wanted, position, parked, generation, transaction, version = columns[:_FIXED]
        row = None
        if transaction is not None:
            stamp = Stamp(generation, bytes(transaction), era)
            row = Row(stamp, version, columns[_FIXED:], stamp == asks[wanted - 1].known)
        found[wanted - 1] = Found(row, position, parked)
    return found


def _loaded(result: PGresult) -> list[tuple[Any, ...]]:
    transformer = Transformer()
    transformer.set_pgresult(result, format=Format.BINARY)
    return transformer.load_rows(0, result.ntuples, tuple)
