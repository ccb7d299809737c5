"""Invoices a second of `bitnexus import retail`, end to end: reading the file, planning, and every command, durably.

A fresh database and tenant; `--repeats` times, the median is given. The memory is the process's own, database apart.

    scripts/bench import [FILE.csv[.gz]] [--concurrency 64] [--repeats 3]
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import uvloop

from bench import server
from bitnexus import process
from bitnexus.installation import Installation
from bitnexus.retail import plan as retail_plan
from bitnexus.retail import rows, run
from ledger import ids

TARGET_INVOICES_PER_S = 2_000
TARGET_MEMORY_MIB = 400


async def _import(app_url: str, file: Path, concurrency: int, repeats: int) -> dict[str, object]:
    async with process.running(Installation(app_url, server.MASTER), projecting=False) as parts:
        seconds = []
        for _ in range(repeats):
            tenant_id = ids.new_id()
            await parts.ledger.open_stream(tenant_id)
            begun = time.perf_counter()
            plan = retail_plan.plan(rows.read(file))
            carried = await run.carry_out(plan, tenant_id, parts.ledger, concurrency=concurrency)
            seconds.append(time.perf_counter() - begun)
            assert not carried.refused, carried.examples
    invoices, median_s = len(plan.sales), statistics.median(seconds)
    return {
        "rows": plan.rows_total,
        "products": len(plan.products),
        "invoices": invoices,
        "refunds": len(plan.refunds),
        "seconds": round(median_s, 3),
        "invoices_per_s": round(invoices / median_s),
        "events_per_s": round(carried.events / median_s),
        "rows_per_s": round(plan.rows_total / median_s),
    }


@contextmanager
def _sample() -> Iterator[Path]:
    with resources.as_file(resources.files("bitnexus.data") / "online-retail-5000.csv.gz") as path:
        yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="default: the shipped sample of 5,000 rows")
    parser.add_argument("--concurrency", type=int, default=run.CONCURRENCY)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with server.fresh() as app_url, _sample() as sample:
        file = arguments.file or sample
        result = uvloop.run(_import(app_url, file, arguments.concurrency, arguments.repeats))
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    report = {
        "benchmark": "import",
        **server.machine(),
        "file": file.name,
        "concurrency": arguments.concurrency,
        **result,
        "target_invoices_per_s": TARGET_INVOICES_PER_S,
        "peak_memory_mib": round(peak_kib / 1024, 1),
        "target_memory_mib": TARGET_MEMORY_MIB,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
