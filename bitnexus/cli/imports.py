"""`import retail`."""

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from bitnexus import cli
from bitnexus.cli import loop
from bitnexus.cli.output import Bars, Output, table
from bitnexus.process import Process
from bitnexus.retail import plan as retail_plan
from bitnexus.retail import report, rows, run
from bitnexus.settings import Settings
from commands import tenants
from domain import external

ROWS_PER_MOVE = 5_000


def retail(arguments: Namespace, settings: Settings, output: Output) -> int:
    """A refused command is a finding. The file is read to its end before anything is recorded."""
    external.checked(arguments.source, "1")  # the source alone is what is asked about
    begun = time.perf_counter()
    with output.progress() as bars:
        plan = retail_plan.plan(_counted(rows.read(arguments.file), bars))
    if arguments.rejects is not None:
        _write_rejects(arguments.rejects, plan)

    async def carry(parts: Process) -> run.Carried:
        tenant_id = await tenants.find(arguments.tenant, parts.ledger)
        with output.progress() as bars:
            return await run.carry_out(
                plan,
                tenant_id,
                parts.ledger,
                source=arguments.source,
                concurrency=arguments.concurrency,
                progress=bars.move,
            )

    carried = loop.with_process(settings, output, carry)
    made = report.report(
        arguments.file.name, arguments.tenant, arguments.source, plan, carried, time.perf_counter() - begun
    )
    output.result(made, *shown(made))
    return cli.FINDING if made.refused else cli.GOOD


def _counted(read: Iterable[rows.Row], bars: Bars) -> Iterator[rows.Row]:
    for number, row in enumerate(read, 1):
        if number % ROWS_PER_MOVE == 0:
            bars.move("rows", number, None)
        yield row


def _write_rejects(path: Path, plan: retail_plan.Plan) -> None:
    try:
        rows.write_rejects(path, plan.rejects)
    except OSError as error:
        raise loop.InputWrong(
            f"The rejected rows cannot be written, {error.strerror or error}",
            str(path),
            "Give --rejects a file in a directory of your own; nothing was imported",
        ) from None


def shown(made: report.Report) -> list[RenderableType]:
    """The report as a person reads it."""
    lines = table("", "in the file", "added now", "there before", right=("in the file", "added now", "there before"))
    lines.add_row("rows", f"{made.rows:,}")
    lines.add_row("  accepted", f"{made.accepted:,}")
    for reason, count in made.rejected.items():
        lines.add_row(f"  rejected: {reason}", f"{count:,}")
    lines.add_row("products", f"{made.products:,}", f"{made.added.products:,}", f"{made.found.products:,}")
    lines.add_row(
        "transactions", f"{made.transactions:,}", f"{made.added.transactions:,}", f"{made.found.transactions:,}"
    )
    lines.add_row("refunds", f"{made.refunds:,}", f"{made.added.refunds:,}", f"{made.found.refunds:,}")
    lines.add_row("  matched", f"{made.refunds_matched:,}")
    lines.add_row("  unmatched", f"{made.refunds_unmatched:,}")
    for name, amount in (("gross", made.gross), ("refunded", made.refunded), ("net", made.net)):
        lines.add_row(f"{name} {made.currency}", amount)
    lines.add_row("events", "", f"{made.events:,}")
    lines.add_row("seconds", "", f"{made.seconds:.2f}")
    lines.add_row("events/s", "", f"{made.events_per_s:,}")
    found: list[RenderableType] = [lines]
    if made.refused:
        counts = ", ".join(f"{count:,} {rule}" for rule, count in made.refused.items())
        found.append(Text(f"Refused by the ledger's rules, and not recorded: {counts}", style="bold red"))
        found += [Text(f"  {refusal.what}: {refusal.why}") for refusal in made.refusals]
    return found
