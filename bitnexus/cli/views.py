"""`projections list`."""

from argparse import Namespace
from collections.abc import Sequence
from uuid import UUID

import msgspec
from rich.table import Table

from bitnexus import cli
from bitnexus.cli import loop
from bitnexus.cli.output import Output, table
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import tenants
from projections import catalogue, cross_tenant
from projections.view import View


class ViewShown(msgspec.Struct, frozen=True):
    """A view over its tenants. `position` is the sum of the tenants' positions, `head` of their heads."""

    view: str
    version: int
    tenants: int
    position: int
    head: int
    lag_events: int
    lag_seconds: float  # age of the oldest event that is not in the view
    rate: float  # events/s
    parked: int  # originators
    stopped: int  # tenants
    older: int  # tenants whose rows are of an older version of the view
    rebuilding: int  # tenants


class TenantShown(msgspec.Struct, frozen=True):
    """A view of one tenant. `failure` without personal data; `other` is the state of the generation beside the one read."""

    view: str
    tenant_id: UUID
    generation: int
    version: int
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    rate: float
    parked: int
    stopped: bool
    failure: str | None
    other: str | None


class ViewUnknown(loop.InputWrong):
    def __init__(self, name: str) -> None:
        names = ", ".join(view.name for view in catalogue.VIEWS)
        super().__init__("There is no such view", repr(name[:80]), f"Give one of {names}")


def find(name: str) -> View:
    """Raises ViewUnknown."""
    view = next((view for view in catalogue.VIEWS if view.name == name), None)
    if view is None:
        raise ViewUnknown(name)
    return view


def show(arguments: Namespace, settings: Settings, output: Output) -> int:
    async def look(parts: Process) -> list[cross_tenant.Lag]:
        slug = arguments.tenant
        chosen = None if slug is None else [await tenants.find(slug, parts.ledger)]
        async with parts.projector.connection() as connection:
            return await cross_tenant.lag(connection, [view.name for view in catalogue.VIEWS], chosen)

    lags = loop.with_process(settings, output, look)
    views = [summed(view, [lag for lag in lags if lag.view == view.name]) for view in catalogue.VIEWS]
    if arguments.by_tenant:
        shown = [of_tenant(lag) for lag in lags]
        output.result({"views": views, "tenants": shown}, _by_tenant(shown))
    else:
        output.result({"views": views}, _by_view(views))
    return cli.GOOD


def summed(view: View, lags: Sequence[cross_tenant.Lag]) -> ViewShown:
    return ViewShown(
        view=view.name,
        version=view.version,
        tenants=len(lags),
        position=sum(lag.position for lag in lags),
        head=sum(lag.head for lag in lags),
        lag_events=sum(lag.behind for lag in lags),
        lag_seconds=round(max((lag.seconds_behind for lag in lags), default=0.0), 3),
        rate=round(sum(lag.rate for lag in lags), 1),
        parked=sum(lag.parked for lag in lags),
        stopped=sum(lag.stopped for lag in lags),
        older=sum(0 < lag.version < view.version for lag in lags),
        rebuilding=sum(lag.other == "filling" for lag in lags),
    )


def of_tenant(lag: cross_tenant.Lag) -> TenantShown:
    return TenantShown(
        view=lag.view,
        tenant_id=lag.tenant_id,
        generation=lag.generation,
        version=lag.version,
        position=lag.position,
        head=lag.head,
        lag_events=lag.behind,
        lag_seconds=round(lag.seconds_behind, 3),
        rate=round(lag.rate, 1),
        parked=lag.parked,
        stopped=lag.stopped,
        failure=lag.failure,
        other=lag.other,
    )


def _by_view(views: Sequence[ViewShown]) -> Table:
    numbers = ("version", "tenants", "position", "head", "behind", "seconds behind", "events/s", "parked", "stopped")
    lines = table("view", *numbers, right=numbers)
    for view in views:
        lines.add_row(
            view.view,
            str(view.version) + (f" ({view.older} older)" if view.older else ""),
            f"{view.tenants:,}",
            f"{view.position:,}",
            f"{view.head:,}",
            f"{view.lag_events:,}",
            f"{view.lag_seconds:.1f}",
            f"{view.rate:,.0f}",
            f"{view.parked:,}",
            f"{view.stopped:,}",
        )
    return lines


def _by_tenant(shown: Sequence[TenantShown]) -> Table:
    numbers = ("generation", "position", "behind", "seconds behind", "events/s", "parked")
    lines = table("view", "tenant", *numbers, "state", right=numbers)
    for each in shown:
        state = [f"stopped: {each.failure}"] if each.stopped else [f"failing: {each.failure}"] if each.failure else []
        state += [] if each.other is None else [f"another generation: {each.other}"]
        lines.add_row(
            each.view,
            str(each.tenant_id),
            str(each.generation),
            f"{each.position:,}",
            f"{each.lag_events:,}",
            f"{each.lag_seconds:.1f}",
            f"{each.rate:,.0f}",
            f"{each.parked:,}",
            "; ".join(state),
        )
    return lines
