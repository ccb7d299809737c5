"""A rebuild that was asked for over HTTP, by a process that is killed in the midst of it."""

import asyncio
from typing import Any

import httpx
import psycopg

from bitnexus import database as connections
from projections import rebuild, sales
from tests.bitnexus import commandline
from tests.bitnexus.test_projecting import projecting
from tests.bitnexus.test_serve import POLL_S, WAIT_S_MAX, log_in, serving, until
from tests.world import Database

PATH = "/api/v1/admin/projections/sales/rebuild"
SLOWLY = """
CREATE FUNCTION views.slowly() RETURNS trigger LANGUAGE plpgsql AS '
    BEGIN PERFORM pg_sleep(0.5) WHERE to_regclass(''views.hurry'') IS NULL; RETURN NULL; END';
CREATE TRIGGER slowly AFTER INSERT ON views.sales_by_day FOR EACH STATEMENT EXECUTE FUNCTION views.slowly()
"""
HURRY = "CREATE TABLE views.hurry ()"
KILLED_AT = 200
"""Of 3,000 events, in batches of a hundred, a batch in 1.5 s."""


async def until_at(connection: psycopg.AsyncConnection[Any], tenant_id: Any, position: int) -> rebuild.Status:
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            found = await rebuild.status(connection, "sales", tenant_id)
            if found is not None and found.position >= position:
                return found
            await asyncio.sleep(POLL_S)


async def watched(url: str, headers: dict[str, str]) -> tuple[list[dict[str, Any]], list[httpx.Response]]:
    """What GET says until it is done, and what is answered to who asks for the rebuild again meanwhile."""
    seen: list[dict[str, Any]] = []
    asked: list[httpx.Response] = []
    async with (
        asyncio.timeout(WAIT_S_MAX),
        httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=WAIT_S_MAX) as client,
    ):
        while True:
            seen.append((await client.get(PATH)).json()["data"])
            if seen[-1]["status"] == "done":
                return seen, asked
            asked.append(await client.post(PATH))
            await asyncio.sleep(10 * POLL_S)


async def test_a_killed_processs_rebuild_is_said_to_run_until_another_one_has_it(sold_database: Database) -> None:
    """Nobody has to ask again; and who does is told that it is under way, or goes on with it: there is one rebuild, from where it was."""
    bitnexus = commandline.on(sold_database)
    with psycopg.connect(sold_database.owner_url, autocommit=True) as owner:
        ((tenant_id,),) = owner.execute("SELECT tenant_id FROM ledger.heads ORDER BY position DESC LIMIT 1").fetchall()
        async with await connections.connect(sold_database.app_url, "projector") as connection:
            with projecting(bitnexus) as projector:
                await asyncio.to_thread(until, lambda: set(projector.lags()) == {0})
                owner.execute(SLOWLY)
                await rebuild.request(connection, sales.VIEW, tenant_id)  # as POST does
                assert (await until_at(connection, tenant_id, 1)).working
                with serving(bitnexus) as served:
                    headers = await asyncio.to_thread(log_in, served.url)
                    killed_at = (await until_at(connection, tenant_id, KILLED_AT)).position
                    projector.process.kill()
                    projector.process.wait()
                    owner.execute(HURRY)
                    seen, asked = await watched(served.url, headers)
        (token,) = owner.execute("SELECT token FROM views.rebuilds").fetchone() or (0,)
    assert killed_at < seen[-1]["head"]
    positions = [each["position"] for each in seen]
    assert positions == sorted(positions)
    assert positions[0] >= KILLED_AT
    assert seen[0]["status"] == "running"  # nobody can know better yet
    assert {each["status"] for each in seen} <= {"running", "waiting", "done"}
    assert {each["generation"] for each in seen} == {2}
    assert (seen[-1]["switched"], seen[-1]["comparison"]["equal"], seen[-1]["error"]) == (True, True, None)
    assert "is being rebuilt already" in asked[0].json()["detail"]
    assert {each.status_code for each in asked} <= {202, 409}
    assert token >= 2  # whoever was killed had the first
