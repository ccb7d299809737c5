"""`projections list` and `projections rebuild`."""

from argparse import Namespace
from collections.abc import Sequence
from uuid import UUID

import msgspec

from bitnexus import cli, database
from bitnexus.cli import loop
from bitnexus.cli.output import Output, table
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import tenants
from projections import catalogue, cross_tenant
from projections import rebuild as rebuilding
from projections.view import View


class ViewShown(msgspec.Struct, frozen=True):
    """A view over all its tenants. `position` is the sum of the tenants' positions, `head` of their heads."""

    view: str
    version: int
    tenants: int
    position: int
    head: int
    lag_events: int
    lag_seconds: float  # age of the oldest event that is not in the view


class ViewUnknown(loop.InputWrong):
    def __init__(self, name: str) -> None:
        names = ", ".join(view.name for view in catalogue.VIEWS)
        super().__init__("There is no such view", repr(name[:80]), f"Give one of {names}")


def show(arguments: Namespace, settings: Settings, output: Output) -> int:
    async def look(parts: Process) -> list[cross_tenant.Lag]:
        async with parts.projector.connection() as connection:
            return await cross_tenant.lag(connection, [view.name for view in catalogue.VIEWS])

    lags = loop.with_process(settings, output, look)
    views = [_summed(view, [lag for lag in lags if lag.view == view.name]) for view in catalogue.VIEWS]
    numbers = ("version", "tenants", "position", "head", "behind", "seconds behind")
    lines = table("view", *numbers, right=numbers)
    for view in views:
        lines.add_row(
            view.view,
            str(view.version),
            f"{view.tenants:,}",
            f"{view.position:,}",
            f"{view.head:,}",
            f"{view.lag_events:,}",
            f"{view.lag_seconds:.1f}",
        )
    output.result({"views": views}, lines)
    return cli.GOOD


def _summed(view: View, lags: Sequence[cross_tenant.Lag]) -> ViewShown:
    return ViewShown(
        view=view.name,
        version=view.version,
        tenants=len(lags),
        position=sum(lag.position for lag in lags),
        head=sum(lag.head for lag in lags),
        lag_events=sum(lag.behind for lag in lags),
        lag_seconds=round(max((lag.seconds_behind for lag in lags), default=0.0), 3),
    )


def rebuild(arguments: Namespace, settings: Settings, output: Output) -> int:
    view = next((view for view in catalogue.VIEWS if view.name == arguments.view), None)
    if view is None:
        raise ViewUnknown(arguments.view)
    rebuilt: dict[UUID, int] = {}  # tenant -> position

    async def work(parts: Process) -> None:
        tenant_id = None if arguments.tenant is None else await tenants.find(arguments.tenant, parts.ledger)
        connect = database.connector(parts.installation.app_url, "projector")
        async with await connect() as connection:
            heads = {lag.tenant_id: lag.head for lag in await cross_tenant.lag(connection, [view.name])}
            total = sum(heads.values()) if tenant_id is None else heads.get(tenant_id, 0)
            with output.progress() as bars:

                def progress(tenant_id: UUID, position: int, head: int) -> None:
                    rebuilt[tenant_id] = position
                    bars.move(view.name, sum(rebuilt.values()), total)

                await rebuilding.rebuild(connection, parts.source, view, tenant_id, progress)

    loop.with_process(settings, output, work)
    document = {"view": view.name, "tenants": len(rebuilt), "events": sum(rebuilt.values())}
    lines = table("view", "tenants", "events", right=("tenants", "events"))
    lines.add_row(view.name, f"{len(rebuilt):,}", f"{sum(rebuilt.values()):,}")
    output.result(document, lines)
    return cli.GOOD
