"""The application on a process's parts, with two tenants: `a`, and `b` whom `a` must never see."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from api.app import create_app
from api.parts import Parts
from bitnexus import database as connections
from commands import privacy, tenants
from ledger import revocations
from ledger.positions import Tokens
from ledger.store import Pool
from ledger.watch import Watch
from projections import catalogue, positions, runner, stream, travel
from projections.rows import Rows
from tests.api import house
from tests.api.house import House, Served
from tests.world import MASTER, World


@pytest.fixture
def _trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as long as in earnest: a machine that does much else must not make a test's session unknown."""
    monkeypatch.setattr(revocations, "TRUST_S", 3 * revocations.TRUST_S)


@pytest_asyncio.fixture
async def parts(world: World, _trusting: None) -> AsyncIterator[Parts]:
    """With projectors at work, and what counts no more watched."""
    connect = connections.projecting_connector(world.database.app_url)
    reached = positions.Reached(connect)
    source = stream.Source(world.ledger.codec, world.ledger.keyring)
    run = runner.Runner(catalogue.VIEWS, connect, source, world.waker, reached)
    await run.start()
    watch = Watch(connections.connector(world.database.app_url, "projector"), world.ledger.revocations)
    await watch.start()
    await tenants.ensure_platform(world.ledger)
    rows = Rows(connections.connector(world.database.app_url, "app"))
    await rows.start()
    async with connections.pool(world.database.app_url, "platform", 2) as platform:
        yield make_parts(world, reached, rows, platform)
    await rows.close()
    await watch.close()
    await run.close()
    await reached.close()


def make_parts(
    world: World, reached: positions.Reached, rows: Rows, platform: Pool, default_tenant: str | None = None
) -> Parts:
    return Parts(
        ledger=world.ledger,
        passwords=world.passwords,
        pool=world.app,
        projector=world.projector,
        platform=platform,
        reached=reached,
        rows=rows,
        travels=travel.Travels(
            connections.travelling_connector(world.database.app_url),
            stream.Source(world.ledger.codec, world.ledger.keyring),
        ),
        waker=world.waker,
        tokens=Tokens(MASTER),
        token_keys=house.keys(),
        default_tenant=default_tenant,
        noted=privacy.noted_nowhere,
        version="1.2.3",
        stopping=asyncio.Event(),
    )


@pytest_asyncio.fixture
async def served(parts: Parts) -> AsyncIterator[Served]:
    app = create_app(parts)
    served = Served(app, parts)
    async with served.client:
        yield served
    await app.state.feed.close()  # its lifespan cannot be used here: a fixture begins and ends in different tasks


@pytest_asyncio.fixture
async def a(world: World, parts: Parts) -> House:
    return await house.build(world, "alpha")


@pytest_asyncio.fixture
async def b(world: World, parts: Parts) -> House:
    return await house.build(world, "beta")
