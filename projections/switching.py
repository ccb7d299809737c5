"""Which generation of a view is read, and the end of the other one."""

from typing import LiteralString
from uuid import UUID

from psycopg import sql

from projections import comparison, generations
from projections.view import View

ROWS_PER_DELETE = 5_000
"""A transaction of some ten milliseconds: nobody waits for it, and what is deleted can be reused at once."""

FORGET: LiteralString = """
DELETE FROM views.positions WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
"""
FORGET_PARKED: LiteralString = """
DELETE FROM views.parked WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
"""
FORGET_REBUILD: LiteralString = """
DELETE FROM views.rebuilds WHERE tenant_id = %(tenant)s AND view = %(view)s AND generation = %(generation)s
"""
_DELETE = """
DELETE FROM views.{table} WHERE tenant_id = %(tenant)s AND generation = %(generation)s
  AND ctid = ANY (ARRAY(SELECT ctid FROM views.{table} WHERE tenant_id = %(tenant)s AND generation = %(generation)s LIMIT %(limit)s))
"""


class NothingThere(Exception):
    """There is no second generation to switch to, or to drop."""

    def __init__(self, view: str, wanted: str) -> None:
        super().__init__(
            f"There is no {wanted} generation beside the one that is read, of the view: {view}. Make one with "
            f"`bitnexus projections rebuild {view}`."
        )


async def switch(connection: generations.Connection, view: View, tenant_id: UUID, *, back: bool) -> tuple[int, int]:
    """Queries read the other generation from now on: the newer one, or `back` the older one. Both go on being fed.

    Gives the generation that was read before, and the one that is now. Raises NothingThere, NotAtOnePosition.
    """
    async with connection.transaction():
        found = await generations.locked(connection, view.name, tenant_id)
        active = generations.active(found)
        others = [each for each in found if active is None or (each.generation < active.generation) == back]
        other = next((each for each in others if each is not active), None)
        if active is None or other is None:
            raise NothingThere(view.name, "older" if back else "newer")
        if other.state != "ready" or other.position != active.position:
            raise comparison.NotAtOnePosition(view.name, found)
        await generations.set_state(connection, view.name, tenant_id, active.generation, "ready")
        await generations.set_state(connection, view.name, tenant_id, other.generation, "active", other.failure)
        # What one could not digest the other perhaps can; and one that stood still would hold up both.
        await generations.resume(connection, view.name, tenant_id)
    return active.generation, other.generation


async def drop(connection: generations.Connection, view: View, tenant_id: UUID) -> tuple[int, int]:
    """The generation that is not read goes, whatever it is at; a rebuild under way ends so. Its number, and the rows deleted.

    Interrupted, it is gone on with by the next call. Raises NothingThere.
    """
    async with connection.transaction():
        found = await generations.locked(connection, view.name, tenant_id)
        other = next((each for each in found if each.state != "active"), None)
        if other is None:
            raise NothingThere(view.name, "other")
        await generations.set_state(connection, view.name, tenant_id, other.generation, "dropping")
        await generations.set_fed(connection, view.name, tenant_id, 1)
    values = {"tenant": tenant_id, "view": view.name, "generation": other.generation, "limit": ROWS_PER_DELETE}
    rows = 0
    for table in view.tables:
        query = sql.SQL(_DELETE).format(table=sql.Identifier(table.name))
        deleted = ROWS_PER_DELETE
        while deleted == ROWS_PER_DELETE:
            deleted = (await connection.execute(query, values)).rowcount
            rows += deleted
    async with connection.transaction():
        for statement in (FORGET_PARKED, FORGET_REBUILD, FORGET):
            await connection.execute(statement, values)
    return other.generation, rows
