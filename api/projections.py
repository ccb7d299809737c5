"""How far the tenant's views are, and filling one anew."""

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from api import answers, errors
from api.asked import Reader
from api.rights import may
from api.routes import get, post
from api.sent import Found
from projections import catalogue, comparison, cross_tenant, rebuild
from projections.view import View


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """A view of the tenant. `lag_seconds`: the age of the oldest event that is not in it, 0 if there is none. `rate` in events a
    second, over the last ten. Of `parked` products or sales it lacks events; once `stopped` it lacks all that is new, until an
    operator has looked: `failure` says why. `other`: the state of a second generation, null if there is none."""

    view: str
    version: int
    generation: int
    position: int | str
    lag_events: int
    lag_seconds: float
    rate: float
    parked: int
    stopped: bool
    failure: str | None
    other: str | None


class ProjectionsMeta(msgspec.Struct, frozen=True, kw_only=True):
    head: int | str


class Projections(msgspec.Struct, frozen=True, kw_only=True):
    data: list[Projection]
    meta: ProjectionsMeta


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """The last rebuild that was asked for. `status`: waiting (for a process), running, paused, failed (`error` says why), done.
    `position` is where it is, of `head`; `seconds_left` at the rate of now, null if that is not known. `switched`: what is
    read since then is what it made."""

    view: str
    generation: int
    version: int
    status: str
    position: int
    head: int
    rate: float
    seconds_left: float | None
    compare_only: bool
    switched: bool
    error: str | None
    requested_at: datetime
    finished_at: datetime | None
    comparison: comparison.Comparison | None


class ProjectionController(Controller):
    path = "/admin/projections"
    tags = ("admin",)

    @get(operation_id="listProjections", operation_class=answers.Query, guards=[may("projections:read")])
    async def index(self, reader: NamedDependency[Reader]) -> Response[Projections]:
        """Every view, with how far it is behind."""
        head = await reader.head()
        names = [view.name for view in catalogue.VIEWS]
        async with reader.parts.pool.connection() as connection:
            lags = await cross_tenant.lag_of_tenant(connection, reader.tenant_id, names)
        data = [of_lag(lag, reader.shown(lag.position)) for lag in lags]
        shown = reader.shown(head)
        return Found(Projections(data=data, meta=ProjectionsMeta(head=shown)), shown)

    @get(
        "/{view:str}/rebuild",
        operation_id="showRebuild",
        operation_class=answers.Query,
        guards=[may("projections:read")],
    )
    async def show(self, view: FromPath[str], reader: NamedDependency[Reader]) -> Response[answers.Data[Rebuild]]:
        """How far the last rebuild is. 404 if there was none, or if what it made was dropped."""
        found = await _status(_view(view), reader)
        return answers.one(found, reader.shown(await reader.head()))

    @post(
        "/{view:str}/rebuild",
        operation_id="rebuildProjection",
        operation_class=answers.Once,
        status_code=202,
        guards=[may("projections:write")],
    )
    async def rebuild(
        self,
        view: FromPath[str],
        reader: NamedDependency[Reader],
        compare_only: Annotated[bool, QueryParameter()] = False,
    ) -> Response[answers.Data[Rebuild]]:
        """Fill the view anew beside the rows that are read; then compare, and unless only that is wanted, read the new ones.

        Whoever projects does it; GET shows how far it is. 409 while one is under way, or while the rows that the last one
        replaced are still kept.
        """
        chosen = _view(view)
        async with reader.parts.projector.connection() as connection:
            await rebuild.request(
                connection, chosen, reader.tenant_id, compare_only=compare_only, requested_by=reader.who.account_id
            )
        found = await _status(chosen, reader)
        headers = answers.headers(reader.shown(await reader.head()))
        location = f"/api/v1/admin/projections/{chosen.name}/rebuild"
        return Response(answers.Data(found), status_code=202, headers={**headers, "Location": location})


def _view(name: str) -> View:
    for view in catalogue.VIEWS:
        if view.name == name:
            return view
    names = ", ".join(view.name for view in catalogue.VIEWS)
    raise errors.RequestRefused(errors.NOT_FOUND, f"There is no such view: {name[:80]!r}. Give one of {names}.")


def of_lag(lag: cross_tenant.Lag, position: int | str) -> Projection:
    """`position` is the view's, as the reader may see it."""
    return Projection(
        view=lag.view,
        version=lag.version,
        generation=lag.generation,
        position=position,
        lag_events=lag.behind,
        lag_seconds=round(lag.seconds_behind, 3),
        rate=round(lag.rate, 1),
        parked=lag.parked,
        stopped=lag.stopped,
        failure=lag.failure,
        other=lag.other,
    )


async def _status(view: View, reader: Reader) -> Rebuild:
    async with reader.parts.projector.connection() as connection:
        found = await rebuild.status(connection, view.name, reader.tenant_id)
    if found is None:
        text = f"No rebuild is known of the view: {view.name}. Ask for one by POST."
        raise errors.RequestRefused(errors.NOT_FOUND, text)
    left = found.head - found.position
    return Rebuild(
        view=found.view,
        generation=found.generation,
        version=found.version,
        status=_word(found),
        position=found.position,
        head=found.head,
        rate=round(found.rate, 1),
        seconds_left=round(left / found.rate, 1) if found.rate > 1 else None,
        compare_only=found.compare_only,
        switched=found.finished_at is not None and not found.compare_only,
        error=found.error,
        requested_at=found.requested_at,
        finished_at=found.finished_at,
        comparison=found.comparison,
    )


def _word(found: rebuild.Status) -> str:
    if found.finished_at is not None:
        return "done"
    if found.error is not None:
        return "failed"
    if found.paused:
        return "paused"
    return "running" if found.working else "waiting"
