"""Where the processor time of a command over HTTP goes: its steps in one process, without sockets, in turns.

    append      an event appended, and nothing else
    bare        a Litestar handler with an append behind it: a peer of `bench/http.py`
    command     the sale itself: looked up, decided, encoded, appended; no HTTP
    bare_sale   the command behind a Litestar handler, without token, right, idempotency key, rates and metrics: the other peer
    request     the whole request: edge, token, right, body, idempotency key, command, answer, metrics
    projecting  what a sale costs until it is in all views, in full batches, in which it costs least

`least` is what a request would cost if token, right, body, idempotency key, answer and metrics cost nothing: bare, what a command
needs beside its append, and projecting. `best_ratio` is the bare handler to that: what the ratio of `bench/http.py` could
be at best. Microseconds of this process a command, medians of rounds in turns; sockets and the database's processes come on
top of each, equal for all but projecting.

    scripts/bench steps [--rounds 30]
"""

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import uvloop
from litestar import Litestar

from api import rates
from bench import append, handlers, server
from bitnexus import installation, process, settings, web
from bitnexus.telemetry import Telemetry
from commands import tenants
from commands import transactions as sales
from domain.tenants import PLATFORM_ID
from ledger import ids
from ledger.caller import Caller
from projections import catalogue

AT_ONCE = 64
COMMANDS_PER_TURN = 512
PASSWORD = "correct horse battery"
BODY = b'{"lines": [{"sku": "MUG", "quantity": 2}]}'
STEPS = ("append", "bare", "command", "bare_sale", "request")
WARM_ROUNDS = 3
CATCH_UP_S_MAX = 60.0

Step = Callable[[int], Awaitable[None]]


async def _asked(app: Any, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The answer's body. An ASGI request without a server."""
    answer: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        answer.append(message)

    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"},
        **{"path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers},
        **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}, "extensions": {}},
    }
    await app(scope, receive, send)
    assert answer[0]["status"] in (200, 201), answer
    said: bytes = answer[1]["body"]
    return said


async def _turn(step: Step, begin: int) -> float:
    """Microseconds of the process a command."""

    async def client(number: int) -> None:
        for each in range(number, COMMANDS_PER_TURN, AT_ONCE):
            await step(begin + each)

    begun = time.process_time()
    await asyncio.gather(*(client(number) for number in range(AT_ONCE)))
    return (time.process_time() - begun) / COMMANDS_PER_TURN * 1e6


def _appends(parts: process.Process, tenant_id: UUID) -> tuple[Step, Step]:
    """By itself, and behind a bare handler."""

    async def alone(_: int) -> None:
        await parts.appender.submit(append.command(tenant_id, handlers.OF_NO_VIEW))

    app = handlers.appending(parts.appender, tenant_id)

    async def bare(_: int) -> None:
        await _asked(app, "POST", "/", [], b"")

    return alone, bare


async def _sales(parts: process.Process, app: Litestar, tenant_id: UUID) -> tuple[Step, Step, Step]:
    """The command, behind a bare handler, and the request."""
    login = {"email": "a@shop.example", "password": PASSWORD, "tenant": "shop"}
    kind = (b"content-type", b"application/json")
    said = json.loads(await _asked(app, "POST", "/api/v1/auth/login", [kind], json.dumps(login).encode()))["data"]
    headers = [(b"host", b"bench"), kind, (b"authorization", f"Bearer {said['access_token']}".encode())]
    await _asked(app, "POST", "/api/v1/products", headers, b'{"sku": "MUG", "name": "Mug", "price": "9.50"}')
    actor_id = UUID(said["user"]["id"])

    async def command(number: int) -> None:
        caller = Caller(tenant_id=tenant_id, actor_id=actor_id, role="admin", command_id=ids.new_id())
        lines = [sales.LineOrdered(sku="MUG", quantity=2)]
        await sales.record(sales.Record(lines=lines, sets_prices=True), caller, parts.ledger)

    bare = handlers.selling(parts.ledger, tenant_id)
    plain = [(b"host", b"bench"), kind, (b"content-length", b"%d" % len(BODY))]

    async def bare_sale(_: int) -> None:
        await _asked(bare, "POST", "/", plain, BODY)

    async def request(number: int) -> None:
        keyed = [*headers, (b"content-length", b"%d" % len(BODY)), (b"idempotency-key", b"bench-%d" % number)]
        await _asked(app, "POST", "/api/v1/transactions", keyed, BODY)

    return command, bare_sale, request


async def _projecting(parts: process.Process, tenant_id: UUID) -> float:
    """Microseconds a sale."""
    head = (await parts.ledger.head(tenant_id)).position
    begun = time.process_time()
    await parts.runner.start()
    await parts.reached.wait(tenant_id, [view.name for view in catalogue.VIEWS], head, CATCH_UP_S_MAX)
    used = time.process_time() - begun
    await parts.runner.close()
    return used / head * 1e6


async def _measured(folder: Path, rounds: int) -> dict[str, float]:
    chosen = settings.read({}, data_dir=folder)
    with installation.opened(chosen, lambda *_, **__: None) as base:
        async with process.running(base, projecting=False) as parts:
            await tenants.ensure_platform(parts.ledger)
            limits = rates.Rates(rates.Policies(), bytes(32), PLATFORM_ID)
            app = web.application(parts, chosen, Telemetry(), limits, asyncio.Event())
            admin = {"admin_email": "a@shop.example", "admin_name": "A", "admin_password": PASSWORD}
            shop = tenants.Create(slug="shop", name="Shop", currency="EUR", **admin)
            nobody = Caller(tenant_id=PLATFORM_ID, actor_id=None, role="bench", command_id=ids.new_id())
            tenant_id = (await tenants.create(shop, nobody, parts.ledger, parts.passwords)).aggregate.id
            bare_id = ids.new_id()
            await parts.ledger.open_stream(bare_id)
            steps = [*_appends(parts, bare_id), *await _sales(parts, app, tenant_id)]
            gc.collect()
            gc.freeze()
            turns = [
                [await _turn(step, turn * COMMANDS_PER_TURN) for step in steps] for turn in range(rounds + WARM_ROUNDS)
            ]
            medians = [statistics.median(of_step) for of_step in zip(*turns[WARM_ROUNDS:], strict=True)]
            return {**dict(zip(STEPS, medians, strict=True)), "projecting": await _projecting(parts, tenant_id)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="of all steps in turn (default 30)")
    arguments = parser.parse_args()
    before = server.machine()
    with tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as name:
        found = uvloop.run(_measured(Path(name) / "data", arguments.rounds))
    least = found["bare"] + found["command"] - found["append"] + found["projecting"]
    result = {
        "benchmark": "steps",
        **before,
        "rounds": arguments.rounds,
        "us": {name: round(value, 1) for name, value in found.items()},
        "us_least": round(least, 1),
        "best_ratio": round(found["bare"] / least, 2),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
