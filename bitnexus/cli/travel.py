"""`projections at`."""

from argparse import Namespace
from typing import Any
from uuid import UUID

import msgspec
from rich.console import RenderableType
from rich.text import Text

from bitnexus import cli, database
from bitnexus.cli import loop, views
from bitnexus.cli.output import Output, table
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import tenants
from domain import instants
from ledger import replay
from projections import travel
from projections.view import View

DIGITS_MAX = 18
"""Of a position."""
COLUMNS_MAX = 8
"""Side by side on a terminal."""


class TableAt(msgspec.Struct, frozen=True):
    """A table of the view: the first of its `count` rows, in order of their key."""

    table: str
    count: int
    rows: list[dict[str, Any]]


class ViewAt(msgspec.Struct, frozen=True):
    """A view of a tenant as it stood at `position`."""

    view: str
    tenant_id: UUID
    position: int
    tables: list[TableAt]


def show(arguments: Namespace, settings: Settings, output: Output) -> int:
    view, time = views.find(arguments.view), arguments.time
    position = int(time) if time.isascii() and time.isdigit() and len(time) <= DIGITS_MAX else None
    instant = instants.parsed(time, "--time") if position is None else None

    async def work(parts: Process) -> ViewAt:
        tenant_id = await tenants.find(arguments.tenant, parts.ledger)
        head = (await parts.ledger.head(tenant_id)).position
        if position is not None and position > head:
            raise replay.PositionBeyond(position, head)
        to = position
        if instant is not None:
            async with parts.app.connection() as connection:
                to = await replay.position_at(connection, tenant_id, instant)
        assert to is not None
        return await _made(parts, view, tenant_id, to, arguments.limit, output)

    found = loop.with_process(settings, output, work)
    output.result(found, *_shown(view, found))
    return cli.GOOD


async def _made(parts: Process, view: View, tenant_id: UUID, to: int, limit: int, output: Output) -> ViewAt:
    travels = travel.Travels(database.travelling_connector(parts.installation.app_url), parts.source)
    with output.progress(rates=True) as bars:

        def moved(at: int, end: int) -> None:
            bars.move(f"{view.name} {tenant_id}", at, end)

        async with travels.to(view, tenant_id, to, progress=moved) as past:
            tables = [TableAt(each.name, await past.count(each), await past.first(each, limit)) for each in view.tables]
    return ViewAt(view.name, tenant_id, to, tables)


def _shown(view: View, found: ViewAt) -> list[RenderableType]:
    shown: list[RenderableType] = []
    for each, declared in zip(found.tables, view.tables, strict=True):
        if each.rows:
            shown.append(_rows(each.rows, declared.key))
        told = f"{len(each.rows):,} of {each.count:,} rows of views.{each.table} at position {found.position:,}."
        shown.append(Text(told if len(each.rows) == each.count else f"{told} --limit gives more."))
    return shown


def _rows(rows: list[dict[str, Any]], key: tuple[str, ...]) -> RenderableType:
    """A column for each of theirs; where that is too many to be read, for their key, and one for all that is left."""
    if len(rows[0]) <= COLUMNS_MAX:
        lines = table(*rows[0])
        for row in rows:
            lines.add_row(*map(_text, row.values()))
        return lines
    lines = table(*key, "row")
    for row in rows:
        left = (f"{name}: {_text(value)}" for name, value in row.items() if name not in key and value is not None)
        lines.add_row(*(_text(row[name]) for name in key), "\n".join(left))
    return lines


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
