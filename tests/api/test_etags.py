"""ETag and If-None-Match: who has the answer already gets none, and never an old one's word for it."""

from typing import Any

import httpx
import pytest

from api import etags
from tests.api.house import House, Person, Served

PAGES = ["/products", "/transactions", "/refunds", "/transactions/summary", "/ledger/entries"]


async def again(served: Served, person: Person, path: str, before: httpx.Response) -> httpx.Response:
    return await served.get(person, path, headers={"If-None-Match": before.headers["ETag"]})


async def sold(served: Served, a: House, **more: Any) -> httpx.Response:
    body = {"lines": [{"sku": "MUG", "quantity": 2}], **more}
    return await served.post(a.admin, "/transactions", body)


async def test_a_resource_is_sent_again_only_after_it_changed(served: Served, a: House) -> None:
    product = await a.lists()
    sale = await sold(served, a)
    await served.views_reach(a)
    sale_path = f"/transactions/{sale.json()['data']['id']}"

    async def rename() -> httpx.Response:
        return await served.ask(a.admin, "PATCH", f"/products/{product.id}", json={"name": "x"})

    async def refund() -> httpx.Response:
        return await served.post(a.admin, f"{sale_path}/refunds", {})

    for path, change in ((f"/products/{product.id}", rename), (sale_path, refund)):
        first = await served.get(a.admin, path)
        second = await again(served, a.admin, path, first)
        assert (second.status_code, second.content) == (304, b"")
        assert second.headers["ETag"] == first.headers["ETag"]
        assert second.headers["X-Position"] == first.headers["X-Position"]
        assert (await change()).status_code in (200, 201)
        await served.views_reach(a)
        third = await again(served, a.admin, path, first)
        assert (third.status_code, third.headers["ETag"]) == (200, '"2"')
        assert third.json() != first.json()


async def test_commands_say_the_tag_that_the_resource_then_has(served: Served, a: House) -> None:
    """Who keeps what a command answered would otherwise fetch it once more, or be refused by If-Match."""
    await a.lists()
    sale = await sold(served, a)
    refund = await served.post(a.admin, f"/transactions/{sale.json()['data']['id']}/refunds", {})
    await served.views_reach(a)
    shown = await served.get(a.admin, refund.headers["Location"].removeprefix("/api/v1"))
    assert shown.json() == refund.json()
    assert shown.headers["ETag"] == refund.headers["ETag"] == '"2"'
    assert (await again(served, a.admin, f"/refunds/{refund.json()['data']['id']}", refund)).status_code == 304


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_another_tag_as_soon_as_it_has_another_content(served: Served, a: House, path: str) -> None:
    product = await a.lists()
    seen: dict[str, bytes] = {}
    for _ in range(3):
        sale = await a.sells(product)
        await a.refunds(sale, 1)
        await a.lists(f"S{len(seen)}")
        await served.views_reach(a)
        page = await served.get(a.admin, path)
        assert (await again(served, a.admin, path, page)).status_code == 304
        assert seen.setdefault(page.headers["ETag"], page.content) == page.content
        assert page.headers["Vary"] == "Authorization"
        assert page.headers["Cache-Control"] == "private, no-cache"
    assert len(seen) == 3
    for tag in list(seen)[:-1]:
        assert (await served.get(a.admin, path, headers={"If-None-Match": tag})).status_code == 200


async def test_a_page_keeps_its_tag_while_others_are_changed(served: Served, a: House, b: House) -> None:
    product = await a.lists()
    await served.views_reach(a)
    first = await served.get(a.user, "/products")
    await b.lists()
    await a.sells(product)
    await served.views_reach(a)
    assert (await again(served, a.user, "/products", first)).status_code == 304
    await a.lists("CUP")
    await served.views_reach(a)
    assert (await again(served, a.user, "/products", first)).status_code == 200


async def test_an_erasure_gives_the_sale_another_tag_and_leaves_its_version(served: Served, a: House) -> None:
    """304 would say that the buyer's reference, which the caller still has, is what there is to see."""
    await a.lists()
    sale = await sold(served, a, buyer_ref="17850")
    path = f"/transactions/{sale.json()['data']['id']}"
    await served.views_reach(a)
    first = await served.get(a.admin, path)
    assert first.headers["ETag"] == sale.headers["ETag"] == '"1"'
    assert first.json()["data"]["buyer_ref"] == "17850"
    assert (await served.post(a.admin, "/buyers/erasure", {"buyer_ref": "17850"})).status_code == 200
    await served.views_reach(a)
    second = await again(served, a.admin, path, first)
    assert (second.status_code, second.headers["ETag"]) == (200, '"1-erased"')
    assert second.json()["data"]["buyer_ref"] == "[erased]"
    refund = await served.post(a.admin, f"{path}/refunds", {}, headers={"If-Match": '"1-erased"'})
    assert refund.status_code == 201


async def test_who_may_not_see_it_is_not_told_that_it_is_as_it_was(served: Served, a: House, b: House) -> None:
    sale = await a.sells(await a.lists(), buyer=a.user)
    await served.views_reach(a)
    path = f"/transactions/{sale.id}"
    assert (await served.get(a.user, path, headers={"If-None-Match": '"1"'})).status_code == 304
    for person in (a.affiliate, b.admin):
        for given in ('"1"', "*"):
            assert (await served.get(person, path, headers={"If-None-Match": given})).status_code == 404
    assert (await served.get(None, path, headers={"If-None-Match": "*"})).status_code == 401


async def test_every_query_that_says_it_has_a_tag_has_one(served: Served, a: House) -> None:
    document = (await served.client.get("/schema/openapi.json")).json()
    tagged = 0
    for path, item in document["paths"].items():
        operation = item.get("get")
        if operation is None or "304" not in operation["responses"] or "{" in path:
            continue
        tagged += 1
        shown = await served.get(a.admin, path.removeprefix("/api/v1"))
        if shown.status_code == 200:
            assert shown.headers["ETag"], path
    assert tagged >= 7


@pytest.mark.parametrize(
    ("given", "is_known"),
    [
        (None, False),
        ('"1"', True),
        ('W/"1"', True),
        ('"0", W/"1", "2"', True),
        ('"0","2"', False),
        ("*", True),
        ("1", False),
        ('"11"', False),
        ('"x, \\"1\\""', False),
        ("", False),
    ],
)
def test_tags_are_compared_as_the_standard_says(given: str | None, is_known: bool) -> None:
    assert etags.is_known(given, '"1"') == is_known


async def test_an_account_that_was_erased_has_another_tag(served: Served, a: House) -> None:
    path = f"/users/{a.user.id}"
    first = await served.get(a.admin, path)
    assert (await again(served, a.admin, path, first)).status_code == 304
    assert (await served.post(a.admin, f"{path}/erasure", {})).status_code == 200
    second = await again(served, a.admin, path, first)
    assert (second.status_code, second.json()["data"]["email"]) == (200, "[erased]")
    assert second.headers["ETag"].endswith('-erased"')
