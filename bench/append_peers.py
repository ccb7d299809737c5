"""Durable one-event commands a second at 256 concurrent ones in one tenant, against two peers; and a second process.

Peers, on the same server: the recorder of the stock `eventsourcing` PostgreSQL application, in a database of its own (its
settings are searched at the start, and the best three run in each round); and bare rows as in `scripts/bench append`, 1,000
a transaction, over one connection and over two. Then two processes with 64 concurrent commands each on one tenant against
one such process.

The cases take turns for some rounds, because the machine's speed swings: a ratio is formed within each round.

    scripts/bench append_peers [--seconds 2] [--rounds 5]
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import NamedTuple
from uuid import UUID

import psycopg
import uvloop
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import ApplicationRecorder, InfrastructureFactory, StoredEvent
from eventsourcing.utils import Environment
from psycopg import conninfo

from bench import append, server
from bitnexus import database
from ledger import appender, errors, ids
from ledger.waker import Waker

CONCURRENT = 256
FINALISTS = 3
"""Of the stock application's settings: one search may be misled by the machine, so the best few run in each round."""
CONCURRENT_PER_PROCESS = 64
TARGET_TO_STOCK, TARGET_TO_BARE, TARGET_TWO_PROCESSES = 12.0, 0.40, 1.3
WARM_UP_S = 0.3
START_S_MAX = 60.0
TAIL_PAGE = 1_000
TAIL_PAUSE_S = 0.005

STORED = append.STATE + append.METADATA
"""The stock store has no column for metadata: it is put behind the state, so that both write the same bytes."""


class Setting(NamedTuple):
    """Of the stock application: threads that serve the commands, connections of its pool (no overflow), and whether it
    inserts by a function of the database (POSTGRES_ENABLE_DB_FUNCTIONS), which takes no lock on the table."""

    threads: int
    pool_size: int
    functions: bool = False


SETTINGS = (
    Setting(1, 1),
    Setting(4, 2),
    Setting(4, 4),
    Setting(16, 5),
    Setting(16, 16),
    Setting(64, 5),
    Setting(64, 32),
    Setting(256, 5),
    Setting(256, 64),
    # Over one connection notification ids are committed in order, as long as there is no other process.
    Setting(1, 1, functions=True),
    Setting(4, 1, functions=True),
    Setting(256, 1, functions=True),
)
LOSING = (Setting(4, 4, functions=True), Setting(16, 16, functions=True))
"""Over several a reader that tails the events misses those that are committed out of order: not for comparison."""


class Item(Aggregate):
    """For the whole of the stock application: one event with as many bytes as the others."""

    @event("Listed")
    def __init__(self, listed: str) -> None:
        self.listed = listed


# The stock application


def _environment(owner_url: str, pool_size: int, functions: bool) -> dict[str, str]:
    found = {key: str(value) for key, value in conninfo.conninfo_to_dict(owner_url).items()}
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": found["dbname"],
        "POSTGRES_HOST": found.get("host", "localhost"),
        "POSTGRES_PORT": found.get("port", "5432"),
        "POSTGRES_USER": found.get("user", "postgres"),
        "POSTGRES_PASSWORD": found.get("password", ""),
        "POSTGRES_POOL_SIZE": str(pool_size),
        "POSTGRES_MAX_OVERFLOW": "0",
        "POSTGRES_ENABLE_DB_FUNCTIONS": "y" if functions else "n",
    }


@contextmanager
def _recorder(owner_url: str, pool_size: int, functions: bool) -> Iterator[ApplicationRecorder]:
    environment = Environment("bench", _environment(owner_url, pool_size, functions))
    with InfrastructureFactory.construct(environment) as factory:
        yield factory.application_recorder()


def _rate(record: Callable[[], object], threads: int, seconds: float) -> int:
    """Calls a second by so many threads, which begin together; the warm-up is not counted."""
    counts = [0] * threads
    barrier = threading.Barrier(threads + 1)
    begun = 0.0

    def serve(n: int) -> None:
        record()
        barrier.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            record()
            counts[n] += 1

    workers = [threading.Thread(target=serve, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    return round(sum(counts) / (time.perf_counter() - begun))


def _insert_one(recorder: ApplicationRecorder) -> Callable[[], object]:
    return lambda: recorder.insert_events([StoredEvent(ids.new_id(), 1, "product.listed", STORED)])


def _stock(owner_url: str, setting: Setting, seconds: float) -> int:
    with _recorder(owner_url, setting.pool_size, setting.functions) as recorder:
        return _rate(_insert_one(recorder), setting.threads, seconds)


def _lost(owner_url: str, setting: Setting, seconds: float) -> int:
    """How many events a reader that tails them misses meanwhile."""
    with (
        _recorder(owner_url, setting.pool_size, setting.functions) as recorder,
        _recorder(owner_url, 1, functions=False) as tailed,
    ):
        first = (recorder.max_notification_id() or 0) + 1
        stop = threading.Event()
        seen = 0

        def tail() -> None:
            nonlocal seen
            position = first - 1
            while True:
                stopping = stop.is_set()
                page = tailed.select_notifications(position, TAIL_PAGE, inclusive_of_start=False)
                seen += len(page)
                if page:
                    position = page[-1].id or position
                elif stopping:
                    return
                else:
                    time.sleep(TAIL_PAUSE_S)

        reader = threading.Thread(target=tail)
        reader.start()
        _rate(_insert_one(recorder), setting.threads, seconds)
        stop.set()
        reader.join()
    with psycopg.connect(owner_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM public.bench_events WHERE notification_id >= %s", (first,)
        ).fetchone()
    assert row is not None
    return int(row[0]) - seen


def _whole_application(owner_url: str, setting: Setting, seconds: float) -> int:
    """`save` of a new aggregate: the recorder with the package's mapper and transcoder before it."""
    application = Application[UUID](env=_environment(owner_url, setting.pool_size, setting.functions))
    try:
        return _rate(lambda: application.save(Item(STORED.decode())), setting.threads, seconds)
    finally:
        application.close()


# Two processes


class Told(NamedTuple):
    """By one process of its run."""

    events_per_s: float
    appended: int  # the warm-up included
    conflicts: int
    retries: int


def _process(app_url: str, tenant_id: UUID, seconds: float, together: Barrier, told: "Queue[Told]") -> None:
    retries = 0

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal retries
            retries += 1

    logging.getLogger("ledger.appender").addHandler(Counting(logging.WARNING))
    per_s, appended, replayed, conflicts = uvloop.run(_work(app_url, tenant_id, seconds, together))
    told.put(Told(per_s, appended, conflicts, retries + replayed))


async def _work(app_url: str, tenant_id: UUID, seconds: float, together: Barrier) -> tuple[float, int, int, int]:
    """Events a second, events appended in all, commands that were answered as replayed, and refused ones."""
    appends = appender.Appender(database.connector(app_url, "app"), Waker())
    await appends.start()
    appended = replayed = conflicts = 0

    async def client(end: float) -> None:
        nonlocal appended, replayed, conflicts
        while time.perf_counter() < end:
            try:
                answer = await appends.submit(append.command(tenant_id))
            except errors.LedgerError:
                conflicts += 1
            else:
                appended += 1
                replayed += answer.outcome is not None

    async def clients(for_s: float) -> float:
        before, begun = appended, time.perf_counter()
        await asyncio.gather(*(client(begun + for_s) for _ in range(CONCURRENT_PER_PROCESS)))
        return (appended - before) / (time.perf_counter() - begun)

    await clients(WARM_UP_S)
    await asyncio.to_thread(together.wait, START_S_MAX)
    per_s = await clients(seconds)
    await appends.close()
    return per_s, appended, replayed, conflicts


def _processes(app_url: str, tenant_id: UUID, count: int, seconds: float) -> list[Told]:
    context = multiprocessing.get_context("spawn")
    told: Queue[Told] = context.Queue()
    together = context.Barrier(count)
    workers = [
        context.Process(target=_process, args=(app_url, tenant_id, seconds, together, told)) for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    answers = [told.get(timeout=START_S_MAX + seconds * 10) for _ in workers]
    for worker in workers:
        worker.join()
    return answers


# All of them in turns


class Round(NamedTuple):
    """Events a second of each case."""

    ledger: float
    bare_rows: float
    bare_rows_two_connections: float
    stock: float
    one_process: float
    two_processes: float


def _ratios(per_round: Sequence[float], target: float) -> dict[str, object]:
    return {
        "target": target,
        "median": round(statistics.median(per_round), 2),
        "per_round": [round(ratio, 2) for ratio in per_round],
    }


def _rounds(
    urls: server.Urls, stock_url: str, settings: Sequence[Setting], count: int, seconds: float
) -> tuple[list[Round], list[Told]]:
    rounds, told = [], []
    appends = appender.Appender(database.connector(urls.app, "app"), Waker())
    tenant_id, shared_tenant_id = ids.new_id(), ids.new_id()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(_open(urls, appends, [tenant_id, shared_tenant_id]))
        for _ in range(count):
            loop.run(append.measure(appends, [tenant_id], CONCURRENT, WARM_UP_S))
            ledger = loop.run(append.measure(appends, [tenant_id], CONCURRENT, seconds))
            bare = loop.run(append.bare(urls.owner, 1, seconds))
            bare_two = loop.run(append.bare(urls.owner, 2, seconds))
            stock = max(_stock(stock_url, setting, seconds) for setting in settings)
            one = _processes(urls.app, shared_tenant_id, 1, seconds)
            two = _processes(urls.app, shared_tenant_id, 2, seconds)
            two_per_s = sum(each.events_per_s for each in two)
            rounds.append(Round(ledger["events_per_s"], bare, bare_two, stock, one[0].events_per_s, two_per_s))
            told += [*one, *two]
        loop.run(appends.close())
    _check(urls, shared_tenant_id, sum(each.appended for each in told))
    return rounds, told


async def _open(urls: server.Urls, appends: appender.Appender, tenants: Sequence[UUID]) -> None:
    await append.make_bare(urls.owner)
    async with await database.connect(urls.app, "app") as connection:
        for tenant_id in tenants:
            await connection.execute("SELECT ledger.open_stream(%s)", (tenant_id,))
    await appends.start()


def _check(urls: server.Urls, tenant_id: UUID, events: int) -> None:
    """What was acknowledged stands there, once."""
    with database.connect_sync(urls.app, "app") as connection:
        row = connection.execute("SELECT o_position FROM ledger.read_head(%s)", (tenant_id,)).fetchone()
    assert row == (events,), f"{events} events were acknowledged, the head is at {row}"


def _search(stock_url: str, seconds: float) -> tuple[list[Setting], dict[str, object]]:
    found = {setting: _stock(stock_url, setting, seconds) for setting in (*SETTINGS, *LOSING)}
    lost = {setting: _lost(stock_url, setting, seconds) for setting in found if setting.functions}
    best = sorted((each for each in SETTINGS if not lost.get(each)), key=lambda each: -found[each])[:FINALISTS]
    searched = [
        {**each._asdict(), "events_per_s": rate} | ({"lost_by_a_tailing_reader": lost[each]} if each in lost else {})
        for each, rate in found.items()
    ]
    whole = _whole_application(stock_url, best[0], seconds)
    return best, {
        "searched": searched,
        "best": [each._asdict() for each in best],
        "whole_application_events_per_s": whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in each round (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often the cases take turns (default 5)")
    arguments = parser.parse_args()
    machine = server.machine()
    with ExitStack() as stack:
        host = stack.enter_context(server.running())
        urls = stack.enter_context(server.migrated(host))
        stock_url = stack.enter_context(server.empty(host))
        server.require_durable(urls.owner)
        best, stock = _search(stock_url, arguments.seconds)
        rounds, told = _rounds(urls, stock_url, best, arguments.rounds, arguments.seconds)
    result = {
        "benchmark": "append_peers",
        **machine,
        "concurrent_commands": CONCURRENT,
        "events_per_s": {
            case: round(statistics.median(getattr(each, case) for each in rounds)) for case in Round._fields
        },
        "ratios": {
            "to_stock": _ratios([each.ledger / each.stock for each in rounds], TARGET_TO_STOCK),
            "to_bare_rows": _ratios([each.ledger / each.bare_rows for each in rounds], TARGET_TO_BARE),
            "to_bare_rows_two_connections": _ratios(
                [each.ledger / each.bare_rows_two_connections for each in rounds], TARGET_TO_BARE
            ),
            "two_processes_to_one": _ratios(
                [each.two_processes / each.one_process for each in rounds], TARGET_TWO_PROCESSES
            ),
        },
        "two_processes_conflicts": sum(each.conflicts for each in told),
        "two_processes_retries": sum(each.retries for each in told),
        "stock": stock,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
