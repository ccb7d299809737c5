"""Rebuilds of real processes while commands come in: the new rows are what the old ones are, each time."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.bitnexus import test_serve
from tests.bitnexus.commandline import CommandLine
from tests.faults.site import Site
from tests.faults.traffic import POLL_S, Traffic

BEFORE = 150
"""Commands before each rebuild: what is left for its join is more than the batch of the serving process which was read ahead."""
REBUILDS = 2
PATIENCE_S = 60.0
PATH = "/api/v1/admin/projections/products/rebuild"


async def rebuilt(client: httpx.AsyncClient) -> dict[str, Any]:
    """By the serving process."""
    assert (await client.post(PATH)).status_code == 202
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found: dict[str, Any] = (await client.get(PATH)).json()["data"]
            if found["status"] == "done":
                return found
            assert found["error"] is None
            await asyncio.sleep(POLL_S)


async def test_rows_made_anew_amidst_commands_are_what_the_others_are(bitnexus: CommandLine, tmp_path: Path) -> None:
    """Whatever moment it joins at: a row that it lacked would be missed by nobody but whoever bought it."""
    async with Site(bitnexus, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
        headers = await asyncio.to_thread(test_serve.log_in, site.url)
        async with httpx.AsyncClient(base_url=site.url, headers=headers, trust_env=False) as client:
            for _ in range(REBUILDS):
                await traffic.acknowledges(BEFORE)
                done = await rebuilt(client)
                assert (done["switched"], done["comparison"]["equal"]) == (True, True), done
                await asyncio.to_thread(bitnexus.good, "projections", "drop", "products")
                await traffic.acknowledges(BEFORE)
                (by_hand,) = (
                    await asyncio.to_thread(
                        bitnexus.good, "projections", "rebuild", "products", "--tenant", "shop", "--share", 100
                    )
                )["results"]
                assert (by_hand["switched"], by_hand["comparison"]["equal"]) == (True, True), by_hand
                await asyncio.to_thread(bitnexus.good, "projections", "drop", "products")
        await traffic.finish()
        assert traffic.refused == 0
        await traffic.assert_stands(bitnexus, f"{2 * REBUILDS} rebuilds meanwhile")
