"""Reads a second over HTTP, tokens and rights checked: sales by random ids, with and without the cache, and pages of 20, at
random places without it and the newest one with it, as a list is opened.

500,000 events of one tenant are projected first, nine in ten of them sales of three lines. Two workers of `bitnexus serve`, wrk
(Debian's package) with 64 connections, keep-alive; an admin asks, who sees all sales. Ids are 10,000 random ones, all of
them asked for once before the warm cache is measured. The peer in the same run is a bare Litestar handler that answers a
constant of a sale's size from two uvicorn workers: what framework and server cost alone. Beside each rate stands the CPU time
that a request cost, in the workers and in the database: it says more than the rate where the machine is not quiet.

    scripts/bench reads [--events 500000] [--seconds 10]
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import uvloop

from api import cursors
from bench import http, project, server
from bitnexus import database
from domain import catalogue as domain_catalogue
from ledger import appender, lookups
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.store import Ledger
from ledger.waker import Waker

IDS = 10_000
WORKERS = 2
TARGETS_PER_S = {"by_id": 5_000, "by_id_warm_cache": 8_000, "page_of_20": 3_500, "newest_page_of_20": 3_500}
VIEWS_S = 600.0

ASK = """
local paths = {}
local n = 0
function init(arguments)
    wrk.headers["Authorization"] = "Bearer TOKEN"
    for line in io.lines("PATHS") do paths[#paths + 1] = wrk.format("GET", line) end
    math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16))
    n = math.random(#paths)
end
function request()
    n = n % #paths + 1
    return paths[n]
end
"""


class _Cpu:
    """CPU seconds that processes have taken so far: the workers below one parent, and the database's of one database."""

    def __init__(self, parent: int, database_name: str) -> None:
        self._parent, self._database = parent, database_name.encode()

    def read(self) -> tuple[float, float]:
        workers = backends = 0
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                if int(fields[1]) == self._parent:
                    workers += ticks
                elif self._database in (folder / "cmdline").read_bytes():
                    backends += ticks
            except OSError:
                continue  # it has ended
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        return workers / ticks_per_s, backends / ticks_per_s


def _measured(url: str, script: str, seconds: int, folder: Path, cpu: _Cpu) -> dict[str, float]:
    before = cpu.read()
    path = folder / "script.lua"
    path.write_text(script)
    command = ["wrk", "-t2", f"-c{http.CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(path), url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = cpu.read()
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    count = re.search(r"(\d+) requests in", said)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert "Non-2xx" not in said, said  # what is refused is quick
    assert rate is not None, said
    assert count is not None, said
    assert p99 is not None, said
    worker_s, database_s = after[0] - before[0], after[1] - before[1]
    return {
        "per_s": round(float(rate[1])),
        "p99_ms": round(float(p99[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]], 2),
        "worker_cpu_us": round(worker_s / int(count[1]) * 1e6),
        "database_cpu_us": round(database_s / int(count[1]) * 1e6),
    }


async def _fill(app_url: str, tenant_id: UUID, events: int) -> int:
    connect = database.connector(app_url, "app")
    codec, keyring = Codec(domain_catalogue.AGGREGATES), Keyring(server.MASTER)
    appends = appender.Appender(connect, Waker())
    await appends.start()
    async with database.pool(app_url, "app", 2) as pool, lookups.running(connect, pool, codec, keyring) as looks:
        head = await project.fill(Ledger(pool, appends, looks, codec, keyring), tenant_id, events)
    await appends.close()
    return head


@contextmanager
def _serving(urls: server.Urls, folder: Path, cache_mib: int) -> Iterator[tuple[str, int]]:
    """The address, and the supervisor's process id."""
    environment = _environment(urls) | {"BITNEXUS_CACHE_MIB": str(cache_mib)}
    port = http.free_port()
    command = [sys.executable, "-m", "bitnexus", "serve", "--port", str(port), "--workers", str(WORKERS)]
    process = subprocess.Popen([*command, "--data-dir", str(folder)], env=environment, stdout=subprocess.DEVNULL)
    try:
        http.wait_until_ready(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _environment(urls: server.Urls) -> dict[str, str]:
    return {**os.environ, **server.UNLIMITED, "DATABASE_URL": urls.owner, "BITNEXUS_MASTER_KEY": server.MASTER_TEXT}


def _token(url: str) -> tuple[str, UUID]:
    """The admin's, and the tenant."""
    login = {"email": "a@shop.example", "password": http.PASSWORD, "tenant": "shop"}
    session = http.asked(f"{url}/api/v1/auth/login", login)
    return session["access_token"], UUID(session["user"]["tenant_id"])


def _wait_for_views(url: str, token: str, position: int) -> None:
    deadline = time.monotonic() + VIEWS_S
    for path in ("products", "transactions"):
        headers = {"Authorization": f"Bearer {token}", "X-Position": str(position)}
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1/{path}?limit=1", headers=headers)).read()
                break
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline:
                    raise


def _paths(urls: server.Urls, tenant_id: UUID, folder: Path) -> tuple[Path, Path, Path]:
    """Files of random sales' paths, of pages' that begin at them, and of the first page's."""
    with database.connect_sync(urls.app, "projector") as connection:
        rows = connection.execute(
            "SELECT transaction_id FROM views.transactions WHERE tenant_id = %s ORDER BY random() LIMIT %s",
            (tenant_id, IDS),
        ).fetchall()
    ids: list[UUID] = [id for (id,) in rows]
    by_id, pages, newest = folder / "ids", folder / "pages", folder / "newest"
    by_id.write_text("".join(f"/api/v1/transactions/{id}\n" for id in ids))
    pages.write_text("".join(f"/api/v1/transactions?limit=20&cursor={cursors.encode(id)}\n" for id in ids))
    newest.write_text("/api/v1/transactions?limit=20\n")
    return by_id, pages, newest


def _bare(seconds: int, folder: Path) -> dict[str, float]:
    port = http.free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.bare:app", "--workers", str(WORKERS), "--port", str(port)]
    process = subprocess.Popen([*command, "--no-access-log", "--log-level", "warning"])
    try:
        http.wait_until_ready(f"http://127.0.0.1:{port}", path="/")
        return _measured(f"http://127.0.0.1:{port}/", "", seconds, folder, _Cpu(process.pid, "no database"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _all(urls: server.Urls, events: int, seconds: int, folder: Path) -> dict[str, object]:
    name = psycopg.conninfo.conninfo_to_dict(urls.app)["dbname"]
    assert isinstance(name, str)
    make = ["tenants", "create", "shop", "--name", "Shop", "--admin-email", "a@shop.example", "--json"]
    command = [sys.executable, "-m", "bitnexus", *make, "--admin-password", http.PASSWORD, "--data-dir", str(folder)]
    subprocess.run(command, check=True, env=_environment(urls), stdout=subprocess.DEVNULL)
    figures: dict[str, object] = {}
    with _serving(urls, folder, cache_mib=0) as (url, process):
        token, tenant_id = _token(url)
        head = uvloop.run(_fill(urls.app, tenant_id, events))
        _wait_for_views(url, token, head)
        by_id, pages, newest = _paths(urls, tenant_id, folder)
        with psycopg.connect(urls.owner, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE views.transactions")
        cpu, script = _Cpu(process, name), ASK.replace("TOKEN", token)
        figures["events"] = head
        for kind, paths in (("by_id", by_id), ("page_of_20", pages)):
            _measured(url, script.replace("PATHS", str(paths)), 2, folder, cpu)  # warm
            figures[kind] = _measured(url, script.replace("PATHS", str(paths)), seconds, folder, cpu)
    with _serving(urls, folder, cache_mib=64) as (url, process):
        token, tenant_id = _token(url)
        cpu, script = _Cpu(process, name), ASK.replace("TOKEN", token)
        for kind, paths in (("by_id_warm_cache", by_id), ("newest_page_of_20", newest)):
            asking = script.replace("PATHS", str(paths))
            _measured(url, asking, max(seconds, 5), folder, cpu)  # fills the cache of both workers
            figures[kind] = _measured(url, asking, seconds, folder, cpu)
    figures["peer_bare_litestar"] = bare = _bare(seconds, folder)
    for kind in TARGETS_PER_S:
        found = figures[kind]
        assert isinstance(found, dict)
        found["ratio_to_bare"] = round(found["per_s"] / bare["per_s"], 2)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000, help="of the tenant (default 500000)")
    parser.add_argument("--seconds", type=int, default=10, help="of each run (default 10)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing. Install Debian's package wrk, then run this again.")
    machine = server.machine()
    with (
        tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as folder,
        server.running() as owner,
        server.migrated(owner) as urls,
    ):
        figures = _all(urls, arguments.events, arguments.seconds, Path(folder))
    print(json.dumps({"benchmark": "reads", **machine, **figures, "targets_per_s": TARGETS_PER_S}, indent=2))


if __name__ == "__main__":
    main()
