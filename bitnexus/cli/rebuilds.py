"""`projections rebuild`, `projections switch` and `projections drop`."""

import asyncio
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import msgspec
from rich.console import RenderableType

from bitnexus import cli, database
from bitnexus.cli import loop, views
from bitnexus.cli.output import Bars, Output, table
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import tenants
from ledger import ids
from projections import comparison, cross_tenant, filling, generations, leases, rebuild, switching
from projections import runner as running
from projections.view import View

LOOK_S = 0.2
NICENESS = 10
"""Whoever sells meanwhile, on the same machine, has the processors first."""


class Rebuilt(msgspec.Struct, frozen=True):
    """`comparison` is None if it stands still because of an event, which `error` names."""

    tenant_id: UUID
    generation: int
    switched: bool
    comparison: comparison.Comparison | None
    error: str | None = None


class _Rebuilding:
    """Of some tenants, in this process, which others take for one that projects."""

    def __init__(
        self, parts: Process, view: View, chosen: Sequence[UUID], bars: Bars, *, compare_only: bool, share: int
    ) -> None:
        self.results: list[Rebuilt] = []
        self._parts = parts
        self._view = view
        self._chosen = chosen
        self._bars = bars
        self._compare_only = compare_only
        self._rest = filling.rest_of(share)
        self._asked: list[UUID] = []
        self._connect = database.projecting_connector(parts.installation.app_url)
        self._leases = leases.Leases(ids.new_id(), [])

    async def run(self, jobs: int) -> None:
        """Asks for the rebuilds and does them; cancelled, it leaves them to be gone on with by the next call."""
        async with await self._connect() as connection:
            await self._leases.beat(connection)
            beating = asyncio.create_task(self._beat())
            try:
                wanted = await self._ask(connection)
                async with self._fed(connection), asyncio.TaskGroup() as group:
                    for _ in range(min(jobs, len(wanted))):
                        group.create_task(self._work(wanted))
            except BaseExceptionGroup as several:
                raise several.exceptions[0] from None
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                await self._leave()

    async def _ask(self, connection: generations.Connection) -> list[rebuild.Job]:
        """Of all that are chosen, before anything is written; if some stand still, it is these that are gone on with."""
        unfinished = [each for each in self._chosen if await rebuild.check(connection, self._view, each)]
        wanted = unfinished or list(self._chosen)
        process_id = self._leases.process_id
        self._asked = list(wanted)
        return [
            await rebuild.request(connection, self._view, each, compare_only=self._compare_only, process_id=process_id)
            for each in wanted
        ]

    async def _beat(self) -> None:
        async with await self._connect() as connection:
            while True:
                await self._leases.beat(connection)
                await asyncio.sleep(leases.BEAT_S)

    @asynccontextmanager
    async def _fed(self, connection: generations.Connection) -> AsyncIterator[None]:
        """While it lasts somebody keeps the view up: where no other process does, this one, and it catches up first."""
        if await cross_tenant.is_fed(connection, self._view.name):
            yield
            return
        parts = self._parts
        runner = running.Runner([self._view], self._connect, parts.source, parts.waker, parts.reached, rebuilds=False)
        await runner.start()
        try:
            while True:
                lags = await cross_tenant.lag(connection, [self._view.name], self._chosen)
                if not any(lag.behind and not lag.stopped and lag.failure is None for lag in lags):
                    break
                await asyncio.sleep(LOOK_S)
            yield
        finally:
            await runner.close()

    async def _work(self, wanted: list[rebuild.Job]) -> None:
        async with await self._connect() as connection:
            while wanted:
                job = wanted.pop(0)
                compared = await filling.work(
                    self._connect, self._parts.source, self._view, job, rest=self._rest, progress=self._progress
                )
                error = None
                if compared is None:
                    status = await rebuild.status(connection, self._view.name, job.tenant_id)
                    error = None if status is None else status.error
                switched = compared is not None and not job.compare_only
                self.results.append(Rebuilt(job.tenant_id, job.generation, switched, compared, error))

    def _progress(self, tenant_id: UUID, position: int, end: int) -> None:
        self._bars.move(f"{self._view.name} {tenant_id}", position, end)

    async def _leave(self) -> None:
        done = {each.tenant_id for each in self.results}
        with suppress(Exception):  # the database is gone: the lease runs out by itself
            async with await self._connect() as connection:
                for tenant_id in self._asked:
                    if tenant_id not in done:
                        await rebuild.pause(connection, self._view.name, tenant_id, self._leases.process_id)
                await self._leases.leave(connection)


async def _chosen(arguments: Namespace, parts: Process) -> list[UUID]:
    if arguments.tenant is not None:
        return [await tenants.find(arguments.tenant, parts.ledger)]
    async with parts.projector.connection() as connection:
        return await cross_tenant.tenants(connection)


def fill(arguments: Namespace, settings: Settings, output: Output) -> int:
    view = views.find(arguments.view)
    os.nice(NICENESS)

    async def work(parts: Process) -> list[Rebuilt]:
        chosen = await _chosen(arguments, parts)
        with output.progress(rates=True) as bars:
            rebuilding = _Rebuilding(
                parts, view, chosen, bars, compare_only=arguments.compare_only, share=arguments.share
            )
            await rebuilding.run(arguments.jobs)
        return rebuilding.results

    results = loop.with_process(settings, output, work)
    events = sum(each.comparison.position for each in results if each.comparison is not None)
    document = {"view": view.name, "tenants": len(results), "events": events, "results": results}
    output.result(document, *_shown(view, results))
    if any(each.comparison is None for each in results):
        return cli.FINDING
    differ = any(each.comparison is not None and not each.comparison.equal for each in results)
    return cli.FINDING if differ and arguments.compare_only else cli.GOOD


def _shown(view: View, results: Sequence[Rebuilt]) -> list[RenderableType]:
    numbers = ("generation", "position", "rows before", "rows after")
    lines = table("view", "tenant", *numbers, "comparison", "read", right=numbers)
    differing: list[RenderableType] = []
    for each in results:
        compared = each.comparison
        if compared is None:
            lines.add_row(view.name, str(each.tenant_id), str(each.generation), "", "", "", each.error or "", "old")
            continue
        lines.add_row(
            view.name,
            str(each.tenant_id),
            str(each.generation),
            f"{compared.position:,}",
            f"{sum(table.rows_before for table in compared.tables):,}",
            f"{sum(table.rows_after for table in compared.tables):,}",
            "equal" if compared.equal else "they differ",
            "new" if each.switched else "old",
        )
        for compared_table in compared.tables:
            differing += [
                f"views.{compared_table.table} of {each.tenant_id}, {msgspec.json.encode(row.key).decode()}: "
                f"before {_columns(row.before)}, after {_columns(row.after)}"
                for row in compared_table.differing
            ]
    return [lines, *differing]


def _columns(found: dict[str, object] | None) -> str:
    return "no row" if found is None else msgspec.json.encode(found).decode()


def switch(arguments: Namespace, settings: Settings, output: Output) -> int:
    view = views.find(arguments.view)

    async def work(parts: Process) -> list[dict[str, object]]:
        switched: list[dict[str, object]] = []
        chosen = await _chosen(arguments, parts)
        async with parts.projector.connection() as connection:
            for tenant_id in chosen:
                try:
                    before, after = await switching.switch(connection, view, tenant_id, back=arguments.back)
                except switching.NothingThere:
                    if arguments.tenant is not None or (tenant_id == chosen[-1] and not switched):
                        raise
                    continue  # of all tenants, those that have a second generation
                switched.append({"tenant_id": tenant_id, "before": before, "now": after})
        return switched

    switched = loop.with_process(settings, output, work)
    lines = table("view", "tenant", "read before", "read now", right=("read before", "read now"))
    for each in switched:
        lines.add_row(view.name, str(each["tenant_id"]), str(each["before"]), str(each["now"]))
    output.result({"view": view.name, "switched": switched}, lines)
    return cli.GOOD


def drop(arguments: Namespace, settings: Settings, output: Output) -> int:
    view = views.find(arguments.view)

    async def work(parts: Process) -> list[dict[str, object]]:
        dropped: list[dict[str, object]] = []
        chosen = await _chosen(arguments, parts)
        async with parts.projector.connection() as connection:
            for tenant_id in chosen:
                try:
                    generation, rows = await switching.drop(connection, view, tenant_id)
                except switching.NothingThere:
                    if arguments.tenant is not None or (tenant_id == chosen[-1] and not dropped):
                        raise
                    continue
                dropped.append({"tenant_id": tenant_id, "generation": generation, "rows": rows})
        return dropped

    dropped = loop.with_process(settings, output, work)
    lines = table("view", "tenant", "generation", "rows", right=("generation", "rows"))
    for each in dropped:
        lines.add_row(view.name, str(each["tenant_id"]), str(each["generation"]), f"{each['rows']:,}")
    output.result({"view": view.name, "dropped": dropped}, lines)
    return cli.GOOD
