"""A rebuild asked for, given up for now, looked at: the rows of `views.rebuilds`. `projections.filling` does it."""

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec

from projections import comparison, generations
from projections.view import View

REQUEST_GENERATION: LiteralString = """
INSERT INTO views.positions (tenant_id, view, generation, version, position, state)
VALUES (%(tenant)s, %(view)s, %(generation)s, %(version)s, 0, 'filling')
"""
REQUEST: LiteralString = """
INSERT INTO views.rebuilds (tenant_id, view, generation, compare_only, requested_by, holder)
VALUES (%(tenant)s, %(view)s, %(generation)s, %(compare_only)s, %(requested_by)s, %(process)s)
"""
RESUME: LiteralString = """
UPDATE views.rebuilds SET paused = false, error = NULL, compare_only = %(compare_only)s, holder = %(process)s, token = token + 1
WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s RETURNING token
"""
PAUSE: LiteralString = """
UPDATE views.rebuilds SET paused = true, holder = NULL
WHERE tenant_id = %(tenant)s AND view = %(view)s AND finished_at IS NULL AND (holder IS NULL OR holder = %(process)s)
"""
# Whether a live process is at it, by the database's clock.
STATUS: LiteralString = """
SELECT r.view, r.tenant_id, r.generation, p.version, p.state, p.position, h.position, p.rate, r.compare_only, r.paused,
       EXISTS (SELECT FROM views.processes x WHERE x.process_id = r.holder AND x.expires_at > clock_timestamp()),
       r.error, r.requested_at, r.finished_at, r.comparison
FROM views.rebuilds r
JOIN views.positions p ON p.tenant_id = r.tenant_id AND p.view = r.view AND p.generation = r.generation
JOIN ledger.heads h ON h.tenant_id = r.tenant_id
WHERE r.tenant_id = %(tenant)s AND r.view = %(view)s ORDER BY r.generation DESC LIMIT 1
"""


class Refused(Exception):
    """The rebuild cannot be, as things are."""


class UnderWay(Refused):
    def __init__(self, view: str, generation: int, position: int, head: int) -> None:
        super().__init__(
            f"The view {view} is being rebuilt already: generation {generation} is at {position:,} of {head:,}. Wait for its end, "
            f"or end it with `bitnexus projections drop {view}`."
        )


class Kept(Refused):
    def __init__(self, view: str, generation: int, state: str) -> None:
        super().__init__(
            f"The view {view} still has another generation: {generation} ({state}). Drop it first with `bitnexus projections "
            f"drop {view}`, or read it again with `bitnexus projections switch {view}`."
        )


class VersionOlder(Refused):
    def __init__(self, view: str, version: int, stored: int) -> None:
        super().__init__(
            f"The view {view} would go backwards: this release has version {version}, and what is stored is of version {stored}. "
            "Use the newer release."
        )


class Job(msgspec.Struct, frozen=True):
    """A rebuild that this process has. Whoever takes it over has a higher token."""

    view: str
    tenant_id: UUID
    generation: int
    token: int
    compare_only: bool


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Of the last rebuild that was asked for. `working`: a live process is at it. `rate` in events/s."""

    view: str
    tenant_id: UUID
    generation: int
    version: int
    state: str
    position: int
    head: int
    rate: float
    compare_only: bool
    paused: bool
    working: bool
    error: str | None
    requested_at: datetime
    finished_at: datetime | None
    comparison: comparison.Comparison | None


async def request(
    connection: generations.Connection,
    view: View,
    tenant_id: UUID,
    *,
    compare_only: bool = False,
    requested_by: UUID | None = None,
    process_id: UUID | None = None,
) -> Job:
    """Ask for a rebuild, or for going on with one that stands still.

    `process_id`: a live process that does it at once. `connection` is the projector's, in autocommit. Raises UnderWay, Kept,
    VersionOlder.
    """
    await generations.begin(connection, view.name, view.version, tenant_id)
    async with connection.transaction():
        found = await generations.locked(connection, view.name, tenant_id)
        other = await _unfinished(connection, view, tenant_id, found)
        values: dict[str, Any] = {
            "tenant": tenant_id,
            "view": view.name,
            "compare_only": compare_only,
            "process": process_id,
        }
        if other is None:
            generation = found[-1].generation + 1
            values |= {"generation": generation, "version": view.version, "requested_by": requested_by}
            await connection.execute(REQUEST_GENERATION, values)
            await connection.execute(REQUEST, values)
            return Job(view.name, tenant_id, generation, 0, compare_only)
        row = await (await connection.execute(RESUME, {**values, "generation": other.generation})).fetchone()
        assert row is not None
        return Job(view.name, tenant_id, other.generation, row[0], compare_only)


async def check(connection: generations.Connection, view: View, tenant_id: UUID) -> bool:
    """Whether asking now would go on with a rebuild that stands still. Raises what asking would, TableMissing."""
    for table in view.tables:
        await comparison.columns(connection, view, table)
    found = await generations.all_of(connection, view.name, tenant_id)
    return await _unfinished(connection, view, tenant_id, found) is not None


async def _unfinished(
    connection: generations.Connection, view: View, tenant_id: UUID, found: list[generations.Generation]
) -> generations.Generation | None:
    """The generation of a rebuild that stands still; None if there is no second one. Raises UnderWay, Kept, VersionOlder."""
    newest = max((each.version for each in found), default=0)
    if newest > view.version:
        raise VersionOlder(view.name, view.version, newest)
    other = next((each for each in found if each.state != "active"), None)
    if other is None:
        return None
    before = await status(connection, view.name, tenant_id)
    done = before is None or before.finished_at is not None or other.state in ("broken", "dropping")
    if before is None or done or other.version != view.version:
        raise Kept(view.name, other.generation, other.state)
    if before.working and not before.paused and before.error is None:
        raise UnderWay(view.name, other.generation, other.position, before.head)
    return other


async def pause(connection: generations.Connection, view: str, tenant_id: UUID, process_id: UUID) -> None:
    """Let it stand still until it is asked for again, if it is that process's or nobody's."""
    await connection.execute(PAUSE, {"tenant": tenant_id, "view": view, "process": process_id})


async def status(connection: generations.Connection, view: str, tenant_id: UUID) -> Status | None:
    """None if none is known: there was none, or its generation was dropped."""
    row = await (await connection.execute(STATUS, {"tenant": tenant_id, "view": view})).fetchone()
    if row is None:
        return None
    *values, compared = row
    names = Status.__struct_fields__
    found = dict(zip(names, values, strict=False))
    return Status(**found, comparison=None if compared is None else msgspec.convert(compared, comparison.Comparison))
