"""What a process measures, and what a scrape of it says: of this process alone, or of all workers together.

Each part of the program declares and moves its own metrics; those that nobody moves (sizes, times of the processor) are looked
at here, before each scrape, and where workers count together also once a second, for scrapes of another one. How far the views
are is asked of the database: it is the same whoever asks. docs/metrics.md says what each metric means.
"""

import asyncio
import logging
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import prometheus_client
import psycopg
import psycopg_pool
from prometheus_client import CollectorRegistry, Counter, Gauge, multiprocess, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api import telemetry as api_telemetry
from bitnexus.counting import Slot
from bitnexus.process import Process
from ledger import telemetry as ledger_telemetry
from ledger.store import Pool
from projections import catalogue, cross_tenant

LOOK_S = 1.0
"""So old may be what is said of another worker's sizes."""
BUSIEST = 100
"""Tenants that are told apart. Each is twenty series: five of each view."""
OTHER = "other"
"""The label of all other tenants."""
LAG_S_MAX = 3.0
"""How long a scrape waits for the database; Prometheus gives up after 10 s, and what does not need the database is told too."""

prometheus_client.disable_created_metrics()  # one more series for each, which workers do not have

_log = logging.getLogger(__name__)


class Telemetry:
    """One a process. Touched by the event loop's thread only."""

    def __init__(self, slot: Slot | None = None) -> None:
        """`slot`: where this worker counts; then nothing else of the process may have made a metric before."""
        if slot is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(slot.folder)
            values.ValueClass = values.MultiProcessValue(lambda: slot.number)
        self._slot = slot
        self._registry = CollectorRegistry()
        self.appends = ledger_telemetry.Appends(self._registry)
        self.http = api_telemetry.Http(self._registry)
        self._sizes = _Sizes(self._registry)
        self._parts: Process | None = None
        self._pools: tuple[Pool, ...] = ()
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def watching(self, parts: Process, *pools: Pool) -> AsyncIterator[None]:
        """Looks at the sizes of a process's parts, and of other pools that it has, while it lasts."""
        self._parts = parts
        self._pools = (parts.app, parts.projector, parts.platform, *pools)
        task = asyncio.create_task(self._watch(parts), name="telemetry")
        try:
            yield
        finally:
            self._parts = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def scrape(self) -> bytes:
        """Everything, in Prometheus's text format 0.0.4."""
        async with self._one_at_a_time:  # as much of the database and of the processor as one scraper needs, not more
            lags: list[cross_tenant.LagOfBusiest] | None = None
            if self._parts is not None:
                self._sizes.look(self._parts, self._pools)
                lags = await _lags(self._parts)
            return await asyncio.to_thread(self._told, _Lags(lags))

    def _told(self, lags: "_Lags") -> bytes:
        told = CollectorRegistry()
        told.register(lags)
        if self._slot is None:
            told.register(self._registry)
        else:
            multiprocess.MultiProcessCollector(told, str(self._slot.folder))
        return prometheus_client.generate_latest(told)

    async def _watch(self, parts: Process) -> None:
        while True:
            try:
                self._sizes.look(parts, self._pools)
            except Exception:  # noqa: BLE001  the edge of a supervised task
                _log.exception("The process could not be measured, trying again")
            await asyncio.sleep(LOOK_S)


class _Sizes:
    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"bitnexus_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"bitnexus_{name}", text, labels, registry=registry)

        gauge("workers", "Processes that serve, or only project.").set(1)
        counter("worker_starts", "Starts of such processes.").inc()
        self._memory = gauge("resident_memory_bytes", "Memory of these processes.")
        self._cpu = _Followed(counter("cpu_seconds", "Time of the processor that they used."))
        self._queued = gauge("append_queue_commands", "Accepted commands that wait for a flush.")
        self._queued_bytes = gauge("append_queue_bytes", "What they hold, about.")
        self._connections = gauge("pool_connections", "Connections of a pool.", ["pool"])
        self._idle = gauge("pool_idle", "Connections of a pool that nobody uses.", ["pool"])
        self._waiting = gauge("pool_waiting", "Requests that wait for a connection of a pool.", ["pool"])
        self._view_waiters = gauge("view_waiters", "Queries that wait until their views reach their X-Position.")
        self._leases = gauge("projector_leases", "Leases that they hold, of 256 for each view.")
        projected = counter("projected_events", "Events that were read for a view and are in it now.", ["view"])
        self._projected = {view.name: _Followed(projected.labels(view.name)) for view in catalogue.VIEWS}

    def look(self, parts: Process, pools: Sequence[Pool]) -> None:
        self._memory.set(_resident_bytes())
        self._cpu.at(time.process_time())
        self._queued.set(parts.appender.waiting)
        self._queued_bytes.set(parts.appender.waiting_bytes)
        for pool in pools:
            stats = pool.get_stats()
            self._connections.labels(pool.name).set(stats["pool_size"])
            self._idle.labels(pool.name).set(stats["pool_available"])
            self._waiting.labels(pool.name).set(stats["requests_waiting"])
        self._view_waiters.set(parts.reached.waiting)
        self._leases.set(parts.runner.leases)
        for state in parts.runner.state():
            self._projected[state.view].at(state.events)


class _Followed:
    """A counter that follows a number of this process that only grows; of an earlier process it goes on."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._last = 0.0

    def at(self, now: float) -> None:
        self._counter.inc(now - self._last)
        self._last = now


async def _lags(parts: Process) -> list[cross_tenant.LagOfBusiest] | None:
    """None if the database does not tell."""
    try:
        async with asyncio.timeout(LAG_S_MAX), parts.projector.connection() as connection:
            return await cross_tenant.lag_of_busiest(connection, [view.name for view in catalogue.VIEWS], BUSIEST)
    except (TimeoutError, psycopg.Error, psycopg_pool.PoolTimeout) as error:
        _log.warning("A scrape was not told how far the views are: %s", str(error).strip() or type(error).__name__)
        return None


class _Lags(Collector):
    """As they were when it was made."""

    def __init__(self, lags: Sequence[cross_tenant.LagOfBusiest] | None) -> None:
        self._lags = lags

    def collect(self) -> Iterator[Metric]:
        known = self._lags is not None
        yield GaugeMetricFamily("bitnexus_view_lag_known", "1 if the database said how far the views are.", value=known)

        def family(name: str, text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"bitnexus_view_{name}", text, labels=("view", "tenant"))

        events = family("lag_events", "Events of the tenant's stream that the view has not reached.")
        seconds = family("lag_seconds", "Age of the oldest event that the view has not reached, 0 if there is none.")
        parked = family("parked_originators", "Aggregates whose events are parked, as the view cannot digest them.")
        stopped = family("stopped", "Tenants whose view stands still until a person acts.")
        rate = family("events_per_second", "Events that reach the view, a mean that fades within 10 s.")
        for lag in self._lags or ():
            labels = (lag.view, OTHER if lag.tenant_id is None else str(lag.tenant_id))
            events.add_metric(labels, lag.behind)
            seconds.add_metric(labels, lag.seconds_behind)
            parked.add_metric(labels, lag.parked)
            stopped.add_metric(labels, lag.stopped)
            rate.add_metric(labels, lag.rate)
        yield from (events, seconds, parked, stopped, rate)


def _resident_bytes() -> int:
    """Now; where that is not told, the most that there was."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS: bytes
    return pages * resource.getpagesize()
