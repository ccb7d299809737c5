"""Real time: 1,000 Phoenix clients on one tenant's topic, against a bare ASGI broadcaster under the same client.

Latency from a command to its last receipt at 50 commands/s; saturation of one worker with a few commands under way at any time;
memory of an idle joined socket; connecting and joining; resuming. The client is this process: its CPU is printed beside. Latencies
are measured in rounds, ours and the broadcaster's in turn, as the machine's speed changes; `latency` has the medians.

    scripts/bench realtime [--clients 1000] [--seconds 20] [--rounds 3] [--idle 10000] [--behind 1000]
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import uvicorn

from bench import readable, server
from bench.crowd import PATIENCE_S, Crowd, gathered
from bench.http import PASSWORD, READY_S, free_port
from ledger import ids

COMMANDS_PER_S = 50
UNDER_WAY = 8
"""Messages that not everybody has yet, while saturation is measured."""
TARGETS = {
    "p50_ms": 12,
    "p99_ms": 30,
    "saturation_ratio": 0.7,
    "memory_ratio": 1.5,
    "connect_and_join_s": 2,
    "resume_s": 15,
}


class Site(NamedTuple):
    """Something that serves sockets."""

    url: str
    pid: int


# The bare broadcaster

_everybody: set[Any] = set()


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Sends what anybody says to everybody. No tokens, no topics, no bounds."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    _everybody.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            for each in tuple(_everybody):
                with contextlib.suppress(Exception):  # it is gone
                    await each({"type": "websocket.send", "text": message["text"]})
    finally:
        _everybody.discard(send)


def _serve_bare(port: int) -> None:
    options: dict[str, Any] = {"ws": "websockets-sansio", "ws_per_message_deflate": False, "ws_ping_interval": None}
    uvicorn.run(
        "bench.realtime:bare", port=port, loop="uvloop", backlog=2_048, lifespan="off", log_level="error", **options
    )


@contextlib.contextmanager
def _bare_site() -> Iterator[Site]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.realtime", "--bare", str(port)])
    try:
        yield Site(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _our_site(folder: Path) -> Iterator[Site]:
    """`bitnexus serve` with one worker and a tenant `shop`."""
    bitnexus, where = [sys.executable, "-m", "bitnexus"], ["--data-dir", str(folder / "data")]
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    environment |= server.UNLIMITED
    port = free_port()
    process = subprocess.Popen(
        [*bitnexus, "serve", *where, "--port", str(port)], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        _await_ready(f"http://127.0.0.1:{port}/ready")
        make = ["tenants", "create", "shop", "--name", "Shop", "--admin-email", "a@shop.example"]
        subprocess.run(
            [*bitnexus, *make, "--admin-password", PASSWORD, *where],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        yield Site(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _await_ready(url: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


class Shop:
    """What commands come from."""

    def __init__(self, commands: readable.Connections, token: str, tenant_id: str) -> None:
        self._commands = commands
        self.path = f"/socket/websocket?vsn=2.0.0&token={token}"
        self.topic = f"tenant:{tenant_id}"

    async def lists(self, mark: str) -> None:
        body = json.dumps({"sku": mark, "name": "Mug " + "x" * 60, "price": "9.50"}).encode()
        status, _, answer = await self._commands.ask("POST /api/v1/products HTTP/1.1\r\n", body)
        assert status == 201, answer


@contextlib.asynccontextmanager
async def _shop(site: Site) -> AsyncIterator[Shop]:
    body = {"email": "a@shop.example", "password": PASSWORD, "tenant": "shop"}
    async with httpx.AsyncClient(base_url=site.url, timeout=PATIENCE_S) as http:
        data = (await http.post("/api/v1/auth/login", json=body)).json()["data"]
    token = data["access_token"]
    with contextlib.closing(readable.Connections(site.url, token)) as commands:
        yield Shop(commands, token, data["user"]["tenant_id"])


# What is measured


async def _latencies(crowd: Crowd, lists: Callable[[str], Any], seconds: float) -> list[float]:
    """Of each command, in ms, from before it is sent to the last receipt."""

    async def one(mark: str) -> float:
        last = crowd.expect(mark.encode())
        begun = time.perf_counter()
        await lists(mark)
        return (await last - begun) * 1e3

    tasks, begin = [], time.perf_counter()
    for n in range(int(COMMANDS_PER_S * seconds)):
        await asyncio.sleep(max(0.0, begin + n / COMMANDS_PER_S - time.perf_counter()))
        tasks.append(asyncio.create_task(one(ids.new_id().hex)))
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*tasks)


async def _saturation(crowd: Crowd, lists: Callable[[str], Any], seconds: float, pid: int) -> dict[str, float]:
    """Frames a second that came, with UNDER_WAY messages at any time on their way."""
    end = time.perf_counter() + seconds

    async def go_on() -> None:
        while time.perf_counter() < end:
            mark = ids.new_id().hex
            last = crowd.expect(mark.encode())
            await lists(mark)
            await last

    frames, begun, cpu, theirs = crowd.frames, time.perf_counter(), time.process_time(), _cpu_s(pid)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(go_on() for _ in range(UNDER_WAY)))
    took = time.perf_counter() - begun
    return {
        "frames_per_s": round((crowd.frames - frames) / took),
        "client_cpu": round((time.process_time() - cpu) / took, 2),
        "server_cpu": round((_cpu_s(pid) - theirs) / took, 2),
        "server_cpu_us_per_frame": round((_cpu_s(pid) - theirs) / max(1, crowd.frames - frames) * 1e6, 2),
    }


def _cpu_s(pid: int) -> float:
    """That the process has had, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _idle_kib(site: Site, path: str, topic: str | None, count: int) -> float:
    """Of one socket, joined if there is a topic."""
    async with gathered(site.url, path) as crowd:
        await crowd.open(10)
        before = _rss_bytes(site.pid)
        await crowd.open(count)
        if topic is not None:
            await crowd.join(topic, {})
        await asyncio.sleep(1.0)
        grown: float = (_rss_bytes(site.pid) - before) / count / 1024
        return round(grown, 1)


async def _ours(site: Site, clients: int, seconds: float, idle: int, behind: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with _shop(site) as shop:
        await shop.lists("first")
        async with gathered(site.url, shop.path) as crowd:
            begun = time.perf_counter()
            await crowd.open(clients)
            await crowd.join(shop.topic, {})
            found["connect_and_join_s"] = round(time.perf_counter() - begun, 2)
            cpu, theirs = time.process_time(), _cpu_s(site.pid)
            found |= _percentiles(await _latencies(crowd, shop.lists, seconds))
            found["client_cpu"] = round((time.process_time() - cpu) / seconds, 2)
            found["server_cpu"] = round((_cpu_s(site.pid) - theirs) / seconds, 2)
            found["frames"] = crowd.frames
            assert not any(each.lost for each in crowd.sockets)
            found["saturation"] = await _saturation(crowd, shop.lists, seconds / 2, site.pid)
        found["resume_s"] = await _resume(site, shop, clients, behind)
        found["idle_socket_kib"] = await _idle_kib(site, shop.path, shop.topic, idle)
    return found


async def _again(site: Site, clients: int, seconds: float) -> dict[str, float]:
    """The latencies alone."""
    async with _shop(site) as shop, gathered(site.url, shop.path) as crowd:
        await crowd.open(clients)
        await crowd.join(shop.topic, {})
        return _percentiles(await _latencies(crowd, shop.lists, seconds))


def _percentiles(latencies: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1), "max_ms": round(max(latencies), 1)}


async def _resume(site: Site, shop: Shop, clients: int, behind: int) -> float:
    """Seconds until all have all that they missed, from the first connection on."""
    async with gathered(site.url, shop.path) as one:
        await one.open(1)
        replies: list[bytes] = []
        one.sockets[0]._heard = replies.append
        one.sockets[0].say(json.dumps(["1", "1", shop.topic, "phx_join", {}]))
        while not replies:  # noqa: ASYNC110  looked at every millisecond
            await asyncio.sleep(0.001)
        position = json.loads(replies[0])[4]["response"]["position"]
    for _ in range(0, behind, 20):
        await asyncio.gather(*(shop.lists(ids.new_id().hex) for _ in range(20)))
    async with gathered(site.url, shop.path) as crowd:
        begun = time.perf_counter()
        await crowd.open(clients)
        await crowd.join(shop.topic, {"from": position})
        async with asyncio.timeout(PATIENCE_S):
            while crowd.frames < clients * behind:  # noqa: ASYNC110  looked at every 10 ms
                await asyncio.sleep(0.01)
        took = time.perf_counter() - begun
        assert crowd.frames == clients * behind
        assert not any(each.lost for each in crowd.sockets)
    return round(took, 2)


async def _theirs(site: Site, clients: int, seconds: float, idle: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with gathered(site.url, "/") as crowd:
        await crowd.open(clients)

        found |= _percentiles(await _latencies(crowd, _said(crowd), seconds))
        found["saturation"] = await _saturation(crowd, _said(crowd), seconds / 2, site.pid)
    found["idle_socket_kib"] = await _idle_kib(site, "/", None, idle)
    return found


async def _theirs_again(site: Site, clients: int, seconds: float) -> dict[str, float]:
    async with gathered(site.url, "/") as crowd:
        await crowd.open(clients)
        return _percentiles(await _latencies(crowd, _said(crowd), seconds))


def _said(crowd: Crowd) -> Callable[[str], Awaitable[None]]:
    async def says(mark: str) -> None:
        filling = "x" * 300
        crowd.sockets[0].say(json.dumps({"sku": mark, "filling": filling}, separators=(",", ":")))

    return says


def _latency(found: dict[str, Any]) -> dict[str, float]:
    return {name: found[name] for name in ("p50_ms", "p99_ms", "max_ms")}


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in ("p50_ms", "p99_ms")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="of latencies, both in turn (default 3)")
    parser.add_argument("--idle", type=int, default=10_000, help="sockets whose memory is measured")
    parser.add_argument("--behind", type=int, default=1_000, help="events that each client missed (a multiple of 20)")
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by both sites
    if asked.bare is not None:
        _serve_bare(asked.bare)
        return
    before = server.machine()
    with (
        tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as name,
        _our_site(Path(name)) as our,
        _bare_site() as bare,
    ):
        ours = asyncio.run(_ours(our, asked.clients, asked.seconds, asked.idle, asked.behind))
        theirs = asyncio.run(_theirs(bare, asked.clients, asked.seconds, asked.idle))
        rounds = [(_latency(ours), _latency(theirs))]
        for _ in range(asked.rounds - 1):
            again = asyncio.run(_again(our, asked.clients, asked.seconds))
            rounds.append((again, asyncio.run(_theirs_again(bare, asked.clients, asked.seconds))))
    result = {
        "benchmark": "realtime",
        **before,
        "clients": asked.clients,
        "behind": asked.behind,
        "latency": {
            name: _medians(of_all) for name, of_all in zip(("ours", "bare"), zip(*rounds, strict=True), strict=True)
        },
        "latency_of_rounds": [{"ours": one, "bare": other} for one, other in rounds],
        "ours": ours,
        "peer_bare_asgi_broadcaster": theirs,
        "saturation_ratio": round(ours["saturation"]["frames_per_s"] / theirs["saturation"]["frames_per_s"], 2),
        "memory_ratio": round(ours["idle_socket_kib"] / theirs["idle_socket_kib"], 2),
        "targets": TARGETS,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
