"""What docs/realtime.md tells people to write for their pages does what it says, with the npm package `phoenix`."""

import asyncio
import re
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from api.feed import feed
from domain import products
from ledger import ids
from tests.clients.conftest import Shop
from tests.clients.node import Node
from tests.clients.test_phoenix import PACKAGES, client
from tests.world import World, caller

PAGE = (Path(__file__).parents[2] / "docs" / "realtime.md").read_text()
RENAMED_AT_ONCE = 1_000


def code() -> str:
    (found,) = re.findall(r"```js\n(function listen\(last\).*?)```", PAGE, re.DOTALL)
    return str(found)


async def joined(page: Node) -> str:
    """The position of the reply to the next join."""
    while True:
        reply = (await page.until(on="frame", event="phx_reply"))["payload"]
        if reply["status"] == "ok" and "position" in reply["response"]:
            return str(reply["response"]["position"])


async def listed(page: Node) -> str:
    return str((await page.until(on="frame", event="product_listed"))["payload"]["sku"])


async def quiet(shop: Shop, package: str) -> None:
    """Hears something, then nothing for so long that it is told where the stream is."""
    async with client(package, shop) as page:
        await page.do(do="run", code=code(), id=shop.tenant_id)
        assert (await page.until(on="joining"))["payload"] == {"positions": True}
        await joined(page)
        await shop.lists(f"{package}-A")
        while await listed(page) != f"{package}-A":
            pass
        sale = {"lines": [{"sku": f"{package}-A", "quantity": 1}]}
        await shop.ask("POST", "/transactions", sale)  # which is not told to all members
        mark = (await page.until(on="frame", event="position"))["payload"]["position"]
        await page.do(do="disconnect")
        await page.until(on="disconnected")
        await shop.lists(f"{package}-B")
        await page.do(do="connect")
        assert (await page.until(on="joining"))["payload"] == {"positions": True, "from": mark}
        after = [await listed(page)]
        while after[-1] != f"{package}-B":
            after.append(await listed(page))
        assert f"{package}-A" not in after


async def test_a_page_that_hears_little_comes_back_from_where_it_was_told_it_is(shop: Shop) -> None:
    """By `"positions": true`. Else it would come back from the last thing it heard, in a busy tenant too long ago."""
    await asyncio.gather(*(quiet(shop, package) for package in PACKAGES))


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_page_that_missed_too_much_fetches_anew_and_goes_on_from_there(
    shop: Shop, world: World, package: str
) -> None:
    async with client(package, shop) as page:
        await page.do(do="run", code=code(), id=shop.tenant_id)
        last = await joined(page)
        await page.do(do="disconnect")
        await page.until(on="disconnected")
        await rename_often(world, UUID(shop.tenant_id))
        await page.do(do="connect")
        assert (await page.until(on="joining"))["payload"] == {"positions": True, "from": last}
        await page.until(on="fetching")
        async with httpx.AsyncClient(base_url=shop.site.url, trust_env=False, timeout=30) as http:
            shown = await http.get("/api/v1/products", headers={"Authorization": f"Bearer {shop.token}"})
        position = shown.headers["X-Position"]
        await page.do(do="fetched", position=position)
        assert (await page.until(on="joining"))["payload"] == {"positions": True, "from": position}
        await joined(page)
        await shop.lists("NEW")
        while await listed(page) != "NEW":
            pass
        assert [each["on"] for each in page.heard].count("joining") == 3


async def rename_often(world: World, tenant_id: UUID) -> None:
    """More often than a feed goes back."""
    product = products.list_product(
        id=ids.new_id(), tenant_id=tenant_id, sku="MUG", name="Mug", price=Decimal(1), currency="GBP"
    )
    for n in range(feed.BEHIND_MAX):
        product.rename(f"Mug {n}")
        if len(product.pending_events) == RENAMED_AT_ONCE:
            await world.ledger.append(caller(tenant_id), product)
    await world.ledger.append(caller(tenant_id), product)
