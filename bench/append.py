"""Durable appends per second, one event a command, with idempotency, roles and row-level security; fsync on.

Each case runs `--seconds` three times; the median is given. The peer in the same run is a bare INSERT of 1,000 such rows a
transaction by `unnest`, without head, hash, idempotency or policies: what the machine's PostgreSQL can do at the most.

    scripts/bench append [--seconds 4]
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from uuid import UUID

import psycopg
import uvloop

from bench import server
from bitnexus import database
from ledger import appender, arrays, ids
from ledger.waker import Waker

CASES = ((1, 64, 22_000), (1, 256, 40_000), (100, 64, 18_000), (100, 256, None))  # tenants, concurrent commands, target
REPEATS = 3
STATE = (
    b'{"tenant_id":"0192f0c4-0000-7000-8000-000000000000","sku":"71053","name":"WHITE METAL LANTERN","price":"3.39",'
    b'"currency":"GBP","description":null,"category":null,"metadata":{}}'
)
PEER_ROWS = 1_000


def command(tenant_id: UUID) -> appender.Command:
    command_id = ids.new_id()
    metadata = b'{"command_id":"%s","event_id":"%s","role":"admin"}' % (
        str(command_id).encode(),
        os.urandom(16).hex().encode(),
    )
    event = appender.Event(ids.new_id().bytes, 1, b"product.listed", STATE, metadata)
    return appender.Command(tenant_id, command_id, b"", b'["x",1]', [event])


async def _case(appends: appender.Appender, tenants: list[UUID], concurrent: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def client(n: int) -> None:
        while (begun := time.perf_counter()) < end:
            await appends.submit(command(tenants[n % len(tenants)]))
            latencies.append(time.perf_counter() - begun)
            n += concurrent + 1

    flushes, begun = appends.flushes, time.perf_counter()
    await asyncio.gather(*(client(n) for n in range(concurrent)))
    elapsed = time.perf_counter() - begun
    latencies.sort()
    return {
        "events_per_s": round(len(latencies) / elapsed),
        "p50_ms": round(latencies[len(latencies) // 2] * 1e3, 2),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1e3, 2),
        "events_per_flush": round(len(latencies) / (appends.flushes - flushes), 1),
    }


async def _peer(app_url: str, seconds: float) -> int:
    """Bare rows a second, inserted by a role that may make temporary tables only: unlogged they are not, fsync is paid."""
    async with await database.connect(app_url, "app") as connection:
        arrays.register(connection.adapters)
        await connection.execute(
            "CREATE TEMPORARY TABLE bare (tenant_id uuid, position bigint, originator_id uuid, originator_version int,"
            " topic text, state bytea, metadata bytea, PRIMARY KEY (tenant_id, position))"
        )
        tenant, rows, end = ids.new_id(), 0, time.perf_counter() + seconds
        begun = time.perf_counter()
        while time.perf_counter() < end:
            events = [command(tenant).events[0] for _ in range(PEER_ROWS)]
            await connection.execute(
                "INSERT INTO bare SELECT %s, %s + x.n, x.o, 1, x.t, x.s, x.m"
                " FROM unnest(%b::uuid[], %b::text[], %b::bytea[], %b::bytea[]) WITH ORDINALITY AS x (o, t, s, m, n)",
                (
                    tenant,
                    rows,
                    arrays.UuidArray.of([e.originator_id for e in events]),
                    arrays.TextArray.of([e.topic for e in events]),
                    arrays.ByteaArray.of([e.state for e in events]),
                    arrays.ByteaArray.of([e.metadata for e in events]),
                ),
            )
            rows += PEER_ROWS
        return round(rows / (time.perf_counter() - begun))


async def _run(app_url: str, seconds: float) -> dict[str, object]:
    appends = appender.Appender(database.connector(app_url, "app"), Waker())
    await appends.start()
    cases = []
    async with await database.connect(app_url, "app") as connection:
        for tenant_count, concurrent, target in CASES:
            tenants = [ids.new_id() for _ in range(tenant_count)]
            for tenant_id in tenants:
                await connection.execute("SELECT ledger.open_stream(%s)", (tenant_id,))
            runs = [await _case(appends, tenants, concurrent, seconds) for _ in range(REPEATS)]
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            cases.append({"tenants": tenant_count, "concurrent_commands": concurrent, "target": target, **median})
    await appends.close()
    peer = await _peer(app_url, seconds)
    return {"benchmark": "append", **server.machine(), "cases": cases, "peer_bare_rows_per_s": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run (default 4)")
    arguments = parser.parse_args()
    with server.fresh() as app_url:
        with psycopg.connect(**database.parameters(app_url, "app")) as connection:
            row = connection.execute(
                "SELECT current_setting('fsync'), current_setting('synchronous_commit')"
            ).fetchone()
        assert row == ("on", "on"), (
            f"fsync and synchronous_commit are {row}: the figures would mean nothing. Turn both on."
        )
        print(json.dumps(uvloop.run(_run(app_url, arguments.seconds)), indent=2))


if __name__ == "__main__":
    main()
