"""Append rate and aggregate load time with 5 million events in the table, against 100,000.

Two databases on the same server, each with 200 tenants, take turns for some rounds, because the machine's speed swings: a
ratio is formed within each round. The small one is made anew for each, or the appends would let it grow.

Loaded are products of 1 to 10 events, taken at random, one after the other, without the process's cache: all of the small database
fits into it, and hardly anything of the big one, so that with it the two would differ by what is found there (`load_kept`, without a
target). Appended are first events of new products, 64
commands at once over all tenants, and, without a target, next events of old products taken at random, which touch pages
all over the index.

The stock of events is not appended but inserted by the owner: in the order of time, tenants interleaved, each with its record
of a command, as appending leaves them. Only the hashes are not a chain's. Pages are in the operating system's cache: all files are
read before each turn, as some machines take from the cache what rests. `read_mb` is what came from the disk in a turn all the same.

    scripts/bench growth [--events 5000000] [--seconds 2] [--rounds 5]
"""

import argparse
import asyncio
import hashlib
import json
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import psycopg
import uvloop

from bench import append, server
from bitnexus import database
from domain import catalogue, products
from ledger import appender, lookups
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.store import Ledger
from ledger.waker import Waker

EVENTS_SMALL = 100_000
TENANTS = 200
CONCURRENT = 64
RATE_RATIO_MIN, LOAD_RATIO_MAX = 0.80, 1.20
WARM_UP_S = 0.5
EVENTS_PER_INSERT = 100_000
BEGIN_MS = 1_700_000_000_000
CYCLE_MS = 60_000
REPRICED = b'{"price":"3.49"}'

PRODUCTS_PER_CYCLE = 10
CYCLE = [
    (product, version)
    for version in range(1, PRODUCTS_PER_CYCLE + 1)
    for product in range(version, PRODUCTS_PER_CYCLE + 1)
]
"""A tenant's stream repeats this: product p (1 … 10) has p events; all first events come first, then all second ones …"""


def _id_sql(at_ms: str, name: str) -> str:
    """A UUIDv7 of that time with random bits out of a name: SQL and `_id` give the same, so that nothing is looked up."""
    return f"(lpad(to_hex({at_ms}), 12, '0') || '7' || left(md5({name}), 3) || '8' || substr(md5({name}), 4, 15))::uuid"


def _id(at_ms: int, name: str) -> UUID:
    bits = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return UUID(f"{at_ms:012x}7{bits[:3]}8{bits[3:18]}")


STREAMS = f"""
    INSERT INTO ledger.heads (tenant_id, position, hash, recorded_at)
    SELECT {_id_sql("%(begin_ms)s::bigint", "'tenant ' || t")}, %(events)s, sha256(int4send(t)), clock_timestamp()
    FROM generate_series(0, %(tenants)s - 1) t
"""
# Positions from_position … to_position of every tenant.
STOCK = f"""
    WITH place AS (
        SELECT x.n - 1 AS n, x.product, x.version
        FROM unnest(%(products)s::int[], %(versions)s::int[]) WITH ORDINALITY AS x (product, version, n)
    ), tenant AS (
        SELECT t AS n, {_id_sql("%(begin_ms)s::bigint", "'tenant ' || t")} AS id FROM generate_series(0, %(tenants)s - 1) t
    ), stock AS MATERIALIZED (
        SELECT tenant.id AS tenant_id, p AS position, place.version,
               {_id_sql("cycle.at_ms", "'product ' || tenant.n || ' ' || cycle.n || ' ' || place.product")} AS originator_id,
               {_id_sql("cycle.at_ms + place.n", "'command ' || tenant.n || ' ' || p")} AS command_id,
               to_timestamp((cycle.at_ms + place.n) / 1000.0) AS recorded_at
        FROM generate_series(%(from_position)s::bigint, %(to_position)s) p
        CROSS JOIN tenant
        CROSS JOIN LATERAL (SELECT (p - 1) / %(cycle)s, %(begin_ms)s + (p - 1) / %(cycle)s * %(cycle_ms)s) AS cycle (n, at_ms)
        JOIN place ON place.n = (p - 1) %% %(cycle)s
        ORDER BY p, tenant.n
    ), recorded AS (
        INSERT INTO ledger.commands (tenant_id, command_id, fingerprint, outcome, position, recorded_at)
        SELECT tenant_id, command_id, ''::bytea, '["x",1]'::bytea, position, recorded_at FROM stock
    )
    INSERT INTO ledger.events (tenant_id, position, originator_id, originator_version, topic, recorded_at, state, metadata, hash)
    SELECT tenant_id, position, originator_id, version, CASE version WHEN 1 THEN 'product.listed' ELSE 'product.repriced' END, recorded_at,
           CASE version WHEN 1 THEN %(listed)s::bytea ELSE %(repriced)s::bytea END,
           convert_to('{{"command_id":"' || command_id || '","event_id":"' || md5(command_id::text) || '","role":"admin"}}', 'UTF8'),
           sha256(uuid_send(command_id))
    FROM stock
"""


def _tenant(n: int) -> UUID:
    return _id(BEGIN_MS, f"tenant {n}")


class Product(NamedTuple):
    """One of the stock."""

    tenant_id: UUID
    id: UUID
    versions: int


def _any_product(chance: random.Random, cycles: int, parity: int) -> Product:
    """Appending takes from the odd cycles, so that what is loaded keeps its 1 to 10 events."""
    tenant, product = chance.randrange(TENANTS), chance.randint(1, PRODUCTS_PER_CYCLE)
    cycle = chance.randrange(cycles // 2) * 2 + parity
    id = _id(BEGIN_MS + cycle * CYCLE_MS, f"product {tenant} {cycle} {product}")
    return Product(_tenant(tenant), id, product)


def _fill(owner_url: str, events: int) -> dict[str, int]:
    """What it took: seconds, and bytes on disk."""
    per_tenant = events // TENANTS
    step = max(1, EVENTS_PER_INSERT // TENANTS)
    begun = time.perf_counter()
    fixed = {
        "begin_ms": BEGIN_MS,
        "cycle_ms": CYCLE_MS,
        "cycle": len(CYCLE),
        "products": [product for product, _ in CYCLE],
        "versions": [version for _, version in CYCLE],
        "tenants": TENANTS,
        "listed": append.STATE,
        "repriced": REPRICED,
    }
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("SET ROLE bitnexus_writer")  # the owner is held by row-level security
        connection.execute(STREAMS.encode(), {**fixed, "events": per_tenant})
        for first in range(1, per_tenant + 1, step):
            last = min(per_tenant, first + step - 1)
            connection.execute(STOCK.encode(), {**fixed, "from_position": first, "to_position": last})
            if last * TENANTS // 1_000_000 > (first - 1) * TENANTS // 1_000_000:
                print(f"{last * TENANTS:,} events inserted", file=sys.stderr)
        connection.execute("RESET ROLE")
        connection.execute("VACUUM (ANALYZE) ledger.events, ledger.commands, ledger.heads")
        connection.execute("CHECKPOINT")  # not in the middle of what is measured
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return {"events": per_tenant * TENANTS, "bytes": row[0], "seconds": round(time.perf_counter() - begun)}


class Measured(NamedTuple):
    """In one turn of one database."""

    load_us: float  # mean
    load_p99_us: float
    load_kept_us: float
    append_per_s: float
    append_old_per_s: float
    read_mb: float  # from the disk, by the whole machine


class Side:
    """One of the two databases with a ledger at work on it."""

    def __init__(self, ledger: Ledger, keeping: Ledger, appends: appender.Appender, events: int) -> None:
        """`keeping`: the ledger as processes have it; `ledger` keeps nothing that it looked up."""
        self.ledger, self.keeping = ledger, keeping
        self.appends = appends
        self.cycles = events // TENANTS // len(CYCLE)
        self.versions: dict[UUID, int] = {}  # of the old products that were appended to

    async def turn(self, seed: int, seconds: float) -> Measured:
        chance, read_kib = random.Random(seed), _read_kib()
        await self._load(self.ledger, chance, WARM_UP_S)
        times_s = sorted(await self._load(self.ledger, chance, seconds))
        await self._load(self.keeping, chance, WARM_UP_S)
        kept_s = await self._load(self.keeping, chance, seconds)
        tenants = [_tenant(n) for n in range(TENANTS)]
        await append.measure(self.appends, tenants, CONCURRENT, WARM_UP_S)
        new = await append.measure(self.appends, tenants, CONCURRENT, seconds)
        old_per_s = await self._append_old(chance, seconds)
        p99_s = times_s[int(len(times_s) * 0.99)]
        return Measured(
            load_us=statistics.mean(times_s) * 1e6,
            load_p99_us=p99_s * 1e6,
            load_kept_us=statistics.mean(kept_s) * 1e6,
            append_per_s=new["events_per_s"],
            append_old_per_s=old_per_s,
            read_mb=(_read_kib() - read_kib) / 1024,
        )

    async def _load(self, ledger: Ledger, chance: random.Random, seconds: float) -> list[float]:
        """Seconds of each load."""
        times_s: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            product = _any_product(chance, self.cycles, 0)
            begun = time.perf_counter()
            loaded = await ledger.load(products.Product, product.tenant_id, product.id)
            times_s.append(time.perf_counter() - begun)
            assert loaded.version == product.versions, (loaded, product)
        return times_s

    async def _append_old(self, chance: random.Random, seconds: float) -> float:
        """Events a second."""
        appended, busy = 0, set[UUID]()
        begun = time.perf_counter()

        async def client() -> None:
            nonlocal appended
            while time.perf_counter() < begun + seconds:
                product = _any_product(chance, self.cycles, 1)
                if product.id in busy:
                    continue
                busy.add(product.id)
                version = self.versions.get(product.id, product.versions) + 1
                made = append.command(product.tenant_id)
                event = made.events[0]._replace(
                    originator_id=product.id.bytes,
                    originator_version=version,
                    topic=b"product.repriced",
                    state=REPRICED,
                )
                await self.appends.submit(made._replace(events=[event]))
                self.versions[product.id] = version
                busy.remove(product.id)
                appended += 1

        await asyncio.gather(*(client() for _ in range(CONCURRENT)))
        return appended / (time.perf_counter() - begun)


@asynccontextmanager
async def _at_work(urls: server.Urls, events: int) -> AsyncIterator[Side]:
    connect, codec, keyring = database.connector(urls.app, "app"), Codec(catalogue.AGGREGATES), Keyring(server.MASTER)
    async with (
        database.pool(urls.app, "app", 2) as pool,
        lookups.running(connect, pool, codec, keyring, kept_bytes_max=0) as looks,
        lookups.running(connect, pool, codec, keyring) as keeps,
    ):
        appends = appender.Appender(connect, Waker())
        await appends.start()
        ledger, keeping = [Ledger(pool, appends, each, codec, keyring) for each in (looks, keeps)]
        yield Side(ledger, keeping, appends, events)
        await appends.close()


async def _run(host: str, events: int, rounds: int, seconds: float) -> dict[str, object]:
    small: list[Measured] = []
    big: list[Measured] = []
    with server.migrated(host) as big_urls:
        server.require_durable(big_urls.owner)
        big_stock = _fill(big_urls.owner, events)
        async with _at_work(big_urls, events) as big_side:
            for n in range(rounds):
                with server.migrated(host) as small_urls:
                    small_stock = _fill(small_urls.owner, EVENTS_SMALL)
                    async with _at_work(small_urls, EVENTS_SMALL) as small_side:
                        turns = [(small_urls, small_side, small), (big_urls, big_side, big)]
                        for urls, side, measured in turns if n % 2 == 0 else reversed(turns):
                            _read_files(urls.owner)
                            measured.append(await side.turn(n, seconds))
                print(f"round {n + 1} of {rounds}", file=sys.stderr)
    return {
        "small": {**small_stock, **_medians(small)},
        "big": {**big_stock, **_medians(big)},
        "ratios_big_to_small": {
            "append": _ratio(big, small, "append_per_s") | {"target_min": RATE_RATIO_MIN},
            "load_time": _ratio(big, small, "load_us") | {"target_max": LOAD_RATIO_MAX},
            "load_time_kept": _ratio(big, small, "load_kept_us"),
            "append_to_old_products": _ratio(big, small, "append_old_per_s"),
        },
    }


def _read_files(owner_url: str) -> None:
    """Brings all of the database's files into the operating system's cache, or says that they are not to be read from here."""
    try:
        with psycopg.connect(owner_url) as connection:
            found = connection.execute(
                "SELECT current_setting('data_directory'), oid FROM pg_database WHERE datname = current_database()"
            ).fetchone()
        assert found is not None
        for path in Path(found[0], "base", str(found[1])).iterdir():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
    except (OSError, psycopg.errors.InsufficientPrivilege) as error:
        print(f"The database's files cannot be read, its pages may be on the disk: {error}", file=sys.stderr)


def _read_kib() -> int:
    """Read from disks since the machine's start (proc_vmstat(5))."""
    counted = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counted["pgpgin"])


def _medians(measured: list[Measured]) -> dict[str, int]:
    return {field: round(statistics.median(getattr(each, field) for each in measured)) for field in Measured._fields}


def _ratio(big: list[Measured], small: list[Measured], field: str) -> dict[str, object]:
    per_round = [getattr(one, field) / getattr(other, field) for one, other in zip(big, small, strict=True)]
    return {"median": round(statistics.median(per_round), 2), "per_round": [round(ratio, 2) for ratio in per_round]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000_000, help="in the big table (default 5000000)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in each round (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often the two take turns (default 5)")
    arguments = parser.parse_args()
    if arguments.events < EVENTS_SMALL:
        parser.error(f"--events {arguments.events} is less than the {EVENTS_SMALL} of the small table: give more")
    machine, begun = server.machine(), time.perf_counter()
    with server.running() as host:
        result = uvloop.run(_run(host, arguments.events, arguments.rounds, arguments.seconds))
    print(
        json.dumps(
            {"benchmark": "growth", **machine, **result, "whole_run_s": round(time.perf_counter() - begun)}, indent=2
        )
    )


if __name__ == "__main__":
    main()
