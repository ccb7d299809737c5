"""Milliseconds from a command's answer to its outcome being readable, at a steady rate of commands, one and two workers.

Sales are sent at fixed times, whatever became of the ones before, so that a slow moment is counted for every command that
falls into it. One in FOLLOWED_EVERY is followed as a client does that reads what it wrote: the moment its answer is there,
`GET /transactions/{id}` with the answer's `X-Position` goes out on another connection, to whichever worker takes it, and waits
there for the view. `readable` is from the command's answer to the read's answer: it holds the read itself, which `read_alone`
gives, measured in between on sales that have long been readable. Asking again and again without X-Position would measure the
asking. Every followed command counts; `refused` are answers other than 201 and 200.

    scripts/bench readable [--seconds 10] [--rate 500]
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench import http, server

TARGET_P50_MS, TARGET_P99_MS = 15.0, 60.0
FOLLOWED_EVERY = 5
"""All of them would double the requests, on a machine that the sender shares with what it measures."""
WARM_S = 2.0
KEPT_S = 3.0
"""The server lets go of who says nothing for 5 s."""
CONNECTIONS_MAX = 256
"""Requests in flight; past that the server has lost the rate, and the benchmark says so."""


class Connections:
    """Kept alive, and used by one request at a time each: the one that has been idle longest."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 0
        self._fixed = f"Host: bench\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[2].close()

    async def ask(self, head: str, body: bytes = b"") -> tuple[int, str, bytes]:
        """Status, X-Position, body. `head` is the request line and headers of its own, each line ended."""
        async with self._places:
            while self._idle and time.monotonic() - self._idle[0][0] > KEPT_S:
                self._idle.pop(0)[2].close()
            if self._idle:
                _, reader, writer = self._idle.pop(0)
            else:
                reader, writer = await asyncio.open_connection(*self._address)
            writer.write(f"{head}{self._fixed}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            answer = await reader.readexactly(int(headers.get("content-length", "0")))
            self._idle.append((time.monotonic(), reader, writer))
        return int(lines[0].split(" ")[1]), headers.get("x-position", ""), answer


@dataclass
class Found:
    """Seconds each."""

    command: list[float] = field(default_factory=list)
    readable: list[float] = field(default_factory=list)
    read_alone: list[float] = field(default_factory=list)
    late_s: float = 0.0  # of the sender itself, at the worst
    refused: int = 0


async def _command(connections: Connections, number: int, found: Found) -> None:
    begun = time.perf_counter()
    head = f"POST /api/v1/transactions HTTP/1.1\r\nIdempotency-Key: {os.getpid()}-{number}\r\n"
    status, position, body = await connections.ask(head, b'{"lines": [{"sku": "MUG", "quantity": 2}]}')
    answered = time.perf_counter()
    found.command.append(answered - begun)
    if status != 201:
        found.refused += 1
    elif number % FOLLOWED_EVERY == 0:
        read = f"GET /api/v1/transactions/{json.loads(body)['data']['id']} HTTP/1.1\r\n"
        status, _, _ = await connections.ask(f"{read}X-Position: {position}\r\n")
        found.readable.append(time.perf_counter() - answered)
        found.refused += status != 200
        await asyncio.sleep(0.5)
        begun = time.perf_counter()
        await connections.ask(read)
        found.read_alone.append(time.perf_counter() - begun)


async def _send(connections: Connections, rate: int, seconds: float, numbers: Iterator[int]) -> Found:
    found = Found()
    begun, sent = time.perf_counter(), 0
    async with asyncio.TaskGroup() as group:
        while sent < rate * seconds:
            due = begun + sent / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            found.late_s = max(found.late_s, time.perf_counter() - due)
            group.create_task(_command(connections, next(numbers), found))
            sent += 1
    return found


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3, 2)

    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0), "n": len(ordered)}


def _cpu_s(url: str) -> float:
    """Of all workers, a second ago at the latest."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        (value,) = re.findall(r"^bitnexus_cpu_seconds_total (\S+)", answer.read().decode(), re.MULTILINE)
    return float(value)


def _measure(workers: int, rate: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as folder, http.served(Path(folder), workers) as url:
        login = {"email": "a@shop.example", "password": http.PASSWORD, "tenant": "shop"}
        token = http.asked(f"{url}/api/v1/auth/login", login)["access_token"]
        http.asked(f"{url}/api/v1/products", {"sku": "MUG", "name": "Mug", "price": "9.50"}, token)
        connections, numbers = Connections(url, token), itertools.count(1)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_send(connections, rate, WARM_S, numbers))
            cpu_before_s, begun = _cpu_s(url), time.perf_counter()
            found = runner.run(_send(connections, rate, seconds, numbers))
            cores = (_cpu_s(url) - cpu_before_s) / (time.perf_counter() - begun)
    return {
        "readable": _percentiles(found.readable),
        "read_alone": _percentiles(found.read_alone),
        "command": _percentiles(found.command),
        "refused": found.refused,
        "sender_late_max_ms": round(found.late_s * 1e3, 1),
        "python_cores": round(cores, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each run (default %(default)s)")
    parser.add_argument("--rate", type=int, default=500, help="commands a second (default %(default)s)")
    arguments = parser.parse_args()
    before = server.machine()
    result = {
        "benchmark": "readable",
        **before,
        "commands_per_s": arguments.rate,
        "followed_per_s": arguments.rate / FOLLOWED_EVERY,
        "one_worker": _measure(1, arguments.rate, arguments.seconds),
        "two_workers": _measure(2, arguments.rate, arguments.seconds),
        "targets": {"readable_p50_ms": TARGET_P50_MS, "readable_p99_ms": TARGET_P99_MS},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
