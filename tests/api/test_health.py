"""What a balancer and an operator ask."""

import asyncio
import dataclasses

import pytest

from api import health
from api.app import create_app
from bitnexus import database as connections
from ledger.revocations import Revocations
from tests.api.house import Served


async def test_a_process_with_its_database_is_healthy_and_ready(served: Served) -> None:
    answer = await served.client.get("/health")
    assert answer.status_code == 200
    timestamp = answer.json().pop("timestamp")
    assert timestamp.endswith("Z")
    assert answer.json() == {
        "status": "healthy",
        "timestamp": timestamp,
        "database": "connected",
        "version": "1.2.3",
    }
    ready = await served.client.get("/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "waiting_for": []})


async def test_without_its_database_it_is_neither(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DATABASE_ANSWERS_S_MAX", 0.2)
    pool = connections.pool("postgresql://nobody@127.0.0.1:1/none", "app", 1)
    await pool.open()
    app = create_app(dataclasses.replace(served.parts, pool=pool))
    async with Served(app, served.parts).client as client:
        answer = await client.get("/health")
        ready = await client.get("/ready")
    await pool.close()
    await app.state.feed.close()
    assert (answer.status_code, answer.json()["status"], answer.json()["database"]) == (
        503,
        "unhealthy",
        "disconnected",
    )
    assert ready.status_code == 503


async def test_however_many_ask_the_database_is_asked_once_a_second(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody could take all connections of the pool by asking how the process is."""
    asked, ask = [], health.Database._ask

    async def counted(database: health.Database) -> bool:
        asked.append(database)
        return await ask(database)

    monkeypatch.setattr(health.Database, "_ask", counted)
    answers = await asyncio.gather(*(served.client.get(path) for path in ("/health", "/ready") * 20))
    assert {answer.status_code for answer in answers} == {200}
    assert len(asked) == 1
    monkeypatch.setattr(health, "ANSWER_SHARED_S", 0.0)
    assert (await served.client.get("/health")).status_code == 200
    assert len(asked) == 2


async def test_a_process_that_does_not_know_who_logged_out_gets_no_requests(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would answer 503 to all of them, while another one may know."""
    monkeypatch.setattr(Revocations, "is_known", lambda _: False)
    ready = await served.client.get("/ready")
    assert (ready.status_code, ready.json()["waiting_for"]) == (503, ["Which sessions have ended is not known."])


async def test_a_process_that_waits_or_stops_gets_no_requests(served: Served) -> None:
    waiting = dataclasses.replace(served.parts, not_ready=lambda: ["The projector products has not begun."])
    app = create_app(waiting)
    async with Served(app, waiting).client as client:
        assert (await client.get("/ready")).json() == {
            "status": "not ready",
            "waiting_for": ["The projector products has not begun."],
        }
    await app.state.feed.close()
    served.parts.stopping.set()
    assert (await served.client.get("/ready")).status_code == 503
