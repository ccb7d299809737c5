"""Who may read what the process measures, and what requests and feeds leave there."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import prometheus_client
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from api import telemetry
from api.app import create_app
from api.parts import Parts
from tests.api import house
from tests.api.house import House

TOKEN = "sixteen bytes, and some"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def measured(parts: Parts, registry: CollectorRegistry) -> Parts:
    """The parts of a process whose requests are counted in `registry`."""

    async def scrape() -> bytes:
        return prometheus_client.generate_latest(registry)

    return dataclasses.replace(parts, http=telemetry.Http(registry), scrape=scrape)


Asking = Callable[..., httpx.AsyncClient]


@pytest_asyncio.fixture
async def asking(measured: Parts) -> AsyncIterator[Asking]:
    """Makes clients of the application from an address; `metrics_token` is its setting."""
    apps, clients = [], []

    def ask(address: str = "127.0.0.1", metrics_token: str | None = None) -> httpx.AsyncClient:
        app = create_app(dataclasses.replace(measured, metrics_token=metrics_token))
        apps.append(app)
        application: Any = app
        transport = httpx.ASGITransport(application, client=(address, 40_000))
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://api.test"))
        return clients[-1]

    yield ask
    for client in clients:
        await client.aclose()
    for app in apps:
        await app.state.feed.close()


async def test_without_a_token_this_machine_alone_may_scrape(asking: Asking) -> None:
    """On the internet they would tell who the tenants are and how much they sell."""
    answer = await asking().get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "# TYPE bitnexus_http_requests_total counter" in answer.text
    assert (await asking("::1").get("/metrics")).status_code == 200
    refused = await asking("203.0.113.7").get("/metrics")
    assert refused.status_code == 403
    assert "Set BITNEXUS_METRICS_TOKEN" in refused.json()["detail"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
async def test_what_a_proxy_of_this_machine_passes_on_is_not_from_this_machine(asking: Asking, header: str) -> None:
    """The proxy's own address is all that would be seen of a client from elsewhere."""
    assert (await asking().get("/metrics", headers={header: "127.0.0.1"})).status_code == 403


async def test_with_a_token_whoever_knows_it_may_scrape_and_nobody_else(asking: Asking) -> None:
    there, here = asking("203.0.113.7", TOKEN), asking(metrics_token=TOKEN)
    assert (await there.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200
    for headers in ({}, {"Authorization": TOKEN}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = await here.get("/metrics", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), headers


async def test_requests_are_counted_by_template_method_and_status(
    asking: Asking, measured: Parts, registry: CollectorRegistry, a: House
) -> None:
    client = asking()
    product = await a.lists()
    head = (await measured.ledger.head(a.id)).position
    await measured.reached.wait(a.id, ["products"], head, house.PATIENCE_S)
    for _ in range(3):
        assert (await client.get(f"/api/v1/products/{product.id}", headers=a.user.headers)).status_code == 200
    assert (await client.get(f"/api/v1/products/{a.id}", headers=a.user.headers)).status_code == 404
    assert (await client.get("/api/v1/products")).status_code == 401
    template = "/api/v1/products/{product_id}"
    assert counted(registry) == {
        (template, "GET", "200"): 3,
        (template, "GET", "404"): 1,
        ("/api/v1/products", "GET", "401"): 1,
    }
    labels = {"route": template, "method": "GET"}
    assert registry.get_sample_value("bitnexus_http_request_seconds_count", labels) == 4


async def test_nobody_makes_labels_from_outside(asking: Asking, registry: CollectorRegistry) -> None:
    """Each made-up path and method would be a new series, kept for ever here and in Prometheus."""
    client = asking()
    for number in range(50):
        await client.get(f"/nothing/{number}")
        await client.request(f"METHOD{number}", "/health")
    await client.delete("/health")
    assert counted(registry) == {
        ("unmatched", "GET", "404"): 50,
        ("unmatched", "other", "405"): 50,
        ("unmatched", "DELETE", "405"): 1,
    }


async def test_a_feed_is_a_subscriber_while_it_lasts_and_no_slow_request(
    measured: Parts, registry: CollectorRegistry, a: House
) -> None:
    """Its hours as a request's duration would hide every slow request."""
    app = create_app(measured)

    def subscribers() -> float | None:
        return registry.get_sample_value("bitnexus_feed_subscribers", {"kind": "sse"})

    async with house.listening(app, measured) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        async with client.stream("GET", "/api/v1/feed", headers=a.user.headers) as answer:
            assert (answer.status_code, subscribers()) == (200, 1)
            await asyncio.sleep(0.3)
        async with asyncio.timeout(house.PATIENCE_S):
            while subscribers() != 0:  # noqa: ASYNC110  the server tells nobody
                await asyncio.sleep(0.01)
    labels = {"route": "/api/v1/feed", "method": "GET"}
    assert registry.get_sample_value("bitnexus_http_request_seconds_count", labels) == 1
    seconds = registry.get_sample_value("bitnexus_http_request_seconds_sum", labels)
    assert seconds is not None
    assert seconds < 0.3


def counted(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    text = prometheus_client.generate_latest(registry).decode()
    return {
        (sample.labels["route"], sample.labels["method"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "bitnexus_http_requests_total"
    }
