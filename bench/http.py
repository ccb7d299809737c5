"""Durable commands a second over HTTP: tokens, rights, idempotency keys and projections on, two workers.

wrk (Debian's package) sends sales of one line with 64 connections, each with an idempotency key of its own. The peer in the
same run is a bare Litestar handler with an append behind it, no token, no rule, no view: what framework, server and
ledger cost alone, one process against one worker.

    scripts/bench http [--seconds 10]
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar, post

from bench import append, server
from bitnexus import database
from ledger import appender, ids
from ledger.waker import Waker

CONNECTIONS = 64
TARGET_PER_S, TARGET_P99_MS, TARGET_RATIO = 6_000, 50.0, 0.75
READY_S = 30.0
PASSWORD = "correct horse battery"

SALES = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer TOKEN"
wrk.body = '{"lines": [{"sku": "MUG", "quantity": 2}]}'
local counter = 0
local threads = 0
function setup(thread) thread:set("id", threads); threads = threads + 1 end
function request()
    counter = counter + 1
    wrk.headers["Idempotency-Key"] = id .. "-" .. counter
    return wrk.format()
end
"""
BARE = 'wrk.method = "POST"\n'


def _wrk(url: str, script: str, seconds: int, folder: Path) -> dict[str, float]:
    path = folder / "script.lua"
    path.write_text(script)
    command = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(path), url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert p99 is not None, said
    assert rate is not None, said
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]]
    return {
        "commands_per_s": round(float(rate[1])),
        "p99_ms": round(float(p99[1]) * unit, 2),
        "refused": int(refused[1]) if refused else 0,
    }


def _asked(url: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)["data"]
        return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _served(folder: Path, workers: int) -> Iterator[str]:
    """The address of a running `bitnexus serve` with a tenant `shop`."""
    bitnexus = [sys.executable, "-m", "bitnexus"]
    where = ["--data-dir", str(folder / "data")]
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    port = _free_port()
    serve = subprocess.Popen(
        [*bitnexus, "serve", *where, "--port", str(port), "--workers", str(workers)], env=environment
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + READY_S
        while True:
            try:
                urllib.request.urlopen(f"{url}/ready")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        make = ["tenants", "create", "shop", "--name", "Shop", "--admin-email", "a@shop.example"]
        subprocess.run(
            [*bitnexus, *make, "--admin-password", PASSWORD, *where],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        yield url
    finally:
        serve.send_signal(signal.SIGTERM)
        serve.wait(30)


def _sales(folder: Path, seconds: int, workers: int) -> dict[str, float]:
    with _served(folder, workers) as url:
        login = {"email": "a@shop.example", "password": PASSWORD, "tenant": "shop"}
        token = _asked(f"{url}/api/v1/auth/login", login)["access_token"]
        _asked(f"{url}/api/v1/products", {"sku": "MUG", "name": "Mug", "price": "9.50"}, token)
        script = SALES.replace("TOKEN", token)
        _wrk(f"{url}/api/v1/transactions", script.replace('id .. "-"', 'id .. "-w-"'), 2, folder)  # warm
        return _wrk(f"{url}/api/v1/transactions", script, seconds, folder)


async def _bare(app_url: str, port: int, seconds: int, folder: Path) -> dict[str, float]:
    appends = appender.Appender(database.connector(app_url, "app"), Waker())
    await appends.start()
    tenant_id = ids.new_id()
    async with await database.connect(app_url, "app") as connection:
        await connection.execute("SELECT ledger.open_stream(%s)", (tenant_id,))

    @post("/")
    async def handle() -> dict[str, int]:
        return {"position": (await appends.submit(append.command(tenant_id))).position}

    config = uvicorn.Config(Litestar([handle], openapi_config=None), port=port, log_level="warning", access_log=False)
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:  # noqa: ASYNC110  uvicorn sets a flag, no event
        await asyncio.sleep(0.05)
    found = await asyncio.to_thread(_wrk, f"http://127.0.0.1:{port}/", BARE, seconds, folder)
    running.should_exit = True
    await task
    await appends.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each run (default 10)")
    seconds = parser.parse_args().seconds
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing. Install Debian's package wrk, then run this again.")
    before = server.machine()
    with tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as name:
        folder = Path(name)
        two = _sales(folder, seconds, 2)
    with tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as name:
        one = _sales(Path(name), seconds, 1)
    with tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as name, server.fresh() as app_url:
        bare = asyncio.run(_bare(app_url, _free_port(), seconds, Path(name)))
    result = {
        "benchmark": "http",
        **before,
        "two_workers": two,
        "one_worker": one,
        "peer_bare_handler_and_append_one_process": bare,
        "ratio_one_worker_to_bare": round(one["commands_per_s"] / bare["commands_per_s"], 2),
        "targets": {"commands_per_s": TARGET_PER_S, "p99_ms": TARGET_P99_MS, "ratio": TARGET_RATIO},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
