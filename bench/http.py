"""Durable commands a second over HTTP: tokens, rights, idempotency keys and projections on, two workers.

wrk (Debian's package) sends sales of one line with 64 connections, each with an idempotency key of its own. Its peers in the
same run are those of `bench/handlers.py`, with as many workers on one port: a bare Litestar handler with an append behind it,
which decides nothing, and one that records the same sale without token, right, idempotency key, rates, metrics and views. All
run side by side and are asked in bursts by turns, as the machine's speed may change twofold within a minute; the ratios are
medians of those of a round.

`least` is a handler that answers a constant to a GET, and says how fast the machine is: where the targets were set it had 34,200
answers a second with two workers, so that 6,000 commands are 0.175 of it.

    scripts/bench http [--rounds 12] [--seconds 2]
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import handlers, server

Sell = Callable[[int], dict[str, float]]
"""For so many seconds; what `_wrk` found."""

CONNECTIONS = 64
TARGET_PER_S, TARGET_P99_MS, TARGET_RATIO = 6_000, 50.0, 0.75
LEAST_PER_S = 34_200
"""With two workers, where the target was set."""
READY_S = 30.0
PASSWORD = "correct horse battery"

SALES = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer TOKEN"
wrk.body = '{"lines": [{"sku": "MUG", "quantity": 2}]}'
local counter, before, after = 0
local threads = 0
function setup(thread) thread:set("id", threads); threads = threads + 1 end
function init()  -- the text but for the key is made once: wrk takes processor time from those it asks
    wrk.headers["Idempotency-Key"] = id .. "-BURST-~"
    before, after = wrk.format():match("^(.*)~(.*)$")
end
function request()
    counter = counter + 1
    return before .. counter .. after
end
"""
BODY = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"lines": [{"sku": "MUG", "quantity": 2}]}'
"""
PEERS = {"least": "", "append": 'wrk.method = "POST"\n', "sale": BODY}
"""What wrk sends to each."""


def _wrk(url: str, script: str, seconds: int, folder: Path) -> dict[str, float]:
    path = folder / "script.lua"
    path.write_text(script)
    turn_ns = server.turn_ns()
    command = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(path), url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert p99 is not None, said
    assert rate is not None, said
    assert "Non-2xx" not in said, said  # what is refused is quick
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]]
    return {
        "commands_per_s": round(float(rate[1])),
        "p99_ms": round(float(p99[1]) * unit, 2),
        "turn_ns_before": turn_ns,
    }


def asked(url: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)["data"]
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(url: str, path: str = "/ready") -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            urllib.request.urlopen(f"{url}{path}")
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def served(folder: Path, workers: int, checkout: Path | None = None) -> Iterator[str]:
    """The address of a running `bitnexus serve` with a tenant `shop`; of the code in `checkout`, if it is not this one."""
    bitnexus = [sys.executable, "-m", "bitnexus"]
    where = ["--data-dir", str(folder / "data")]
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    environment |= server.UNLIMITED | ({} if checkout is None else {"PYTHONPATH": str(checkout.resolve())})
    port = free_port()
    serve = subprocess.Popen(
        [*bitnexus, "serve", *where, "--port", str(port), "--workers", str(workers)],
        env=environment,
        cwd=checkout,
        stdout=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        make = ["tenants", "create", "shop", "--name", "Shop", "--admin-email", "a@shop.example"]
        subprocess.run(
            [*bitnexus, *make, "--admin-password", PASSWORD, *where],
            check=True,
            env=environment,
            cwd=checkout,
            stdout=subprocess.DEVNULL,
        )
        yield url
    finally:
        serve.send_signal(signal.SIGTERM)
        serve.wait(30)


class Shop:
    """Of `served`, with a product, to be sold in bursts."""

    def __init__(self, url: str, folder: Path) -> None:
        login = {"email": "a@shop.example", "password": PASSWORD, "tenant": "shop"}
        token = asked(f"{url}/api/v1/auth/login", login)["access_token"]
        asked(f"{url}/api/v1/products", {"sku": "MUG", "name": "Mug", "price": "9.50"}, token)
        self._url, self._folder, self._script, self._bursts = url, folder, SALES.replace("TOKEN", token), 0

    def sell(self, seconds: int) -> dict[str, float]:
        self._bursts += 1  # no idempotency key is sent twice
        script = self._script.replace("BURST", str(self._bursts))
        return _wrk(f"{self._url}/api/v1/transactions", script, seconds, self._folder)


@contextmanager
def _peer(kind: str, script: str, workers: int, folder: Path) -> Iterator[Sell]:
    with server.fresh() as app_url, socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        tenant_id, url = (
            asyncio.run(handlers.prepare(app_url, server.MASTER)),
            f"http://127.0.0.1:{listener.getsockname()[1]}/",
        )
        command = [sys.executable, "-m", "bench.handlers", kind, str(tenant_id), str(listener.fileno())]
        environment = os.environ | {"BENCH_APP_URL": app_url, "BITNEXUS_MASTER_KEY": server.MASTER_TEXT}
        processes = [subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()]) for _ in range(workers)]
        try:
            yield lambda seconds: _wrk(url, script, seconds, folder)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)


def _case(workers: int, rounds: int, seconds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitnexus-bench-")))
        sells: dict[str, Sell] = {"ours": Shop(stack.enter_context(served(folder, workers)), folder).sell}
        for kind, script in PEERS.items():
            sells[kind] = stack.enter_context(_peer(kind, script, workers, folder))
        for sell in sells.values():
            sell(2)  # warm: all workers are there afterwards
        runs = {kind: [sell(seconds)] for kind, sell in sells.items()}
        for _ in range(rounds - 1):
            for kind, sell in sells.items():
                runs[kind].append(sell(seconds))
    rates = {kind: [each["commands_per_s"] for each in of_kind] for kind, of_kind in runs.items()}
    ratios = {kind: [one / other for one, other in zip(rates["ours"], rates[kind], strict=True)] for kind in PEERS}
    return {
        "commands_per_s": statistics.median(rates["ours"]),
        "p99_ms": statistics.median(each["p99_ms"] for each in runs["ours"]),
        "ratio_to_least": round(statistics.median(ratios["least"]), 3),
        "ratio_to_bare_append": round(statistics.median(ratios["append"]), 2),
        "ratio_to_bare_sale": round(statistics.median(ratios["sale"]), 2),
        "of_rounds": runs["ours"],
        "peer_least": runs["least"],
        "peer_bare_handler_and_append": runs["append"],
        "peer_bare_handler_and_the_same_sale": runs["sale"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="of all four in turn; medians are given (default 12)")
    parser.add_argument("--seconds", type=int, default=2, help="of each burst (default 2)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing. Install Debian's package wrk, then run this again.")
    before = server.machine()
    cases = {workers: _case(workers, arguments.rounds, arguments.seconds) for workers in (2, 1)}
    result = {
        "benchmark": "http",
        **before,
        "rounds": arguments.rounds,
        "two_workers": cases[2],
        "one_worker": cases[1],
        "targets": {
            **{"commands_per_s": TARGET_PER_S, "p99_ms": TARGET_P99_MS, "ratio_to_bare_append": TARGET_RATIO},
            "ratio_to_least": round(TARGET_PER_S / LEAST_PER_S, 3),
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
