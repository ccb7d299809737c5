"""Two generations of a view set side by side, at one position, in one snapshot."""

from typing import Any
from uuid import UUID

import msgspec
from psycopg import sql

from projections import generations
from projections.view import Table, View

SAMPLE_ROWS_MAX = 10
"""Differing rows that are shown of a table: enough to see what kind of difference it is."""
HIDDEN = "[personal]"

_COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('tenant_id', 'generation')
ORDER BY attnum
"""
# The sum does not depend on the order of the rows, and what is written the same is hashed the same.
_SUM = """
SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)::numeric), 0)::text FROM views.{table}
WHERE tenant_id = %(tenant)s AND generation = %(generation)s
"""
_SAMPLE = """
SELECT row_to_json(a)::text, row_to_json(b)::text
FROM (SELECT {columns} FROM views.{table} WHERE tenant_id = %(tenant)s AND generation = %(before)s) AS a
FULL JOIN (SELECT {columns} FROM views.{table} WHERE tenant_id = %(tenant)s AND generation = %(after)s) AS b USING ({key})
WHERE a::text IS DISTINCT FROM b::text ORDER BY {key} LIMIT %(limit)s
"""


class NotAtOnePosition(Exception):
    """The generations cannot be compared, nor switched."""

    def __init__(self, view: str, found: list[generations.Generation]) -> None:
        at = ", ".join(f"{each.generation} ({each.state}) at {each.position}" for each in found)
        super().__init__(
            f"The generations of the view {view} are not both fed: {at or 'there are none'}. "
            "Let the rebuild end, or drop what is broken and rebuild it."
        )


class TableMissing(Exception):
    def __init__(self, view: str, table: str) -> None:
        super().__init__(
            f"The view {view} has no table: views.{table}. Run `bitnexus migrate` of the release that this process is of."
        )


class Difference(msgspec.Struct, frozen=True):
    """A row by its key: the columns that differ, before and after; None where there is no such row. Personal columns are hidden."""

    key: dict[str, Any]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class TableCompared(msgspec.Struct, frozen=True):
    """`equal`: as many rows, with the same sum over the columns that both generations have."""

    table: str
    rows_before: int
    rows_after: int
    equal: bool
    differing: list[Difference]


class Comparison(msgspec.Struct, frozen=True):
    """What was read before, and what was made anew, both at `position`."""

    before: int
    after: int
    position: int
    equal: bool
    tables: list[TableCompared]


async def compare(connection: generations.Connection, view: View, tenant_id: UUID) -> Comparison:
    """The active generation with the other one. `connection` is the projector's, in autocommit.

    Raises NotAtOnePosition, TableMissing.
    """
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = await generations.all_of(connection, view.name, tenant_id)
        before = generations.active(found)
        after = next((each for each in found if each.state == "ready"), None)
        if before is None or after is None or before.position != after.position:
            raise NotAtOnePosition(view.name, found)
        tables = [await _table(connection, view, table, tenant_id, before, after) for table in view.tables]
    equal = all(table.equal for table in tables)
    return Comparison(before.generation, after.generation, before.position, equal, tables)


async def columns(connection: generations.Connection, view: View, table: Table) -> list[str]:
    """Of the table, but for tenant and generation. Raises TableMissing."""
    cursor = await connection.execute(_COLUMNS, {"table": f"views.{table.name}"})
    names = [name for (name,) in await cursor.fetchall()]
    if not names:
        raise TableMissing(view.name, table.name)
    return names


async def _table(
    connection: generations.Connection,
    view: View,
    table: Table,
    tenant_id: UUID,
    before: generations.Generation,
    after: generations.Generation,
) -> TableCompared:
    version = min(before.version, after.version)
    names = [name for name in await columns(connection, view, table) if table.since.get(name, 0) <= version]
    parts = {
        "table": sql.Identifier(table.name),
        "columns": sql.SQL(", ").join(map(sql.Identifier, names)),
        "key": sql.SQL(", ").join(map(sql.Identifier, table.key)),
    }
    values = {"tenant": tenant_id, "before": before.generation, "after": after.generation, "limit": SAMPLE_ROWS_MAX}
    sums = []
    for generation in (before, after):
        query = sql.SQL(_SUM).format(**parts)
        cursor = await connection.execute(query, {**values, "generation": generation.generation})
        sums.append((await cursor.fetchall())[0])
    differing: list[Difference] = []
    if sums[0] != sums[1]:
        cursor = await connection.execute(sql.SQL(_SAMPLE).format(**parts), values)
        differing = [_difference(table, *row) for row in await cursor.fetchall()]
    return TableCompared(table.name, sums[0][0], sums[1][0], sums[0] == sums[1], differing)


def _difference(table: Table, before: str | None, after: str | None) -> Difference:
    rows = [None if each is None else msgspec.json.decode(each, type=dict[str, Any]) for each in (before, after)]
    some = rows[0] or rows[1] or {}
    key = {name: some[name] for name in table.key}
    old, new = rows
    names = [name for name in some if name not in key and (old is None or new is None or old[name] != new[name])]
    shown = [None if row is None else {name: _shown(table, name, row[name]) for name in names} for row in rows]
    return Difference(key, shown[0], shown[1])


def _shown(table: Table, name: str, value: Any) -> Any:
    return HIDDEN if name in table.personal and value is not None else value
