"""One scrape of the served port: true for one process, for several together, and after one was killed."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
import pytest_asyncio
from prometheus_client import mmap_dict
from prometheus_client.parser import text_string_to_metric_families

from bitnexus import counting, process
from bitnexus.installation import Installation
from bitnexus.telemetry import BUSIEST, OTHER, Telemetry
from commands import products
from ledger import ids
from projections import catalogue
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.bitnexus.test_serve import POLL_S, WAIT_S_MAX, children, is_gone, is_well, log_in, serving, until
from tests.world import MASTER, Database, caller

REQUESTS = 300
TEMPLATE = "/api/v1/tenants/{tenant_id}"
Labels = frozenset[tuple[str, str]]


class Scrape:
    def __init__(self, text: str) -> None:
        self.types: dict[str, str] = {}
        self.values: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.types[sample.name] = family.type
                self.values[sample.name, frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, **labels: str) -> float:
        return self.values[f"bitnexus_{name}", frozenset(labels.items())]

    def by(self, name: str, label: str, **others: str) -> dict[str, float]:
        """The values of a metric by one of its labels."""
        found: dict[str, float] = {}
        for (each, labels), value in self.values.items():
            if each == f"bitnexus_{name}" and frozenset(others.items()) <= labels:
                found[dict(labels)[label]] = value
        return found


def scraped(url: str) -> Scrape:
    answer = httpx.get(f"{url}/metrics", trust_env=False, timeout=WAIT_S_MAX)
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


@pytest.fixture
def shop(shop_template: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return shop_template[1]


@pytest.fixture
def bitnexus(shop_database: Database) -> CommandLine:
    return commandline.on(shop_database)


async def asked(url: str, path: str, headers: dict[str, str], times: int) -> Counter[str]:
    """Each on a connection of its own, so that every worker gets some. Pids of those who answered are not told."""
    statuses: Counter[str] = Counter()
    limit = asyncio.Semaphore(8)

    async def one() -> None:
        async with (
            limit,
            httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=WAIT_S_MAX) as client,
        ):
            statuses[str((await client.get(path)).status_code)] += 1

    await asyncio.gather(*(one() for _ in range(times)))
    return statuses


def counted_by(folder: Path, number: int) -> int:
    """Whether a worker has counted requests itself: the files say it, to nobody but this test."""
    return (folder / f"counter_{number}.db").read_bytes().count(TEMPLATE.encode())


def folder_of(pid: int) -> Path:
    """Where the workers of a parent count."""
    (worker, *_) = children(pid)
    (line, *_) = [line for line in Path(f"/proc/{worker}/maps").read_text().splitlines() if "bitnexus-counts-" in line]
    return Path(line.split()[-1]).parent


async def test_one_scrape_of_two_workers_gives_the_sum(bitnexus: CommandLine, shop: dict[str, Any]) -> None:
    """A scrape reaches whichever worker is free: of that one alone it would be half of the truth, and never the same half."""
    with serving(bitnexus, "--workers", 2) as served:
        headers = await asyncio.to_thread(log_in, served.url)
        good = await asked(served.url, f"/api/v1/tenants/{shop['tenant_id']}", headers, REQUESTS)
        bad = await asked(served.url, f"/api/v1/tenants/{shop['tenant_id']}", {}, 50)
        assert (good, bad) == ({"200": REQUESTS}, {"401": 50})
        folder = folder_of(served.process.pid)
        assert [counted_by(folder, number) > 0 for number in (0, 1)] == [True, True]
        found = scraped(served.url)
        assert found.by("http_requests_total", "status", route=TEMPLATE) == {"200": REQUESTS, "401": 50}
        labels = {"route": TEMPLATE, "method": "GET"}
        assert found.value("http_request_seconds_count", **labels) == REQUESTS + 50
        buckets = found.by("http_request_seconds_bucket", "le", **labels)
        assert list(buckets.values()) == sorted(buckets.values())
        assert buckets["+Inf"] == REQUESTS + 50
        assert (found.value("workers"), found.value("worker_starts_total")) == (2, 2)
        assert found.value("append_flush_commands_sum") >= 1  # the log-in
        await asyncio.sleep(1.2)  # what is said of the other worker is a second old
        pools = scraped(served.url)
        assert pools.value("pool_connections", pool="app") >= 2
        assert 2 * 30e6 < pools.value("resident_memory_bytes") < 2 * 500e6
        assert served.stop()[0] == 0
    assert not folder.exists()


async def test_a_killed_worker_takes_back_nothing_and_nothing_is_counted_twice(
    bitnexus: CommandLine, shop: dict[str, Any]
) -> None:
    """A counter that falls is read as a restart of all, and everything since then as new."""
    with serving(bitnexus, "--workers", 2) as served:
        headers = await asyncio.to_thread(log_in, served.url)
        path = f"/api/v1/tenants/{shop['tenant_id']}"
        await asked(served.url, path, headers, REQUESTS)
        before = scraped(served.url)
        victim = children(served.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(children(served.process.pid)) - {victim}) == 2)
        until(lambda: all(is_well(served.url) for _ in range(10)))
        until(lambda: scraped(served.url).value("workers") == 2)
        after = scraped(served.url)
        assert after.value("worker_starts_total") == 3
        assert after.by("http_requests_total", "status", route=TEMPLATE) == {"200": REQUESTS}
        falls = {
            sample: (value, after.values.get(sample))
            for sample, value in before.values.items()
            if before.types[sample[0]] in ("counter", "histogram") and after.values.get(sample, -1.0) < value
        }
        assert falls == {}
        await asked(served.url, path, headers, 40)
        assert scraped(served.url).by("http_requests_total", "status", route=TEMPLATE) == {"200": REQUESTS + 40}


async def test_subscribers_of_a_killed_worker_are_subscribers_no_more(bitnexus: CommandLine) -> None:
    """Each kill would leave some behind for ever."""
    with serving(bitnexus, "--workers", 2) as served:
        headers = await asyncio.to_thread(log_in, served.url)
        folder = folder_of(served.process.pid)
        async with httpx.AsyncClient(
            base_url=served.url, headers=headers, trust_env=False, timeout=WAIT_S_MAX
        ) as client:
            with contextlib.suppress(httpx.RemoteProtocolError):
                async with client.stream("GET", "/api/v1/feed") as feed:
                    assert feed.status_code == 200
                    assert scraped(served.url).value("feed_subscribers", kind="sse") == 1
                    victim = next(pid for pid in children(served.process.pid) if has_subscriber(folder, pid))
                    os.kill(victim, signal.SIGKILL)
                    async for _ in feed.aiter_bytes():
                        pass
        until(lambda: len(set(children(served.process.pid)) - {victim}) == 2)
        until(lambda: scraped(served.url).value("workers") == 2)
        assert scraped(served.url).by("feed_subscribers", "kind").get("sse", 0) == 0


def has_subscriber(folder: Path, pid: int) -> bool:
    (number,) = {
        number for number in (0, 1) if f"{folder}/gauge_livesum_{number}.db" in Path(f"/proc/{pid}/maps").read_text()
    }
    entries = mmap_dict.MmapedDict.read_all_values_from_file(str(folder / f"gauge_livesum_{number}.db"))
    return any("bitnexus_feed_subscribers" in key and value == 1 for key, value, _, _ in entries)


def test_workers_whose_parent_was_killed_leave_no_files_behind(bitnexus: CommandLine) -> None:
    """They lie in memory, which nothing else would give back."""
    with serving(bitnexus, "--workers", 2) as served:
        workers, folder = children(served.process.pid), folder_of(served.process.pid)
        served.process.kill()
        served.process.wait()
        until(lambda: all(is_gone(pid) for pid in workers))
    assert not folder.exists()


def test_no_room_to_count_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later it would end a worker amidst a request."""
    monkeypatch.setattr(counting, "MEMORY", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with counting.folder(2) as folder:
        assert folder.parent == tmp_path
        assert {path.name: path.stat().st_blocks * 512 >= path.stat().st_size > 0 for path in folder.iterdir()} == {
            f"{kind}_{number}.db": True for kind in counting.BYTES for number in (0, 1)
        }
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(counting, "BYTES", {"counter": 1 << 62})
    with pytest.raises(counting.NowhereToCount, match=r"no room .*\. Make room there"), counting.folder(1):
        pass


# Lag


def test_lag_grows_by_real_time_while_nothing_is_projected(
    bitnexus: CommandLine, shop: dict[str, Any], shop_database: Database
) -> None:
    """An alarm on it has to ring whatever the reason, and however few events wait."""
    tenant = shop["tenant_id"]
    with serving(bitnexus) as served, psycopg.connect(shop_database.owner_url) as owner:
        headers = log_in(served.url)
        until(lambda: scraped(served.url).value("view_lag_events", view="products", tenant=tenant) == 0)
        owner.execute("LOCK TABLE views.positions IN EXCLUSIVE MODE")  # no projector comes further
        for number in range(3):
            body = {"sku": f"S{number}", "name": "Mug", "price": "1.00"}
            answer = httpx.post(
                f"{served.url}/api/v1/products", json=body, headers=headers, trust_env=False, timeout=WAIT_S_MAX
            )
            assert answer.status_code == 201, answer.text
            time.sleep(0.4)
        begun, first = time.monotonic(), scraped(served.url)
        assert first.value("view_lag_events", view="products", tenant=tenant) == 3
        time.sleep(2.0)
        passed_s, second = time.monotonic() - begun, scraped(served.url)
        for view in ("products", "sales"):
            older, newer = (each.value("view_lag_seconds", view=view, tenant=tenant) for each in (first, second))
            assert 1.1 < older < newer  # the first of the three is meant
            assert abs(newer - older - passed_s) < 0.5
        owner.rollback()
        until(lambda: scraped(served.url).value("view_lag_events", view="products", tenant=tenant) == 0)
        third = scraped(served.url)
        assert third.value("view_lag_seconds", view="products", tenant=tenant) == 0
        assert third.value("view_events_per_second", view="products", tenant=tenant) > 0
        assert third.value("projected_events_total", view="products") >= 3


def test_a_poisoned_stream_shows_as_parked(
    bitnexus: CommandLine, shop: dict[str, Any], shop_database: Database
) -> None:
    with psycopg.connect(shop_database.owner_url, autocommit=True) as owner, serving(bitnexus) as served:
        headers = log_in(served.url)
        owner.execute("ALTER TABLE views.products ADD CONSTRAINT poison CHECK (sku <> 'POISON')")
        for sku in ("GOOD", "POISON", "FINE"):
            body = {"sku": sku, "name": "Mug", "price": "1.00"}
            answer = httpx.post(
                f"{served.url}/api/v1/products", json=body, headers=headers, trust_env=False, timeout=WAIT_S_MAX
            )
            assert answer.status_code == 201, answer.text
        labels = {"view": "products", "tenant": shop["tenant_id"]}
        until(lambda: scraped(served.url).value("view_parked_originators", **labels) == 1)
        found = scraped(served.url)
        assert found.value("view_stopped", **labels) == 0
        assert found.by("view_parked_originators", "view", tenant=shop["tenant_id"]) == {
            view.name: int(view.name == "products") for view in catalogue.VIEWS
        }


@contextlib.asynccontextmanager
async def watched(database: Database) -> AsyncIterator[tuple[process.Process, Telemetry]]:
    """A process that does not project."""
    telemetry = Telemetry()
    installation = Installation(database.app_url, MASTER)
    async with (
        process.running(installation, projecting=False, appends=telemetry.appends) as parts,
        telemetry.watching(parts),
    ):
        yield parts, telemetry


@pytest_asyncio.fixture
async def alone(database: Database) -> AsyncIterator[tuple[process.Process, Telemetry]]:
    async with watched(database) as made:
        yield made


async def test_tenants_beyond_the_busiest_share_one_label(
    alone: tuple[process.Process, Telemetry], database: Database
) -> None:
    """With a label for each of ten thousand tenants nobody could scrape any more."""
    parts, telemetry = alone
    tenants = [UUID(int=number) for number in range(1, 121)]
    async with await psycopg.AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
        for events, tenant in enumerate(tenants, start=1):
            await parts.ledger.open_stream(tenant)
            await owner.execute("UPDATE ledger.heads SET position = %s WHERE tenant_id = %s", (events, tenant))
    found = Scrape((await telemetry.scrape()).decode())
    for view in ("products", "transactions", "refunds", "sales"):
        lag = found.by("view_lag_events", "tenant", view=view)
        assert lag == {OTHER: sum(range(1, 21))} | {str(tenant): tenant.int for tenant in tenants[20:]}
        for name in ("lag_seconds", "parked_originators", "stopped", "events_per_second"):
            assert set(found.by(f"view_{name}", "tenant", view=view)) == set(lag)
    assert len(tenants[20:]) == BUSIEST


async def test_flushes_and_what_they_refuse_are_counted(shop: dict[str, Any], shop_database: Database) -> None:
    tenant_id = UUID(shop["tenant_id"])
    command = products.ListProduct(sku="MUG", name="Mug", price=Decimal("9.50"))
    async with watched(shop_database) as (parts, telemetry):
        await products.list_product(command, caller(tenant_id), parts.ledger)
        with pytest.raises(products.SkuTaken):
            await products.list_product(command, caller(tenant_id), parts.ledger)
        found = Scrape((await telemetry.scrape()).decode())
    assert found.by("append_refusals_total", "reason") == {"ReservationTaken": 1}
    assert found.value("append_flush_commands_sum") == found.value("append_flush_seconds_count") == 2
    assert 0 < found.value("append_flush_seconds_sum") < WAIT_S_MAX


async def test_sizes_are_looked_at_again_and_again(alone: tuple[process.Process, Telemetry]) -> None:
    """Of the worker that is not scraped nothing else would be known."""
    parts, telemetry = alone
    waits = asyncio.create_task(parts.reached.wait(ids.new_id(), ["sales"], 1, WAIT_S_MAX))
    async with asyncio.timeout(WAIT_S_MAX):
        while telemetry._registry.get_sample_value("bitnexus_view_waiters") != 1:  # noqa: ASYNC110  as a file would be read
            await asyncio.sleep(POLL_S)
    waits.cancel()


async def test_a_lost_database_leaves_the_other_metrics(alone: tuple[process.Process, Telemetry]) -> None:
    """They are what one looks at then."""
    parts, telemetry = alone
    assert Scrape((await telemetry.scrape()).decode()).value("view_lag_known") == 1
    await parts.projector.close()
    found = Scrape((await telemetry.scrape()).decode())
    assert (found.value("view_lag_known"), found.value("workers")) == (0, 1)
    assert found.by("view_lag_events", "tenant") == {}
