"""A limit of `serve --workers 2` is one limit, not two."""

import asyncio
import time
from typing import Any

import httpx

from api.rates import RECONCILE_S
from bitnexus.reconciling import HEARTBEAT_S
from tests.bitnexus import commandline, test_serve
from tests.world import Database

QUOTA, WINDOW_S = 300, 60
CONNECTIONS = 20


async def _asks(url: str, headers: dict[str, str], times: int) -> list[int]:
    """Each on a connection of its own, so that both workers get some."""
    async with httpx.AsyncClient(base_url=url, headers={**headers, "Connection": "close"}, trust_env=False) as client:

        async def ask(turns: int) -> list[int]:
            return [(await client.get("/api/v1/products")).status_code for _ in range(turns)]

        found = await asyncio.gather(*[ask(times // CONNECTIONS) for _ in range(CONNECTIONS)])
    return [status for each in found for status in each]


def test_two_workers_let_pass_what_one_limit_allows(database: Database) -> None:
    """And at most limit × processes × 0.2 s more: else each node would be a quota more."""
    environment: dict[str, Any] = {"BITNEXUS_RATE_USER": f"{QUOTA}/{WINDOW_S}", "BITNEXUS_RATE_ADDRESS": "off"}
    bitnexus = commandline.on(database, **environment)
    commandline.create_shop(bitnexus)
    with test_serve.serving(bitnexus, "--workers", 2) as served:
        headers = test_serve.log_in(served.url)
        time.sleep(2 * HEARTBEAT_S)  # each process knows of the other
        begun = time.monotonic()
        statuses = asyncio.run(_asks(served.url, headers, 2 * QUOTA))
        while len(statuses) < 5 * QUOTA and 200 in statuses[-2 * CONNECTIONS :]:  # until nothing passes any more
            statuses += asyncio.run(_asks(served.url, headers, 2 * CONNECTIONS))
        lasted_s = time.monotonic() - begun
    assert set(statuses) == {200, 429}
    assert QUOTA * 0.95 <= statuses.count(200) <= QUOTA + (lasted_s + 2 * RECONCILE_S) * QUOTA / WINDOW_S
