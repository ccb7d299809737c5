"""Events verified per second, and the memory that it takes, over one tenant's stream.

The peer in the same run reads the same rows by COPY and throws them away: what reading alone costs.

    scripts/bench verify [--events 300000]
"""

import argparse
import asyncio
import json
import resource
import statistics
import time
from typing import LiteralString
from uuid import UUID

import uvloop
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from bench import append, server
from bitnexus import database
from ledger import appender, ids, verify
from ledger.waker import Waker

REPEATS = 5
TARGET_EVENTS_PER_S = 250_000
PEER: LiteralString = """
COPY (SELECT position, hash, originator_id, originator_version, recorded_at, topic, state, metadata
      FROM ledger.events WHERE tenant_id = {tenant} ORDER BY position) TO STDOUT (FORMAT binary)
"""


async def _fill(app_url: str, tenant_id: UUID, events: int) -> None:
    appends = appender.Appender(database.connector(app_url, "app"), Waker())
    await appends.start()
    async with await database.connect(app_url, "app") as connection:
        await connection.execute("SELECT ledger.open_stream(%s)", (tenant_id,))
    for _ in range(events // appender.COMMANDS_PER_FLUSH_MAX):
        await asyncio.gather(
            *(appends.submit(append.command(tenant_id)) for _ in range(appender.COMMANDS_PER_FLUSH_MAX))
        )
    await appends.close()


def _read_only(connection: Connection[TupleRow], tenant_id: UUID) -> int:
    rows = 0
    with connection.cursor() as cursor, cursor.copy(sql.SQL(PEER).format(tenant=tenant_id)) as copy:
        for _ in copy:
            rows += 1
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000, help="in the stream, in thousands (default 300000)")
    arguments = parser.parse_args()
    tenant_id = ids.new_id()
    verified: list[float] = []
    read: list[float] = []
    with server.fresh() as app_url:
        uvloop.run(_fill(app_url, tenant_id, arguments.events))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with database.connect_sync(app_url, "projector") as connection:
            for _ in range(REPEATS):
                begun = time.perf_counter()
                verdict = verify.verify(connection, tenant_id)
                verified.append(verdict.events / (time.perf_counter() - begun))
                assert verdict.broken is None, verdict
                begun = time.perf_counter()
                read.append(_read_only(connection, tenant_id) / (time.perf_counter() - begun))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "benchmark": "verify",
        **server.machine(),
        "events": verdict.events,
        "events_per_s": round(statistics.median(verified)),
        "target": TARGET_EVENTS_PER_S,
        "peer_read_only_rows_per_s": round(statistics.median(read)),
        "memory_growth_kib": after - before,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
