"""A page with the npm package `phoenix` in a real Chromium: live, and after a restart of the server as if nothing had been."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.bitnexus import commandline
from tests.clients import chromium, front
from tests.clients.chromium import Window
from tests.clients.conftest import Shop, open_shop
from tests.clients.node import HERE
from tests.faults.site import Site
from tests.world import Database

PAGE = HERE / "page"
FILES = {
    "/": PAGE / "index.html",
    "/page.js": PAGE / "page.js",
    "/phoenix.mjs": HERE / "node_modules" / "phoenix-1.8" / "priv" / "static" / "phoenix.mjs",
}
LOST_CONNECTION = re.compile("ERR_CONNECTION|ERR_SOCKET_NOT_CONNECTED")
"""What Chromium says of its own accord when a server is gone, also in the middle of connecting."""


@pytest.fixture
def origin(_packages: None) -> Iterator[str]:
    with front.served(FILES) as made:
        yield made


@pytest_asyncio.fixture
async def shops(database: Database, origin: str, tmp_path: Path) -> AsyncIterator[tuple[Shop, Shop]]:
    """Two servers of one shop, which the front end may use."""
    made = commandline.on(database, BITNEXUS_CORS_ORIGINS=origin)
    async with Site(made, tmp_path / "one.log") as one, Site(made, tmp_path / "two.log") as two:
        yield await open_shop(one), await open_shop(two)


async def sell(shop: Shop, quantity: int) -> str:
    """The id of a sale to the admin, over HTTP."""
    body = {"lines": [{"sku": "MUG", "quantity": quantity}], "buyer_id": shop.user_id}
    sale: str = (await shop.ask("POST", "/transactions", body))["id"]
    return sale


async def shown(window: Window) -> list[str]:
    """The ids of the sales that the page shows."""
    found: list[str] = (
        await window.page.get_by_role("list", name="Sales")
        .get_by_role("listitem")
        .evaluate_all("items => items.map((item) => item.id)")
    )
    return found


async def test_a_page_is_live_and_misses_nothing_over_a_restart(
    browser: str, shops: tuple[Shop, Shop], origin: str
) -> None:
    here, elsewhere = shops
    async with chromium.window(browser) as window:
        page = window.page
        await page.goto(f"{origin}/?api={here.site.url}")
        await page.get_by_label("E-mail").fill("admin@shop.example")
        await page.get_by_label("Password").fill("correct horse")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("status")).to_have_text("open")
        await page.locator("body[data-product_listed=joined][data-new_transaction=joined]").wait_for()
        await here.lists("MUG")
        await expect(page.get_by_role("list", name="Products")).to_have_text("MUG 9.00")
        sales = [await sell(here, 2)]
        await expect(page.get_by_role("list", name="Sales")).to_have_text("18.00 GBP")
        assert window.complaints == []

        await here.site.kill()
        await expect(page.get_by_role("status")).to_have_text("closed")
        sales += [await sell(elsewhere, 3), await sell(elsewhere, 4)]
        await here.site.start()
        sales.append(await sell(here, 5))  # perhaps before it is back
        await page.locator(f"[id='{sales[-1]}']").wait_for()
        await expect(page.get_by_role("status")).to_have_text("open")
        sales.append(await sell(here, 6))
        await page.locator(f"[id='{sales[-1]}']").wait_for()
        assert await shown(window) == sales
        assert [each for each in window.complaints if not LOST_CONNECTION.search(each)] == []
