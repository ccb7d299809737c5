"""`projections parked`, `projections retry` and `projections skip`."""

from argparse import Namespace
from uuid import UUID

from bitnexus import cli, database
from bitnexus.cli import views
from bitnexus.cli.loop import with_process
from bitnexus.cli.output import Output, table
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import repairs as commands
from commands import tenants
from domain import repairs
from ledger import ids
from ledger.caller import Caller
from projections import catalogue, columns, cross_tenant, repairing


def parked(arguments: Namespace, settings: Settings, output: Output) -> int:
    names = [view.name for view in catalogue.VIEWS] if arguments.view is None else [views.find(arguments.view).name]

    async def look(parts: Process) -> tuple[list[cross_tenant.Parked], list[cross_tenant.Lag]]:
        chosen = None if arguments.tenant is None else [await tenants.find(arguments.tenant, parts.ledger)]
        async with parts.projector.connection() as connection:
            found = await cross_tenant.parked(connection, names, chosen)
            return found, [lag for lag in await cross_tenant.lag(connection, names, chosen) if lag.stopped]

    found, stopped = with_process(settings, output, look)
    lines = table("view", "tenant", "originator", "position", "events", "since", "why", right=("position", "events"))
    for lag in stopped:
        lines.add_row(
            lag.view, str(lag.tenant_id), "the view has stopped", f"{lag.position + 1:,}", "", "", lag.failure or ""
        )
    for each in found:
        lines.add_row(
            each.view,
            str(each.tenant_id),
            str(each.originator_id),
            f"{each.position:,}",
            f"{each.events:,}",
            f"{each.parked_at:%Y-%m-%d %H:%M:%SZ}",
            f"{each.topic}: {each.error} ({each.attempts} attempts)",
        )
    document = {"parked": found, "stopped": [views.of_tenant(lag) for lag in stopped]}
    output.result(document, lines)
    return cli.GOOD


def retry(arguments: Namespace, settings: Settings, output: Output) -> int:
    return _repair(arguments, settings, output, repairs.Decision.RETRY)


def skip(arguments: Namespace, settings: Settings, output: Output) -> int:
    return _repair(arguments, settings, output, repairs.Decision.SKIP)


def _repair(arguments: Namespace, settings: Settings, output: Output, decision: repairs.Decision) -> int:
    view, parked_id = views.find(arguments.view), arguments.originator

    async def work(parts: Process) -> repairing.Repaired:
        tenant_id: UUID = await tenants.find(arguments.tenant, parts.ledger)
        skips = decision == repairs.Decision.SKIP

        async def noted(parked_from: int | None) -> None:
            command = commands.Repair(
                view=view.name,
                parked_id=parked_id,
                parked_from=parked_from,
                decision=decision,
                reason=arguments.reason,
                account_id=arguments.account,
            )
            caller = Caller(tenant_id=tenant_id, actor_id=arguments.account, role="system", command_id=ids.new_id())
            await commands.repair(command, caller, parts.ledger)

        async with await database.connect(parts.installation.app_url, "projector") as connection:
            columns.register(connection.adapters)
            if parked_id is None:
                return await repairing.stopped(connection, parts.source, view, tenant_id, skip=skips, noted=noted)
            return await repairing.parked(connection, parts.source, view, tenant_id, parked_id, skip=skips, noted=noted)

    repaired = with_process(settings, output, work)
    numbers = ("applied", "skipped", "left")
    lines = table("view", *numbers, "why", right=numbers)
    lines.add_row(
        view.name, f"{repaired.applied:,}", f"{repaired.skipped:,}", f"{repaired.left:,}", repaired.error or ""
    )
    output.result(repaired, lines)
    return cli.GOOD if repaired.error is None else cli.FINDING
