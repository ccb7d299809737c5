"""Durable appends per second, one event a command, with idempotency, roles and row-level security; fsync on.

Each case runs `--seconds` three times; the median is given. The peer in the same run is a bare INSERT of 1,000 such rows a
transaction by `unnest` into a logged table with the indexes of `ledger.events`, without head, hash, idempotency or policies:
what the machine's PostgreSQL can do at the most.

    scripts/bench append [--seconds 4]
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from contextlib import AsyncExitStack
from uuid import UUID

import uvloop
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bench import server
from bitnexus import database
from ledger import appender, arrays, ids, packing
from ledger.waker import Waker

CASES = ((1, 64, 22_000), (1, 256, 40_000), (100, 64, 18_000), (100, 256, None))  # tenants, concurrent commands, target
REPEATS = 3
STATE = (
    b'{"tenant_id":"0192f0c4-0000-7000-8000-000000000000","sku":"71053","name":"WHITE METAL LANTERN","price":"3.39",'
    b'"currency":"GBP","description":null,"category":null,"metadata":{}}'
)
METADATA = b'{"command_id":"%s","event_id":"%s","role":"admin"}' % (b"0" * 36, os.urandom(16).hex().encode())
"""The same each time, as a peer's is: what is measured is appending, not making metadata."""
BARE_ROWS_PER_BATCH = 1_000
CREATE_BARE = """
    CREATE TABLE public.bare (
        tenant_id          uuid             NOT NULL,
        position           bigint           NOT NULL,
        originator_id      uuid             NOT NULL,
        originator_version int              NOT NULL,
        topic              text COLLATE "C" NOT NULL,
        recorded_at        timestamptz      NOT NULL,
        state              bytea            NOT NULL,
        metadata           bytea            NOT NULL,
        PRIMARY KEY (tenant_id, position),
        UNIQUE (tenant_id, originator_id, originator_version)
    )
"""
INSERT_BARE = (
    "INSERT INTO public.bare SELECT %s, %s + x.n, x.o, x.v, x.t, clock_timestamp(), x.s, x.m"
    " FROM unnest(%b::uuid[], %b::int[], %b::text[], %b::bytea[], %b::bytea[]) WITH ORDINALITY AS x (o, v, t, s, m, n)"
)


def command(tenant_id: UUID, topic: bytes = b"product.listed") -> packing.Command:
    event = packing.Event(ids.new_id().bytes, 1, topic, STATE, METADATA)
    return packing.Command(tenant_id, ids.new_id(), b"", b'["x",1]', [event])


async def measure(appends: appender.Appender, tenants: list[UUID], concurrent: int, seconds: float) -> dict[str, float]:
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


async def make_bare(owner_url: str) -> None:
    """The peer's table: logged, and with the columns and indexes of ledger.events but for the hash."""
    async with await AsyncConnection.connect(owner_url, autocommit=True) as connection:
        await connection.execute(CREATE_BARE)


async def bare(owner_url: str, connections: int, seconds: float) -> int:
    """Bare rows a second, inserted over so many connections at once, each with one batch under way."""
    rows = 0

    async def writer(connection: AsyncConnection[TupleRow], end: float) -> None:
        nonlocal rows
        tenant, position = ids.new_id(), 0
        while time.perf_counter() < end:
            await connection.execute(INSERT_BARE, (tenant, position, *_columns(tenant)), prepare=True)
            position += BARE_ROWS_PER_BATCH
            rows += BARE_ROWS_PER_BATCH

    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(connections):
            connection = await stack.enter_async_context(await AsyncConnection.connect(owner_url, autocommit=True))
            arrays.register(connection.adapters)
            opened.append(connection)
        begun = time.perf_counter()
        await asyncio.gather(*(writer(connection, begun + seconds) for connection in opened))
        return round(rows / (time.perf_counter() - begun))


def _columns(tenant_id: UUID) -> list[arrays.PackedArray]:
    """Of one batch, its events made as those of the commands are."""
    events = [command(tenant_id).events[0] for _ in range(BARE_ROWS_PER_BATCH)]
    return [
        arrays.UuidArray.of([event.originator_id for event in events]),
        arrays.Int4Array.of([event.originator_version for event in events]),
        arrays.TextArray.of([event.topic for event in events]),
        arrays.ByteaArray.of([event.state for event in events]),
        arrays.ByteaArray.of([event.metadata for event in events]),
    ]


async def _run(urls: server.Urls, seconds: float) -> dict[str, object]:
    appends = appender.Appender(database.connector(urls.app, "app"), Waker())
    await appends.start()
    cases = []
    async with await database.connect(urls.app, "app") as connection:
        for tenant_count, concurrent, target in CASES:
            tenants = [ids.new_id() for _ in range(tenant_count)]
            for tenant_id in tenants:
                await connection.execute("SELECT ledger.open_stream(%s)", (tenant_id,))
            runs = [await measure(appends, tenants, concurrent, seconds) for _ in range(REPEATS)]
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            cases.append({"tenants": tenant_count, "concurrent_commands": concurrent, "target": target, **median})
    await appends.close()
    await make_bare(urls.owner)
    peer = statistics.median([await bare(urls.owner, 1, seconds) for _ in range(REPEATS)])
    return {"benchmark": "append", **server.machine(), "cases": cases, "peer_bare_rows_per_s": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run (default 4)")
    arguments = parser.parse_args()
    with server.running() as owner_url, server.migrated(owner_url) as urls:
        server.require_durable(urls.owner)
        print(json.dumps(uvloop.run(_run(urls, arguments.seconds)), indent=2))


if __name__ == "__main__":
    main()
