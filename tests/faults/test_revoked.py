"""Two `bitnexus serve` on one database: what ends in one ends in the other, and who cannot know does not guess."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.api.house import Person
from tests.api.streams import Event, stream
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.faults.site import Site
from tests.world import Database

PROMISED_S = 2.0
WAITED_S_MAX = 3 * PROMISED_S
"""For a machine that does much else. Looks are half a second apart."""
BETWEEN_S = 0.02
LOG_IN = {"email": "admin@shop.example", "password": "correct horse", "tenant": "shop"}


@pytest.fixture
def database(shop_database: Database) -> Database:
    """With the tenant `shop`."""
    return shop_database


@pytest.fixture
def shop(database: Database) -> CommandLine:
    return commandline.on(database)


@asynccontextmanager
async def client(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1", timeout=60) as made:
        yield made


async def log_in(at: httpx.AsyncClient) -> tuple[Person, str]:
    """And the refresh token."""
    data = (await at.post("/auth/login", json=LOG_IN)).json()["data"]
    user = data["user"]
    return Person(user["id"], user["email"], user["role"], data["access_token"]), data["refresh_token"]


async def until(at: httpx.AsyncClient, person: Person, status: int, saying: str = "") -> float:
    """How long it took until that was the answer, in seconds."""
    begun = time.monotonic()
    while time.monotonic() - begun < WAITED_S_MAX:
        answer = await at.get("/users/me", headers=person.headers)
        if answer.status_code == status and saying in answer.text:
            return time.monotonic() - begun
        await asyncio.sleep(BETWEEN_S)
    raise AssertionError(f"{status} did not come in {WAITED_S_MAX} s, but {answer.status_code} {answer.text}")


async def test_a_session_that_ends_in_one_process_ends_in_the_other(shop: CommandLine, tmp_path: Path) -> None:
    """By logging out and by a replayed refresh token; and its streams there, whose clients ask for nothing."""
    async with (
        Site(shop, tmp_path / "one.log") as one,
        Site(shop, tmp_path / "two.log") as two,
        client(one) as here,
        client(two) as there,
    ):
        for replays in (False, True):
            person, refresh_token = await log_in(here)
            assert (await there.get("/users/me", headers=person.headers)).status_code == 200
            async with stream(two.url, person) as opened:
                if replays:
                    for status in (200, 401):
                        answer = await here.post("/auth/refresh", json={"refresh_token": refresh_token})
                        assert answer.status_code == status
                else:
                    assert (await here.post("/auth/logout", headers=person.headers)).status_code == 204
                begun = time.monotonic()
                assert (await here.get("/users/me", headers=person.headers)).status_code == 401
                await until(there, person, 401)
                assert await opened.event() == Event(None, "session_ended", {"reason": "session_revoked"})
                await opened.ends()
                assert time.monotonic() - begun < WAITED_S_MAX


async def test_a_process_that_lost_its_database_answers_503_and_goes_on_afterwards(
    shop: CommandLine, database: Database, server: str, tmp_path: Path
) -> None:
    name = sql.Identifier(database.name)
    async with Site(shop, tmp_path / "one.log") as one, client(one) as here:
        person, _ = await log_in(here)
        with psycopg.connect(server, autocommit=True) as owner:
            owner.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database.name,))
            try:
                await asyncio.sleep(PROMISED_S)
                begun = time.monotonic()
                await until(here, person, 503, "session still counts")
                assert time.monotonic() - begun < WAITED_S_MAX
                refused = await here.get("/transactions", headers=person.headers)
                assert (refused.status_code, "session still counts" in refused.text) == (503, True)
            finally:
                owner.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        await until(here, person, 200)


async def test_a_key_is_rotated_while_a_process_runs(shop: CommandLine, tmp_path: Path) -> None:
    """It signs with the new one without a restart. A planned rotation locks nobody out, one after a theft everybody until they
    refresh."""
    async with Site(shop, tmp_path / "one.log") as one, client(one) as here:
        person, refresh_token = await log_in(here)
        planned = shop.good("keys", "rotate-signing")["keys"]
        assert [key["signs_in_s"] > 0 for key in planned] == [False, True]
        await published(one, [key["id"] for key in planned])
        assert (await here.get("/users/me", headers=person.headers)).status_code == 200
        (new,) = shop.good("keys", "rotate-signing", "--at-once")["keys"]
        await published(one, [new["id"]])
        assert (await here.get("/users/me", headers=person.headers)).status_code == 401
        data = (await here.post("/auth/refresh", json={"refresh_token": refresh_token})).json()["data"]
        mine = {"Authorization": f"Bearer {data['access_token']}"}
        assert (await here.get("/users/me", headers=mine)).status_code == 200


async def published(site: Site, ids: list[str]) -> None:
    """Returns when these are the keys that the process publishes."""
    async with httpx.AsyncClient(base_url=site.url) as asking, asyncio.timeout(WAITED_S_MAX):
        while [key["kid"] for key in (await asking.get("/.well-known/jwks.json")).json()["keys"]] != ids:  # noqa: ASYNC110  another process tells nobody
            await asyncio.sleep(BETWEEN_S)
