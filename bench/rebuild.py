"""What a rebuild of one view costs whoever sells meanwhile: the commands' p99 with it, to that without it.

Sales are sent at a fixed rate through the command's handler, in a process that keeps the views up as `bitnexus serve` does;
a command's time counts from the moment at which it was due, so that what a slow one holds up is counted too. In turns of
some seconds the view is rebuilt, again and again, or not: by a process of its own as `bitnexus projections rebuild` is, or
with `--by process` by the one that takes the commands, as for `POST /api/v1/admin/projections/{view}/rebuild`. A ratio is
formed in each pair of turns, because the machine's speed swings; the median counts.

    scripts/bench rebuild [--view transactions] [--events 100000] [--rate 1000] [--seconds 10] [--pairs 5]
                          [--by command|process] [--share PERCENT]
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import uvloop

from bench import project, server
from bitnexus import collecting, database, process
from bitnexus.cli import parser as cli_parser
from bitnexus.cli import rebuilds
from bitnexus.installation import Installation
from commands import products, transactions
from domain import catalogue as domain_catalogue
from ledger import ids
from ledger.caller import Caller
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.keys import MasterKey
from projections import catalogue, filling, generations, leases, rebuild, stream, switching
from projections.view import View

TARGET_P99_RATIO = 1.5
UNDER_WAY_MAX = 5_000
"""Commands at one time: then the machine does not keep the rate at all."""
PRODUCTS = 100
"""That are sold while it is measured."""
WARM_UP_S = 2.0
CATCH_UP_S_MAX = 120.0
LOOK_S = 0.1


class Turn(NamedTuple):
    """Milliseconds."""

    p50_ms: float
    p99_ms: float


def _caller(tenant_id: UUID) -> Caller:
    return Caller(tenant_id=tenant_id, actor_id=None, role="admin", command_id=ids.new_id())


async def _sell(parts: process.Process, tenant_id: UUID, skus: list[str], rate: int, seconds: float) -> Turn:
    chance, now = random.Random(1), time.perf_counter  # the loop's own clock has milliseconds
    times_s: list[float] = []
    begun = now()

    async def one(due: float) -> None:
        line = transactions.LineOrdered(sku=chance.choice(skus), quantity=2)
        command = transactions.Record(lines=[line], sets_prices=False)
        await transactions.record(command, _caller(tenant_id), parts.ledger)
        times_s.append(now() - due)

    async with asyncio.TaskGroup() as group:
        for n in range(int(rate * seconds)):
            due = begun + n / rate
            if due > now():
                await asyncio.sleep(due - now())
            assert n - len(times_s) < UNDER_WAY_MAX, f"{rate}/s is more than this machine takes. Give a lower --rate."
            group.create_task(one(due))
    times_s.sort()
    return Turn(times_s[len(times_s) // 2] * 1e3, times_s[int(len(times_s) * 0.99)] * 1e3)


def _view(name: str) -> View:
    return next(view for view in catalogue.VIEWS if view.name == name)


async def _as_command(app_url: str, master: bytes, tenant_id: UUID, name: str, share: int, begun: Any) -> None:
    """Until the process is ended."""
    view, source = _view(name), stream.Source(Codec(domain_catalogue.AGGREGATES), Keyring(MasterKey(master)))
    connect, alive = database.projecting_connector(app_url), leases.Leases(ids.new_id(), [])

    async def beat() -> None:
        async with await connect() as connection:
            while True:
                await alive.beat(connection)
                await asyncio.sleep(leases.BEAT_S)

    async with await connect() as connection, asyncio.TaskGroup() as group:
        await alive.beat(connection)
        group.create_task(beat())
        while True:
            job = await rebuild.request(connection, view, tenant_id, process_id=alive.process_id)
            begun.set()
            await filling.work(connect, source, view, job, rest=filling.rest_of(share))
            await switching.drop(connection, view, tenant_id)


def _run_as_command(*arguments: Any) -> None:
    os.nice(rebuilds.NICENESS)
    collecting.seldom()
    uvloop.run(_as_command(*arguments))


@asynccontextmanager
async def _by_command(parts: process.Process, tenant_id: UUID, view: View, share: int) -> AsyncIterator[None]:
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    arguments = (parts.installation.app_url, server.MASTER_BYTES, tenant_id, view.name, share, begun)
    other = context.Process(target=_run_as_command, args=arguments, daemon=True)
    other.start()
    try:
        assert await asyncio.to_thread(begun.wait, CATCH_UP_S_MAX)
        yield
        assert other.is_alive()
    finally:
        other.terminate()
        await asyncio.to_thread(other.join)


@asynccontextmanager
async def _by_process(parts: process.Process, tenant_id: UUID, view: View, share: int) -> AsyncIterator[None]:
    """Its runner does what is asked for, at a share of its own."""

    async def done(connection: generations.Connection) -> bool:
        found = await rebuild.status(connection, view.name, tenant_id)
        return found is None or found.finished_at is not None

    async def ask() -> None:
        async with parts.projector.connection() as connection:
            while True:
                await rebuild.request(connection, view, tenant_id)
                while not await done(connection):  # noqa: ASYNC110  another task's doing, in a table
                    await asyncio.sleep(LOOK_S)
                await switching.drop(connection, view, tenant_id)

    asking = asyncio.create_task(ask())
    try:
        yield
        assert not asking.done()
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _end(parts: process.Process, tenant_id: UUID, view: View) -> None:
    """No second generation, and the views are where the stream is."""
    async with parts.projector.connection() as connection:
        with suppress(switching.NothingThere):
            await switching.drop(connection, view, tenant_id)
    names = [each.name for each in catalogue.VIEWS]
    head = (await parts.ledger.head(tenant_id)).position
    await parts.reached.wait(tenant_id, names, head, CATCH_UP_S_MAX)


async def _measure(app_url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    tenant_id, view = ids.new_id(), _view(arguments.view)
    rebuilding = {"command": _by_command, "process": _by_process}[arguments.by]
    without, meanwhile = list[Turn](), list[Turn]()
    async with process.running(Installation(app_url, server.MASTER), projecting=True) as parts:
        await project.fill(parts.ledger, tenant_id, arguments.events)
        skus = [f"SKU-{n}" for n in range(PRODUCTS)]
        for sku in skus:
            listed = products.ListProduct(sku=sku, name="Mug", price=Decimal("2.55"), currency="GBP")
            await products.list_product(listed, _caller(tenant_id), parts.ledger)
        await _end(parts, tenant_id, view)

        async def sell(seconds: float) -> Turn:
            return await _sell(parts, tenant_id, skus, arguments.rate, seconds)

        await sell(WARM_UP_S)
        for pair in range(arguments.pairs):
            for with_it in (pair % 2 == 0, pair % 2 == 1):
                if with_it:
                    async with rebuilding(parts, tenant_id, view, arguments.share):
                        meanwhile.append(await sell(arguments.seconds))
                else:
                    without.append(await sell(arguments.seconds))
                await _end(parts, tenant_id, view)
            print(f"pair {pair + 1} of {arguments.pairs}: {without[-1]}, with it {meanwhile[-1]}", file=sys.stderr)
    ratios = [one.p99_ms / other.p99_ms for one, other in zip(meanwhile, without, strict=True)]
    return {
        "without": _medians(without),
        "with_rebuild": _medians(meanwhile),
        "p99_ratio": {
            "median": round(statistics.median(ratios), 2),
            "per_pair": [round(ratio, 2) for ratio in ratios],
            "target_max": TARGET_P99_RATIO,
        },
    }


def _medians(turns: list[Turn]) -> dict[str, float]:
    return {name: round(statistics.median(getattr(turn, name) for turn in turns), 2) for name in Turn._fields}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--view", choices=[view.name for view in catalogue.VIEWS], default="transactions")
    parser.add_argument("--events", type=int, default=100_000, help="that there are to begin with (default 100000)")
    parser.add_argument("--rate", type=int, default=1_000, help="commands a second (default 1000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn (default 10)")
    parser.add_argument("--pairs", type=int, default=5, help="of turns with it and without it (default 5)")
    parser.add_argument(
        "--by", choices=["command", "process"], default="command", help="who rebuilds (default command)"
    )
    parser.add_argument("--share", type=int, default=cli_parser.SHARE, help="percent, as of the command")
    arguments = parser.parse_args()
    machine = server.machine()
    with server.fresh() as app_url:
        figures = uvloop.run(_measure(app_url, arguments))
    print(json.dumps({"benchmark": "rebuild", **machine, **vars(arguments), **figures}, indent=2))


if __name__ == "__main__":
    main()
