"""The cache of resources: never older than the view, of nobody else, with nothing of a person in it, and bounded."""

import asyncio
import base64
import dataclasses
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from api import kept
from api.app import create_app
from bitnexus import database as connections
from commands import tenants
from ledger.watch import Watch
from projections import rows
from projections.positions import Reached
from tests.api.conftest import make_parts
from tests.api.house import House, Served, build
from tests.world import World


async def test_what_is_kept_is_what_a_process_without_a_cache_answers(served: Served, a: House) -> None:
    """Over changes of all kinds, to everybody who may see it and to nobody else."""
    without = Served(create_app(dataclasses.replace(served.parts, kept=kept.Kept(0))), served.parts)
    product = await a.lists()
    sale = await a.sells(product, 5, buyer=a.user, affiliate=a.affiliate)
    refund = await a.refunds(sale, 1)
    await served.views_reach(a)
    pages = ["/transactions", "/transactions?limit=1"]
    paths = [f"/products/{product.id}", f"/transactions/{sale.id}", f"/refunds/{refund.id}", *pages]
    async with without.client:
        for change in range(5):
            for path in reversed(paths) if change == 2 else paths:  # either may be the first to meet a refund's change
                for person in (a.admin, a.user, a.affiliate, a.admin):
                    for _ in range(2):
                        cached, fresh = await served.get(person, path), await without.get(person, path)
                        assert (cached.status_code, cached.content) == (200, fresh.content)
                        assert cached.headers["ETag"] == fresh.headers["ETag"]
            await a.refunds(sale, 1) if change % 2 else await served.ask(
                a.admin, "PATCH", f"/products/{product.id}", json={"name": f"Mug {change}"}
            )
            await served.views_reach(a)
    assert len(served.parts.kept) == 3


async def test_the_cache_is_no_way_to_what_others_have(served: Served, a: House, b: House) -> None:
    sale = await a.sells(await a.lists(), buyer=a.user)
    await served.views_reach(a)
    path = f"/transactions/{sale.id}"
    for person, status in ((a.admin, 200), (a.affiliate, 404), (b.admin, 404), (b.user, 404), (a.user, 200)):
        assert (await served.get(person, path)).status_code == status


async def test_nothing_of_a_person_is_ever_in_the_cache(served: Served, a: House) -> None:
    """So an erasure has nothing to look for in it, and no process holds more than it may when its database is away."""
    await a.lists()
    body = {"lines": [{"sku": "MUG", "quantity": 1}], "buyer_ref": "a-reference-that-is-personal"}
    path = f"/transactions/{(await served.post(a.admin, '/transactions', body)).json()['data']['id']}"
    await served.views_reach(a)
    for _ in range(2):
        assert (await served.get(a.admin, "/transactions")).json()["data"][0]["buyer_ref"] == body["buyer_ref"]
        assert (await served.get(a.admin, path)).json()["data"]["buyer_ref"] == body["buyer_ref"]
    assert len(served.parts.kept) == 1
    assert "personal" not in repr(vars(served.parts.kept))
    assert (await served.post(a.admin, "/buyers/erasure", {"buyer_ref": body["buyer_ref"]})).status_code == 200
    await served.views_reach(a)
    assert (await served.get(a.admin, path)).json()["data"]["buyer_ref"] == "[erased]"
    assert (await served.get(a.admin, "/transactions")).json()["data"][0]["buyer_ref"] == "[erased]"


def rendered(length: int) -> kept.Rendered:
    return kept.Rendered(rows.Stamp(1, b"\0\0\0\1", 1), [b"x" * length], None)


def test_the_bytes_are_bounded_and_the_least_recently_used_go_first() -> None:
    cache = kept.Kept(bytes_max=10_000)
    keys = [kept.key("products", UUID(int=1), n) for n in range(50)]
    for key in keys:
        cache.put(key, rendered(400))
        cache.get(keys[0])
        assert cache.bytes <= 10_000
    assert len(cache) == 10
    assert cache.get(keys[0]) is not None
    assert cache.get(keys[-1]) is not None
    assert cache.get(keys[1]) is None
    cache.put(keys[0], rendered(kept.BODY_BYTES_MAX + 1))
    assert cache.get(keys[0]) is None
    for key in keys:
        cache.drop(key)
    assert (len(cache), cache.bytes) == (0, 0)


@asynccontextmanager
async def projecting_elsewhere(owner_url: str, folder: Path) -> AsyncIterator[None]:
    """Another process keeps the views up, as `bitnexus project` does."""
    environment = {
        **os.environ,
        "DATABASE_URL": owner_url,
        "BITNEXUS_MASTER_KEY": base64.b64encode(bytes(range(32))).decode(),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bitnexus", "project", "--data-dir", str(folder)),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_an_answer_from_the_cache_is_never_older_than_the_view_that_another_process_projects(
    world: World, tmp_path: Path
) -> None:
    """This process hears nothing of what the other one does. Before each request the view is read by somebody else."""
    reached = Reached(connections.connector(world.database.app_url, "projector"))
    found = rows.Rows(connections.connector(world.database.app_url, "app"))
    await found.start()
    watch = Watch(connections.connector(world.database.app_url, "projector"), world.ledger.revocations)
    await watch.start()
    parts = make_parts(world, reached, found, world.app)
    app = create_app(parts)
    served = Served(app, parts)
    await tenants.ensure_platform(world.ledger)
    house = await build(world, "alpha")
    product = await house.lists()
    sales = [await house.sells(product, 200) for _ in range(3)]
    async with served.client, projecting_elsewhere(world.database.owner_url, tmp_path):
        await served.views_reach(house)
        done = asyncio.Event()

        async def keeps_refunding() -> None:
            for n in range(150):
                await house.refunds(sales[n % 3], 1)
                await asyncio.sleep(0.01)
            done.set()

        task = asyncio.create_task(keeps_refunding())
        seen: dict[UUID, set[int]] = {sale.id: set() for sale in sales}
        while not done.is_set():
            sale = random.choice(sales)
            position, refunded = await in_view(world, house.id, sale.id)
            answer = await served.get(house.admin, f"/transactions/{sale.id}")
            data = answer.json()["data"]
            assert data["position"] >= position
            assert Decimal(data["refunded"]) * 100 >= refunded
            assert data["lines"][0]["refunded_quantity"] * 900 == Decimal(data["refunded"]) * 100
            assert int(answer.headers["X-Position"]) >= position
            seen[sale.id].add(position)
        await task
    assert all(len(positions) > 5 for positions in seen.values())  # the view did move meanwhile
    assert len(parts.kept) == 3
    await app.state.feed.close()
    await watch.close()
    await found.close()
    await reached.close()


async def in_view(world: World, tenant_id: UUID, sale_id: UUID) -> tuple[int, int]:
    """The position of a sale's row, and what was refunded, in cents."""
    query = "SELECT position, refunded_minor FROM views.transactions WHERE tenant_id = %s AND transaction_id = %s"
    async with world.projector.connection() as connection:
        row = await (await connection.execute(query, (tenant_id, sale_id))).fetchone()
    assert row is not None
    return row[0], row[1]
