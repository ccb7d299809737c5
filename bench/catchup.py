"""Events per second at which one projector catches up with half a million events of imported sales, and its memory.

The shipped sample is imported through the handlers, again and again under another source, until the stream has as many
events: its products once, its sales and refunds each time. Then each view alone is made from position 1 by a process of its
own, of which the memory at its highest and the CPU time are given, the database apart; the median of the repeats.

    scripts/bench catchup [--events 500000] [--view transactions] [--repeats 3]
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple
from uuid import UUID

import psycopg
import uvloop

from bench import project, server
from bitnexus import collecting, process
from bitnexus.installation import Installation
from bitnexus.retail import plan as retail_plan
from bitnexus.retail import rows, run
from domain import catalogue as domain_catalogue
from ledger import ids
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.keys import MasterKey
from projections import catalogue, stream

TARGET_EVENTS_PER_S = 30_000
TARGET_MEMORY_MIB = 300
IMPORT_CONCURRENCY = 256


class Caught(NamedTuple):
    """By one process: `seconds` from an empty view to the head."""

    seconds: float
    cpu_seconds: float
    memory_peak_mib: float


async def _fill(app_url: str, tenant_id: UUID, events: int) -> int:
    """The head's position."""
    sample = resources.files("bitnexus.data") / "online-retail-5000.csv.gz"
    async with process.running(Installation(app_url, server.MASTER), projecting=False) as parts:
        await parts.ledger.open_stream(tenant_id)
        with resources.as_file(sample) as file:
            plan = retail_plan.plan(rows.read(file))
        head, times = 0, 0
        while head < events:
            times += 1
            source = f"retail-{times}"
            await run.carry_out(plan, tenant_id, parts.ledger, source=source, concurrency=IMPORT_CONCURRENCY)
            head = (await parts.ledger.head(tenant_id)).position
            print(f"{head:,} of {events:,} events", file=sys.stderr)
    return head


def _project(app_url: str, master: bytes, tenant_id: UUID, view_name: str, head: int) -> Caught:
    """In a process of its own."""
    (view,) = [view for view in catalogue.VIEWS if view.name == view_name]
    source = stream.Source(Codec(domain_catalogue.AGGREGATES), Keyring(MasterKey(master)))
    collecting.seldom()  # as `bitnexus project` does
    begun = time.process_time()
    seconds = uvloop.run(project.catch_up(app_url, source, tenant_id, [view], head))
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    return Caught(seconds, time.process_time() - begun, peak_kib / 1024)


def _empty(owner_url: str, view_name: str) -> None:
    """Every run begins with tables that have no dead rows in them."""
    (view,) = [view for view in catalogue.VIEWS if view.name == view_name]
    with psycopg.connect(owner_url, autocommit=True) as owner:
        for table in view.tables:
            owner.execute(f"TRUNCATE views.{table.name}")
        owner.execute("CHECKPOINT")  # not in the middle of what is measured


def _measure(urls: server.Urls, tenant_id: UUID, views: Sequence[str], head: int, repeats: int) -> dict[str, object]:
    spawning = multiprocessing.get_context("spawn")  # a forked process would begin with this one's memory
    figures: dict[str, object] = {}
    for name in views:
        caught = []
        for _ in range(repeats):
            _empty(urls.owner, name)
            with spawning.Pool(1) as pool:
                caught.append(pool.apply(_project, (urls.app, server.MASTER_BYTES, tenant_id, name, head)))
        seconds = statistics.median(each.seconds for each in caught)
        figures[name] = {
            "events_per_s": round(head / seconds),
            "cpu_us_per_event": round(statistics.median(each.cpu_seconds for each in caught) / head * 1e6, 1),
            "memory_peak_mib": round(max(each.memory_peak_mib for each in caught)),
        }
    return figures


def main() -> None:
    names = [view.name for view in catalogue.VIEWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000, help="in the stream, at least (default 500000)")
    parser.add_argument("--view", choices=names, action="append", help="only this one (default: each)")
    parser.add_argument("--repeats", type=int, default=3, help="of each view (default 3)")
    arguments = parser.parse_args()
    machine, tenant_id = server.machine(), ids.new_id()
    with server.running() as host, server.migrated(host) as urls:
        head = asyncio.run(_fill(urls.app, tenant_id, arguments.events))
        figures = _measure(urls, tenant_id, arguments.view or names, head, arguments.repeats)
    report = {
        "benchmark": "catchup",
        **machine,
        "events": head,
        "views": figures,
        "targets": {"events_per_s": TARGET_EVENTS_PER_S, "memory_peak_mib": TARGET_MEMORY_MIB},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
