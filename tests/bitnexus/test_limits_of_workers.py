"""A limit of `serve --workers 2` is one limit, not two."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from api.rates import RECONCILE_S, REPORTED_S
from bitnexus.reconciling import HEARTBEAT_S
from tests.bitnexus import commandline, test_serve
from tests.world import Database

QUOTA, WINDOW_S = 300, 60
CONNECTIONS = 20


async def _asks(url: str, headers: dict[str, str], times: int, connections: int = CONNECTIONS) -> list[int]:
    """Each on a connection of its own, so that both workers get some; on a single one, one of them gets all."""
    kept = {} if connections == 1 else {"Connection": "close"}
    async with httpx.AsyncClient(
        base_url=url, headers={**headers, **kept}, trust_env=False, timeout=test_serve.WAIT_S_MAX
    ) as client:

        async def ask(turns: int) -> list[int]:
            return [(await client.get("/api/v1/products")).status_code for _ in range(turns)]

        found = await asyncio.gather(*[ask(times // connections) for _ in range(connections)])
    return [status for each in found for status in each]


@pytest.mark.parametrize("connections", [CONNECTIONS, 1])
def test_two_workers_let_pass_what_one_limit_allows(database: Database, connections: int) -> None:
    """And at most limit × processes × 0.2 s more: else each node would be a quota more. Also where one of them has seen nothing of a
    caller who spent all of it at the other."""
    environment: dict[str, Any] = {"BITNEXUS_RATE_USER": f"{QUOTA}/{WINDOW_S}", "BITNEXUS_RATE_ADDRESS": "off"}
    bitnexus = commandline.on(database, **environment)
    commandline.create_shop(bitnexus)
    with test_serve.serving(bitnexus, "--workers", 2) as served:
        headers = test_serve.log_in(served.url)
        time.sleep(2 * HEARTBEAT_S)  # each process knows of the other
        begun = time.monotonic()
        statuses = asyncio.run(_asks(served.url, headers, 2 * QUOTA, connections))
        statuses += asyncio.run(_asks(served.url, headers, QUOTA))
        at_once, lasted_s = statuses.count(200), time.monotonic() - begun
        assert at_once <= QUOTA + (lasted_s + 2 * RECONCILE_S) * QUOTA / WINDOW_S
        time.sleep(2 * REPORTED_S)  # what one of them was given and did not spend is the other's again
        statuses += asyncio.run(_asks(served.url, headers, QUOTA))
        lasted_s = time.monotonic() - begun
    assert set(statuses) == {200, 429}
    assert QUOTA * 0.95 <= statuses.count(200) <= QUOTA + (lasted_s + 2 * RECONCILE_S) * QUOTA / WINDOW_S
