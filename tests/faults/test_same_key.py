"""One Idempotency-Key in two processes at once, with the same request and with different ones: one is done, and nobody is misled."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.bitnexus import commandline
from tests.faults.site import Site
from tests.world import Database

ROUNDS = 40
BODIES = 3  # of each key; each is sent to both processes


async def tokens(client: httpx.AsyncClient, url: str) -> dict[str, str]:
    body = {"email": "admin@shop.example", "password": "correct horse", "tenant": "shop"}
    answer = await client.post(f"{url}/api/v1/auth/login", json=body)
    return {"Authorization": f"Bearer {answer.json()['data']['access_token']}"}


async def test_of_different_requests_under_one_key_in_two_processes_one_is_done(
    shop_database: Database, tmp_path: Path
) -> None:
    bitnexus = commandline.on(shop_database, BITNEXUS_DATA_DIR=str(tmp_path))
    done: dict[str, int] = {}
    async with (
        Site(bitnexus, tmp_path / "one.log") as one,
        Site(bitnexus, tmp_path / "two.log") as two,
        httpx.AsyncClient(timeout=30.0) as client,
    ):
        headers = await tokens(client, one.url)

        async def lists(url: str, key: str, name: str) -> tuple[str, httpx.Response]:
            body: dict[str, Any] = {"sku": f"{key}-{name}", "name": name, "price": "1.00"}
            asked = {**headers, "Idempotency-Key": key}
            return name, await client.post(f"{url}/api/v1/products", json=body, headers=asked)

        for number in range(ROUNDS):
            key = f"key-{number}"
            asked = [lists(site.url, key, str(name)) for name in range(BODIES) for site in (one, two)]
            answers = await asyncio.gather(*asked)
            made = {(name, answer.json()["data"]["id"]) for name, answer in answers if answer.status_code == 201}
            assert len(made) == 1, made
            ((winner, product_id),) = made
            for name, answer in answers:
                done[str(answer.status_code)] = done.get(str(answer.status_code), 0) + 1
                if answer.status_code != 201:
                    expected = ("in-flight",) if name == winner else ("in-flight", "idempotency-key-reused")
                    assert answer.json()["type"].rpartition(":")[2] in expected, answer.text
            for site in (one, two):
                for name in map(str, range(BODIES)):
                    _, again = await lists(site.url, key, name)
                    assert again.status_code == (201 if name == winner else 422), again.text
                    assert name != winner or again.json()["data"]["id"] == product_id
    with psycopg.connect(shop_database.owner_url) as owner:
        listed = owner.execute("SELECT count(*) FROM ledger.events WHERE topic = 'product.listed'").fetchone()
    print(f"{ROUNDS} keys, {2 * BODIES} requests each in two processes: {done}, {listed} products")
    assert listed == (ROUNDS,)
    assert done.get("422", 0) > 0
