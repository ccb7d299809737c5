"""The generations of a view's rows: the rows of `views.positions`, one for each (tenant, view, generation).

filling ──► ready ◄──► active         One is active at a time: it is what queries read. `ready` ones are fed in the
   │          │                       same transactions as the active one, so that all of them stand at one position.
   │          ├──► broken             `filling` ones are filled from position 1 by a rebuild, by themselves.
   └──────────┴──► dropping ──► gone
"""

from typing import LiteralString
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

KEPT_MAX = 2
"""Generations of a tenant's view at one time: the one that is read, and one that comes or is kept."""
RATE_S = 10.0
"""The rate of a view is a mean that fades within this time."""

Connection = AsyncConnection[TupleRow]

BEGIN_VIEW: LiteralString = """
INSERT INTO views.positions (tenant_id, view, generation, version, position, state)
VALUES (%(tenant)s, %(view)s, 1, %(version)s, 0, 'active') ON CONFLICT DO NOTHING
"""

ALL: LiteralString = """
SELECT generation, version, state, position, fed, parked, stopped, failure FROM views.positions
WHERE tenant_id = %(tenant)s AND view = %(view)s ORDER BY generation
"""
ALL_LOCKED: LiteralString = ALL + " FOR UPDATE"

# The first statement of a batch. Whoever moves the position holds the rows until the batch is committed, so two never project
# the same event at the same time; the token says that nobody else was given the tenant meanwhile.
_MOVED: LiteralString = """
UPDATE views.positions
SET position = %(to)s, failure = NULL, attempts = 0, failed_at = NULL, moved_at = clock_timestamp(),
    rate = rate * exp(greatest(-extract(epoch FROM clock_timestamp() - moved_at)::float8 / %(fade_s)s, -50))
         + (%(to)s - %(after)s) / %(fade_s)s
WHERE tenant_id = %(tenant)s AND view = %(view)s AND state IN ('active', 'ready') AND position = %(after)s
  AND version <= %(version)s AND NOT stopped
  AND EXISTS (SELECT FROM views.leases l WHERE l.view = %(view)s AND l.bucket = %(bucket)s AND l.token = %(token)s)
"""
MOVE: LiteralString = _MOVED + "RETURNING generation, version, state, position, fed, parked, stopped, failure"
MOVE_ALONE: LiteralString = _MOVED + "AND fed = 1"

FAILED: LiteralString = """
UPDATE views.positions SET failure = %(failure)s, attempts = %(attempts)s, failed_at = clock_timestamp(), stopped = %(stopped)s
WHERE tenant_id = %(tenant)s AND view = %(view)s AND state = 'active' AND position = %(position)s
"""
RESUME: LiteralString = """
UPDATE views.positions SET stopped = false, failure = NULL, attempts = 0, failed_at = NULL
WHERE tenant_id = %(tenant)s AND view = %(view)s AND stopped
"""
SET_STATE: LiteralString = """
UPDATE views.positions SET state = %(state)s, failure = %(failure)s
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
"""
SET_FED: LiteralString = "UPDATE views.positions SET fed = %(fed)s WHERE tenant_id = %(tenant)s AND view = %(view)s"
SET_POSITION: LiteralString = """
UPDATE views.positions SET position = %(position)s, state = %(state)s
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
"""
ADD_PARKED: LiteralString = """
UPDATE views.positions SET parked = parked + %(originators)s
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
"""


class Generation(msgspec.Struct, frozen=True):
    """`version` is that of the code that began it. `fed`: how many are, if it is active. `parked` counts originators.
    `failure`: what it cannot get past."""

    generation: int
    version: int
    state: str
    position: int
    fed: int
    parked: int
    stopped: bool
    failure: str | None


class Changed(Exception):
    """A generation came or went while a batch began. The same batch again will see it."""

    def __init__(self, view: str, tenant_id: UUID) -> None:
        super().__init__(f"The generations of {view} of tenant {tenant_id} have just changed. Try again.")


async def begin(connection: Connection, view: str, version: int, tenant_id: UUID) -> bool:
    """Make the first generation if there is none; whether it was made.

    Outside of a transaction: one that makes the row and goes on would make everybody else's `begin` wait for its end.
    """
    values = {"tenant": tenant_id, "view": view, "version": version}
    return (await connection.execute(BEGIN_VIEW, values)).rowcount == 1


async def all_of(connection: Connection, view: str, tenant_id: UUID) -> list[Generation]:
    """In order of generation."""
    cursor = await connection.execute(ALL, {"tenant": tenant_id, "view": view}, binary=True)
    return [Generation(*row) for row in await cursor.fetchall()]


async def locked(connection: Connection, view: str, tenant_id: UUID) -> list[Generation]:
    """As `all_of`, held until the transaction ends: no batch of this view of the tenant is under way meanwhile."""
    cursor = await connection.execute(ALL_LOCKED, {"tenant": tenant_id, "view": view}, binary=True)
    return [Generation(*row) for row in await cursor.fetchall()]


def active(found: list[Generation]) -> Generation | None:
    """The one that is read."""
    return next((each for each in found if each.state == "active"), None)


class Step(msgspec.Struct, frozen=True):
    """Of a view of one tenant past the events behind `after` up to `to`, by code of `version`, under a lease's `token`."""

    view: str
    version: int
    tenant_id: UUID
    after: int
    to: int
    bucket: int
    token: int

    def values(self) -> dict[str, object]:
        """For MOVE."""
        return {**msgspec.structs.asdict(self), "tenant": self.tenant_id, "fade_s": RATE_S}


async def move(connection: Connection, step: Step | None) -> list[Generation]:
    """Those that are fed, moved from `after` to `to` and held until the transaction ends, the active one first.

    None of them if they are elsewhere, stopped or of a newer version, or if the lease's token is not the last one, or without a
    step. Raises Changed if one came or went at this very moment: roll back and try again.
    """
    if step is None:
        return []
    cursor = await connection.execute(MOVE, step.values(), prepare=True, binary=True)
    moved = sorted([Generation(*row) for row in await cursor.fetchall()], key=lambda each: each.state)
    if moved and moved[0].fed != len(moved):
        raise Changed(step.view, step.tenant_id)
    return moved


async def move_alone(connection: Connection, step: Step | None) -> bool:
    """As `move`, for events of which the view wants none, by one statement outside of a transaction; whether it was done. It is
    not where more than one generation is fed: all of them or none have to move."""
    return (
        step is not None
        and (await connection.execute(MOVE_ALONE, step.values(), prepare=True, binary=True)).rowcount == 1
    )


async def failed(
    connection: Connection, view: str, tenant_id: UUID, position: int, failure: str, attempts: int, *, stopped: bool
) -> None:
    """Say of the active generation, if it is at that position, what it cannot get past."""
    values = {
        **{"tenant": tenant_id, "view": view, "position": position},
        **{"failure": failure, "attempts": attempts, "stopped": stopped},
    }
    await connection.execute(FAILED, values)


async def resume(connection: Connection, view: str, tenant_id: UUID) -> bool:
    """Let a stopped view try again; whether it was stopped."""
    return (await connection.execute(RESUME, {"tenant": tenant_id, "view": view})).rowcount > 0


async def set_fed(connection: Connection, view: str, tenant_id: UUID, fed: int) -> None:
    """How many generations are fed from now on. The caller holds all of them."""
    await connection.execute(SET_FED, {"tenant": tenant_id, "view": view, "fed": fed})


async def set_state(
    connection: Connection, view: str, tenant_id: UUID, generation: int, state: str, failure: str | None = None
) -> None:
    values = {"tenant": tenant_id, "view": view, "generation": generation, "state": state, "failure": failure}
    await connection.execute(SET_STATE, values)


async def set_position(
    connection: Connection, view: str, tenant_id: UUID, generation: int, position: int, state: str
) -> None:
    values = {"tenant": tenant_id, "view": view, "generation": generation, "position": position, "state": state}
    await connection.execute(SET_POSITION, values)


async def add_parked(connection: Connection, view: str, tenant_id: UUID, generation: int, originators: int) -> None:
    """`originators` more, or fewer."""
    values = {"tenant": tenant_id, "view": view, "generation": generation, "originators": originators}
    await connection.execute(ADD_PARKED, values)
