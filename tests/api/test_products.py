"""The catalogue over HTTP."""

from typing import Any

import httpx
import pytest

from ledger import ids
from tests.api.house import House, Served

MUG = {"sku": "MUG", "name": "Mug", "price": "9"}


async def test_a_listed_product_is_answered_whole_and_found_again_at_its_location(served: Served, a: House) -> None:
    created = await served.post(a.admin, "/products", {"product": {**MUG, "category": "kitchen", "metadata": {"w": 1}}})
    assert created.status_code == 201
    product = created.json()["data"]
    assert {k: product[k] for k in ("sku", "name", "price", "currency", "category", "metadata", "status")} == {
        "sku": "MUG",
        "name": "Mug",
        "price": "9.00",
        "currency": "EUR",
        "category": "kitchen",
        "metadata": {"w": 1},
        "status": "listed",
    }
    assert product["inserted_at"].endswith("Z")
    assert created.headers["ETag"] == '"1"'
    found = await served.client.get(
        created.headers["Location"], headers={**a.user.headers, "X-Position": a_token(served, a, created)}
    )
    assert found.status_code == 200
    assert found.json()["data"] | {"position": 0} == product | {"position": 0}
    assert found.headers["ETag"] == '"1"'


def a_token(served: Served, house: House, answer: httpx.Response) -> str:
    """The position that an admin was shown as a number, as everybody may send it."""
    return served.parts.tokens.token(house.id, int(answer.headers["X-Position"]))


async def test_names_and_prices_change_together_in_one_command(served: Served, a: House) -> None:
    product = await a.lists()
    head = (await a.ledger.head(a.id)).position
    changed = await served.ask(
        a.admin, "PATCH", f"/products/{product.id}", json={"name": "Cup", "price": 9.5}, headers={"If-Match": '"1"'}
    )
    assert changed.status_code == 200
    assert (changed.json()["data"]["name"], changed.json()["data"]["price"]) == ("Cup", "9.50")
    assert changed.headers["ETag"] == '"3"'
    assert changed.headers["X-Position"] == str(head + 2)
    put = await served.ask(a.admin, "PUT", f"/products/{product.id}", json={"product": {"name": "Beaker"}})
    assert (put.json()["data"]["name"], put.json()["data"]["price"]) == ("Beaker", "9.50")
    repriced = await served.ask(a.admin, "PUT", f"/products/{product.id}/price", json={"price": "10"})
    assert repriced.json()["data"]["price"] == "10.00"


@pytest.mark.parametrize(("method", "path"), [("PATCH", ""), ("PUT", ""), ("PUT", "/price"), ("DELETE", "")])
async def test_a_change_to_a_version_that_is_gone_is_refused(served: Served, a: House, method: str, path: str) -> None:
    """Two admins at once: the second must not overwrite what the first one did without having seen it."""
    product = await a.lists()
    await served.ask(a.admin, "PATCH", f"/products/{product.id}", json={"name": "Cup"})
    body = None if method == "DELETE" else {"price": "1.00"}
    for tag in ('"1"', '"99"', 'W/"2"', "nonsense"):
        stale = await served.ask(a.admin, method, f"/products/{product.id}{path}", json=body, headers={"If-Match": tag})
        assert (stale.status_code, stale.json()["type"]) == (412, "urn:bitnexus:problem:stale-version")
    good = await served.ask(a.admin, method, f"/products/{product.id}{path}", json=body, headers={"If-Match": '"2"'})
    assert good.status_code == (204 if method == "DELETE" else 200)


async def test_a_retired_product_stays_readable_and_takes_no_change(served: Served, a: House) -> None:
    product = await a.lists()
    gone = await served.ask(a.admin, "DELETE", f"/products/{product.id}")
    assert (gone.status_code, gone.content) == (204, b"")
    shown = await served.get(a.admin, f"/products/{product.id}", headers={"X-Position": gone.headers["X-Position"]})
    assert (shown.json()["data"]["status"], shown.headers["ETag"]) == ("retired", '"2"')
    refused = await served.ask(a.admin, "PATCH", f"/products/{product.id}", json={"name": "Cup"})
    assert refused.status_code == 409


async def test_a_taken_sku_is_a_conflict_that_names_the_field(served: Served, a: House) -> None:
    await a.lists("MUG")
    refused = await served.post(a.admin, "/products", MUG)
    assert refused.status_code == 409
    assert list(refused.json()["errors"]) == ["sku"]


async def test_pages_hold_every_product_once_and_filters_hold(served: Served, a: House) -> None:
    listed = [(await a.lists(f"SKU{n}")).sku for n in range(5)]
    await served.post(a.admin, "/products", {**MUG, "category": "kitchen"})
    await served.views_reach(a)
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        page = (
            await served.get(a.user, "/products", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        ).json()
        assert len(page["data"]) <= 2
        seen += [product["sku"] for product in page["data"]]
        cursor = page["meta"]["next_cursor"]
        if cursor is None:
            break
    assert seen == [*listed, "MUG"]
    kitchen = await served.get(a.user, "/products", params={"category": "kitchen", "status": "listed"})
    assert [product["sku"] for product in kitchen.json()["data"]] == ["MUG"]


async def test_parameters_out_of_range_are_named(served: Served, a: House) -> None:
    wrong: list[tuple[str, Any]] = [
        ("limit", 0),
        ("limit", 101),
        ("limit", "many"),
        ("cursor", "%%%"),
        ("cursor", "AAAA"),
        ("status", "gone"),
        ("category", "a\0b"),
    ]
    for field, value in wrong:
        refused = await served.get(a.user, "/products", params={field: value})
        assert (refused.status_code, list(refused.json()["errors"])) == (422, [field])


async def test_an_id_that_there_is_not_is_not_found(served: Served, a: House) -> None:
    for id in (str(ids.new_id()), "17", "not-a-uuid", "%00", "..%2f..%2fhealth"):
        for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("PUT", "/price")):
            body = {"price": "1"} if method in ("PATCH", "PUT") else None
            missing = await served.ask(a.admin, method, f"/products/{id}{path}", json=body)
            assert missing.status_code == 404, (method, id, missing.text)
            assert missing.headers["Content-Type"] == "application/problem+json"


async def test_members_may_look_and_not_touch(served: Served, a: House) -> None:
    product = await a.lists()
    await served.views_reach(a)
    for person in (a.user, a.affiliate):
        assert (await served.get(person, f"/products/{product.id}")).status_code == 200
        assert (await served.post(person, "/products", MUG)).status_code == 403
        for method, path in (("PATCH", ""), ("PUT", ""), ("PUT", "/price"), ("DELETE", "")):
            refused = await served.ask(person, method, f"/products/{product.id}{path}", json={})
            assert refused.status_code == 403
