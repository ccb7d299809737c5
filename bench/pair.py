"""This checkout and another, side by side: durable commands a second over HTTP, in bursts by turns.

The machine's speed may change twofold within a minute. What two servers, both running, sell in bursts of a second one after
the other has that in common, so the ratio of many such pairs shows a tenth of difference where two runs in a row show nothing. Both
run on this checkout's Python and packages, each on an embedded database of its own; the load is that of `bench/http.py`.

    scripts/bench pair ../other-checkout [--rounds 20] [--seconds 1] [--workers 2]
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import http, server


def _pairs(other: Path, rounds: int, seconds: int, workers: int) -> tuple[list[float], list[float]]:
    with ExitStack() as stack:
        shops: list[http.Shop] = []
        for checkout in (Path.cwd(), other):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitnexus-bench-")))
            shops.append(http.Shop(stack.enter_context(http.served(folder, workers, checkout)), folder))
        sold: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds + 1):
            for which in (0, 1) if turn % 2 else (1, 0):
                found = shops[which].sell(seconds)
                if turn:  # the first warms
                    sold[which].append(found["commands_per_s"])
        return sold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=20, help="of a burst of each (default 20)")
    parser.add_argument("--seconds", type=int, default=1, help="of a burst (default 1)")
    parser.add_argument("--workers", type=int, default=2, help="of each server (default 2)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing. Install Debian's package wrk, then run this again.")
    before = server.machine()
    ours, others = _pairs(arguments.other, arguments.rounds, arguments.seconds, arguments.workers)
    ratios = [one / other for one, other in zip(ours, others, strict=True)]
    result = {
        "benchmark": "pair",
        **before,
        "workers": arguments.workers,
        "commands_per_s": ours,
        "peer_commands_per_s": others,
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(each, 3) for each in statistics.quantiles(ratios, n=4)],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
