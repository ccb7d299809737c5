"""The page at /live in a real Chromium: what `scripts/demo` shows arrives, over restarts too, and nobody is left without a word."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from bitnexus.embedded import Embedded
from tests.bitnexus.commandline import CommandLine
from tests.clients import chromium
from tests.clients.chromium import Window
from tests.clients.conftest import Shop
from tests.faults.site import Site

OWN_WORDS = ("ERR_CONNECTION", "ERR_INCOMPLETE_CHUNKED_ENCODING", "401 (Unauthorized)")
"""Of what Chromium says by itself, whatever a page does: a server that is gone, or a refusal that was asked for."""


@pytest_asyncio.fixture
async def demo(tmp_path: Path) -> AsyncIterator[tuple[Site, Site]]:
    """As `scripts/demo` has it, and a `serve` beside it that is not killed."""
    with Embedded(tmp_path / "data"):  # in use by the test as well, so that it ends with it
        bitnexus = CommandLine(BITNEXUS_DATA_DIR=str(tmp_path / "data"))
        async with (
            Site(bitnexus, tmp_path / "demo.log", command="demo") as made,
            Site(bitnexus, tmp_path / "serve.log") as beside,
        ):
            yield made, beside


async def log_in(page: Page, password: str) -> None:
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Log in").click()


def state(page: Page) -> Locator:
    return page.locator("#state")


def rows(page: Page) -> Locator:
    return page.get_by_role("list", name="Newest sales").get_by_role("listitem")


def unexpected(window: Window) -> list[str]:
    return [each for each in window.complaints if not any(words in each for words in OWN_WORDS)]


class Admin:
    """The demo's, over HTTP."""

    def __init__(self, site: Site, login: dict[str, str]) -> None:
        self._client = httpx.AsyncClient(base_url=f"{site.url}/api/v1", trust_env=False, timeout=30)
        self._login = {name: login[name] for name in ("tenant", "email", "password")}

    async def enter(self) -> None:
        data = (await self._client.post("/auth/login", json=self._login)).json()["data"]
        self._client.headers["Authorization"] = f"Bearer {data['access_token']}"

    async def sell(self) -> str:
        sku = (await self._client.get("/products?limit=1")).json()["data"][0]["sku"]
        answer = await self._client.post("/transactions", json={"lines": [{"sku": sku, "quantity": 1}]})
        id: str = answer.json()["data"]["id"]
        return id

    async def newest(self, count: int) -> list[str]:
        return [sale["id"] for sale in (await self._client.get(f"/transactions?limit={count}")).json()["data"]]

    async def close(self) -> None:
        await self._client.aclose()


async def test_the_demos_page_shows_sales_arrive_and_misses_none_over_a_restart(
    browser: str, demo: tuple[Site, Site]
) -> None:
    here, beside = demo
    login = next(each for each in here.announced["logins"] if each["role"] == "admin")
    admin = Admin(beside, login)
    await admin.enter()
    async with chromium.window(browser) as window:
        page = window.page
        await page.goto(here.announced["page"])
        await expect(page.get_by_label("E-mail")).to_have_value(login["email"])
        await expect(page.get_by_label("Password")).to_be_focused()
        await log_in(page, login["password"])
        await expect(state(page)).to_have_text("Live")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Demo shop")
        await page.locator("#list .new").first.wait_for()  # that nobody but the demo made
        await expect(page.locator("#arrivals")).to_contain_text("new sale")
        await expect(page.locator("#net")).to_contain_text("£")
        assert window.complaints == []

        await here.kill()
        await expect(state(page)).to_have_text("Reconnecting …")
        meanwhile = [await admin.sell() for _ in range(3)]
        await here.start()
        await expect(state(page)).to_have_text("Live")
        await expect(page.locator("#history")).to_contain_text("nothing missed")
        for id in meanwhile:
            await expect(page.locator(f"[data-id='{id}']")).to_have_count(1)
        last = await admin.sell()
        await page.locator(f"[data-id='{last}']").wait_for()
        shown = await rows(page).evaluate_all("rows => rows.map((row) => row.dataset.id)")
        from_last = shown[shown.index(last) :][:30]
        newest = await admin.newest(60)
        assert from_last == newest[newest.index(last) :][: len(from_last)]  # in order, none missing, none twice

        await page.reload()
        await expect(state(page)).to_have_text("Live")
        await page.get_by_role("button", name="Log out").click()
        await log_in(page, "wrong")
        await expect(page.get_by_role("alert").first).not_to_be_empty()
        assert unexpected(window) == []
    await admin.close()


async def test_a_shop_without_sales_says_so_and_a_refund_changes_its_sale(browser: str, shop: Shop) -> None:
    """On a telephone, in the dark: nothing is cut off."""
    await shop.lists("MUG")
    async with chromium.window(browser, chromium.PHONE, "dark") as window:
        page = window.page
        await page.goto(f"{shop.site.url}/live#tenant=shop&email=admin@shop.example")
        await log_in(page, "correct horse")
        await expect(page.get_by_text("No sales yet")).to_be_visible()
        await expect(state(page)).to_have_text("Live")
        sale = await shop.ask("POST", "/transactions", {"lines": [{"sku": "MUG", "quantity": 2}]})
        await expect(rows(page)).to_have_count(1)
        await expect(page.get_by_text("No sales yet")).to_be_hidden()
        for text in ("Mug", "£18.00", "2 pieces"):
            await expect(rows(page).first).to_contain_text(text)
        await shop.ask("POST", f"/transactions/{sale['id']}/refunds", {"lines": [{"line_id": 1, "quantity": 1}]})
        for text in ("Partly refunded", "−£9.00"):
            await expect(rows(page).first).to_contain_text(text)
        await expect(rows(page)).to_have_count(1)
        await expect(page.locator("#net")).to_have_text("£9.00")
        inside = "all => all.every((each) => each.getBoundingClientRect().right <= innerWidth)"
        assert await page.locator("main *").evaluate_all(inside)
        assert window.complaints == []


async def test_a_session_that_is_ended_elsewhere_asks_to_log_in(browser: str, shop: Shop) -> None:
    async with chromium.window(browser) as window:
        page = window.page
        await page.goto(f"{shop.site.url}/live#tenant=shop&email=admin@shop.example")
        await log_in(page, "correct horse")
        await expect(state(page)).to_have_text("Live")
        async with httpx.AsyncClient(base_url=f"{shop.site.url}/api/v1", trust_env=False) as client:
            answer = await client.delete("/users/me/sessions", headers={"Authorization": f"Bearer {shop.token}"})
            assert answer.is_success, answer.text
        await expect(page.get_by_role("alert").first).to_have_text("Your session has ended. Log in again.")
        await expect(page.get_by_label("Password")).to_be_focused()
        await expect(rows(page)).to_have_count(0)
        assert unexpected(window) == []
