"""Events per second at which each view catches up with a waiting stream, and all views of one process together.

The stream is like retail sales: products first, then sales of three lines, half of them to one of 2,000 known buyers (whose
reference is encrypted), and one event in ten a refund of a line. Each view begins at position 1 every time; the median of
the repeats is given. The peer in the same run only reads and decodes the events that the view `transactions` wants.

    scripts/bench project [--events 50000] [--repeats 3]
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import uvloop
from eventsourcing.domain import Aggregate

from bench import server
from bitnexus import database
from domain import catalogue as domain_catalogue
from domain import products, transactions
from ledger import appender, ids, lookups, read
from ledger.caller import Caller
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.store import Ledger
from ledger.waker import Waker
from projections import catalogue, positions, runner, stream
from projections.view import View

TARGET_EVENTS_PER_S = 20_000
PRODUCTS = 3_000
BUYERS = 2_000
LINES = 3
REFUND_EVERY = 10
APPENDS_AT_ONCE = 500
BEGIN = datetime(2010, 12, 1, 8, tzinfo=UTC)


def _products(tenant_id: UUID) -> list[products.Product]:
    return [
        products.list_product(
            id=ids.new_id(),
            tenant_id=tenant_id,
            sku=str(20_000 + n),
            name=f"WHITE HANGING HEART T-LIGHT HOLDER {n}",
            price=Decimal(n % 1_500 + 1) / 100,
            currency="GBP",
        )
        for n in range(PRODUCTS)
    ]


def _sales(
    tenant_id: UUID, events: int, listed: Sequence[products.Product], buyers: Sequence[tuple[str, UUID]]
) -> Iterator[Aggregate]:
    """Each has one pending event."""
    chance = random.Random(1)
    sold: list[transactions.Transaction] = []
    for n in range(events):
        at = BEGIN + timedelta(minutes=10 * n)
        if n % REFUND_EVERY == REFUND_EVERY - 1 and len(sold) > APPENDS_AT_ONCE:
            sale = sold.pop(chance.randrange(len(sold) - APPENDS_AT_ONCE))
            sale.refund(ids.new_id(), [(1, 1)], occurred_at=at)
        else:
            ref, subject = chance.choice(buyers) if n % 2 else (None, None)
            sale = transactions.record(
                id=ids.new_id(),
                tenant_id=tenant_id,
                lines=[
                    transactions.LineWanted(
                        product_id=product.id, sku=product.sku, quantity=chance.randint(1, 24), unit_price=product.price
                    )
                    for product in chance.sample(listed, LINES)
                ],
                currency="GBP",
                occurred_at=at,
                buyer_ref=ref,
                buyer_subject_id=subject,
                source="retail",
                external_id=str(536_365 + n),
            )
            sold.append(sale)
        yield sale


async def fill(ledger: Ledger, tenant_id: UUID, events: int) -> int:
    """The head's position."""
    await ledger.open_stream(tenant_id)
    listed = _products(tenant_id)
    await _append(ledger, tenant_id, listed)
    subjects = await ledger.subjects(tenant_id, "buyer", [str(12_346 + n) for n in range(BUYERS)])
    waiting: list[Aggregate] = []
    for sale in _sales(tenant_id, events - PRODUCTS, listed, list(subjects.items())):
        waiting.append(sale)
        if len(waiting) == APPENDS_AT_ONCE:
            await _append(ledger, tenant_id, waiting)
            waiting.clear()
    await _append(ledger, tenant_id, waiting)
    return (await ledger.head(tenant_id)).position


async def _append(ledger: Ledger, tenant_id: UUID, aggregates: Sequence[Aggregate]) -> None:
    def caller() -> Caller:
        return Caller(tenant_id=tenant_id, actor_id=None, role="admin", command_id=ids.new_id())

    await asyncio.gather(*(ledger.append(caller(), aggregate) for aggregate in aggregates))


async def catch_up(app_url: str, source: stream.Source, tenant_id: UUID, views: Sequence[View], head: int) -> float:
    """Seconds from an empty view to the head, the runner's start included."""
    connect = database.projecting_connector(app_url)
    async with await connect() as connection:
        for view in views:
            for table in view.tables:
                await connection.execute(f"DELETE FROM views.{table.name} WHERE tenant_id = %s", (tenant_id,))
            await connection.execute(
                "DELETE FROM views.positions WHERE tenant_id = %s AND view = %s", (tenant_id, view.name)
            )
    reached = positions.Reached(connect)
    runs = runner.Runner(views, connect, source, Waker(), reached)
    done = asyncio.Event()

    def moved(tenant_id: UUID, name: str, position: int) -> None:
        if all(reached.at(tenant_id, view.name) >= head for view in views):
            done.set()

    reached.subscribe(moved)
    begun = time.perf_counter()
    await runs.start()
    await done.wait()
    elapsed = time.perf_counter() - begun
    await runs.close()
    await reached.close()
    return elapsed


async def _read_only(app_url: str, source: stream.Source, tenant_id: UUID, view: View, head: int) -> float:
    begun, position = time.perf_counter(), 0
    async with await database.connect(app_url, "projector") as connection:
        while position < head:
            entries = await read.entries(connection, tenant_id, position, stream.EVENTS_MAX)
            wanted = [entry for entry in entries if entry.topic in view.wanted]
            await read.decode(source.codec, source.keyring, connection, tenant_id, wanted)
            position = entries[-1].position
    return time.perf_counter() - begun


async def _measure(app_url: str, events: int, repeats: int) -> dict[str, object]:
    codec, keyring, tenant_id = Codec(domain_catalogue.AGGREGATES), Keyring(server.MASTER), ids.new_id()
    appends = appender.Appender(database.connector(app_url, "app"), Waker())
    await appends.start()
    connect = database.connector(app_url, "app")
    async with database.pool(app_url, "app", 2) as pool, lookups.running(connect, pool, codec, keyring) as looks:
        head = await fill(Ledger(pool, appends, looks, codec, keyring), tenant_id, events)
    await appends.close()
    source = stream.Source(codec, keyring)

    async def rate(*views: View) -> int:
        seconds = [await catch_up(app_url, source, tenant_id, views, head) for _ in range(repeats)]
        return round(head / statistics.median(seconds))

    wanted = next(view for view in catalogue.VIEWS if view.name == "transactions")
    reads = [await _read_only(app_url, source, tenant_id, wanted, head) for _ in range(repeats)]
    return {
        "events": head,
        "events_per_s": {view.name: await rate(view) for view in catalogue.VIEWS},
        "target_each": TARGET_EVENTS_PER_S,
        "events_per_s_all_views_at_once": await rate(*catalogue.VIEWS),
        "peer_read_and_decode_events_per_s": round(head / statistics.median(reads)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=50_000, help="in the stream (default 50000)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default 3)")
    arguments = parser.parse_args()
    machine = server.machine()  # before the load that is made here
    with server.fresh() as app_url:
        figures = uvloop.run(_measure(app_url, arguments.events, arguments.repeats))
    memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"benchmark": "project", **machine, **figures, "memory_peak_kib": memory_kib}, indent=2))


if __name__ == "__main__":
    main()
