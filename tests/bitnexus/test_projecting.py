"""`bitnexus project` as whoever watches it sees it: a process of its own, which tells what it does if it is given a port."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from bitnexus.telemetry import Telemetry
from projections import catalogue, leases
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.bitnexus.test_serve import WAIT_S_MAX, Served, until
from tests.bitnexus.test_telemetry import Scrape
from tests.world import Database

TOKEN = "scrapers-know-this-one-only"


class Projecting(Served):
    """A running `bitnexus project`."""

    def __init__(self, process: Any) -> None:
        super().__init__(process, "metrics")

    def asks(self, path: str = "/metrics", **headers: str) -> httpx.Response:
        url = self.url.removesuffix("/metrics") + path
        return httpx.get(url, headers=headers, trust_env=False, timeout=WAIT_S_MAX)

    def scraped(self) -> Scrape:
        answer = self.asks()
        assert answer.status_code == 200, answer.text
        return Scrape(answer.text)

    def lags(self) -> list[float]:
        """In events, of each view and tenant."""
        return [value for (name, _), value in self.scraped().values.items() if name == "bitnexus_view_lag_events"]


@contextmanager
def projecting(bitnexus: CommandLine, *words: object) -> Iterator[Projecting]:
    process = bitnexus.start("project", "--json", "--metrics-port", "0", *words)
    try:
        yield Projecting(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S_MAX)


def head(database: Database) -> int:
    """Of the one tenant that has sales."""
    with psycopg.connect(database.owner_url) as owner:
        ((found,),) = owner.execute("SELECT max(position) FROM ledger.heads").fetchall()
    return int(found)


def test_a_process_that_only_projects_tells_what_it_does(sold_database: Database) -> None:
    """Beside `serve` it is the one that falls behind, runs out of memory or holds too many connections."""
    views = [view.name for view in catalogue.VIEWS]
    with projecting(commandline.on(sold_database)) as projector:
        assert projector.url.startswith("http://127.0.0.1:")
        until(lambda: projector.scraped().value("projector_leases") == leases.BUCKETS * len(views))
        until(lambda: set(projector.lags()) == {0})
        found = projector.scraped()
        projected = found.by("projected_events_total", "view")
        assert projected.keys() == set(views)
        assert min(projected.values()) >= head(sold_database) > 1_000
        assert found.value("view_lag_known") == 1
        assert set(found.by("view_lag_seconds", "view")) == set(views)
        assert set(found.by("pool_connections", "pool")) == {"app", "projector", "platform"}
        assert 30e6 < found.value("resident_memory_bytes") < 500e6
        assert found.value("cpu_seconds_total") > 0
        assert (found.value("workers"), found.value("worker_starts_total")) == (1, 1)
        served = {family.name for family in Telemetry()._registry.collect()}
        text = projector.asks().text
        assert {name for name in served if f"# TYPE {name}" not in text} == set()  # as `serve` names them
        with httpx.Client(trust_env=False) as kept:  # a scraper's connection, kept open, is not waited for
            assert kept.get(projector.url).status_code == 200
            code, said = projector.stop()
    assert (code, "Traceback" in said) == (0, False), said


def test_a_projectors_port_tells_metrics_and_nothing_else(shop_database: Database) -> None:
    with projecting(commandline.on(shop_database)) as projector:
        for path in ("/", "/health", "/api/v1/transactions", "/metrics/x"):
            answer = projector.asks(path)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
        refused = projector.asks("/metrics", **{"X-Forwarded-For": "127.0.0.1"})
        assert (refused.status_code, "BITNEXUS_METRICS_TOKEN" in refused.json()["detail"]) == (403, True)


def test_a_projectors_metrics_ask_for_the_token_of_scrapers(shop_database: Database) -> None:
    """It has a port on every address where Prometheus runs on another machine."""
    bitnexus = commandline.on(shop_database, BITNEXUS_METRICS_TOKEN=TOKEN)
    with projecting(bitnexus, "--metrics-host", "0.0.0.0") as projector:
        refused = projector.asks()
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert projector.asks(Authorization="Bearer wrong").status_code == 401
        told = projector.asks(Authorization=f"Bearer {TOKEN}")
        assert (told.status_code, told.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


@pytest.mark.parametrize("words", [[], ["--metrics-host", "no.such.host.example"]])
def test_a_port_that_is_not_to_be_had_is_said_before_anything_starts(shop_database: Database, words: list[str]) -> None:
    bitnexus = commandline.on(shop_database)
    with projecting(bitnexus) as first:
        taken = first.url.removesuffix("/metrics").rpartition(":")[2]
        run = bitnexus("project", "--metrics-port", taken, *words)
    assert run.code == 2
    assert "Give --metrics-host" in run.err if words else "give another --metrics-port" in run.err
