"""A running `bitnexus serve` with a shop, and the packages of package-lock.json."""

import dataclasses
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import pytest_asyncio

from tests.bitnexus import commandline
from tests.clients import chromium
from tests.clients.node import HERE
from tests.faults.site import Site
from tests.world import Database


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    """As package-lock.json says, installed once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        _do_without("Node is missing. Install Node 20 or newer with npm, then run this again.")
    stamp, lock = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    with lock.open() as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
            install = ["npm", "ci", "--no-audit", "--no-fund"]
            subprocess.run(install, cwd=HERE, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="session")
def browser() -> str:
    """Chromium's path."""
    return chromium.path() or _do_without(chromium.MISSING)


def _do_without(missing: str) -> NoReturn:
    """A machine of a user's may lack it, one that says CI may not."""
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@dataclasses.dataclass(frozen=True)
class Shop:
    """A site that serves a shop, and its admin."""

    site: Site
    tenant_id: str
    user_id: str
    token: str

    @property
    def socket(self) -> str:
        return self.site.url.replace("http", "ws") + "/socket"

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        return (await self._answer(method, path, body)).json()["data"]

    async def logs_out(self) -> None:
        await self._answer("POST", "/auth/logout")

    async def _answer(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"{self.site.url}/api/v1", trust_env=False, timeout=30) as client:
            answer = await client.request(method, path, json=body, headers={"Authorization": f"Bearer {self.token}"})
        assert answer.is_success, answer.text
        return answer

    async def lists(self, *skus: str) -> None:
        for sku in skus:
            await self.ask("POST", "/products", {"sku": sku, "name": "Mug", "price": "9.00"})


async def open_shop(site: Site) -> Shop:
    """Logged in."""
    body = {"email": "admin@shop.example", "password": "correct horse", "tenant": "shop"}
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, timeout=30) as client:
        answer = await client.post("/api/v1/auth/login", json=body)
    data = answer.json()["data"]
    return Shop(site, data["user"]["tenant_id"], data["user"]["id"], data["access_token"])


@pytest.fixture
def database(shop_database: Database) -> Database:
    """With the tenant `shop`."""
    return shop_database


@pytest_asyncio.fixture
async def shop(database: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    made = commandline.on(database)
    async with Site(made, tmp_path / "log") as site:
        yield await open_shop(site)
