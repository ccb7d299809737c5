"""What an admin sees of the views, and asks of them."""

import asyncio
from typing import Any

import psycopg

from projections import catalogue
from tests.api.house import PATIENCE_S, House, Served
from tests.world import World

REBUILD = "/admin/projections/products/rebuild"


async def rebuilt(served: Served, a: House) -> dict[str, Any]:
    """The status resource once it is done."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await served.get(a.admin, REBUILD)
            assert answer.status_code == 200
            found: dict[str, Any] = answer.json()["data"]
            if found["status"] == "done":
                return found
            await asyncio.sleep(0.02)


async def test_a_rebuild_is_asked_for_and_looked_at(served: Served, a: House) -> None:
    product = await a.lists()
    await served.views_reach(a)
    assert (await served.get(a.admin, REBUILD)).status_code == 404
    asked = await served.client.post(f"/api/v1{REBUILD}", headers=a.admin.headers)
    assert (asked.status_code, asked.headers["Location"]) == (202, f"/api/v1{REBUILD}")
    assert asked.json()["data"]["generation"] == 2
    done = await rebuilt(served, a)
    assert (done["switched"], done["comparison"]["equal"], done["error"]) == (True, True, None)
    assert (await served.get(a.admin, f"/products/{product.id}")).status_code == 200
    again = await served.client.post(f"/api/v1{REBUILD}", headers=a.admin.headers)
    assert again.status_code == 409
    assert "still has another generation: 1 (ready)" in again.json()["detail"]


async def test_what_was_rebuilt_is_sent_again_to_who_has_it(served: Served, a: House) -> None:
    """A rebuild mends what is shown, and the resource's version stays as it is."""
    product = await a.lists()
    await served.views_reach(a)
    path = f"/products/{product.id}"
    first = await served.get(a.admin, path)
    assert first.headers["ETag"] == '"1"'
    assert (await served.post(a.admin, REBUILD, None)).status_code == 202
    assert (await rebuilt(served, a))["switched"]
    second = await served.get(a.admin, path, headers={"If-None-Match": '"1"'})
    assert (second.status_code, second.headers["ETag"]) == (200, '"1-g2"')
    assert (await served.get(a.admin, path, headers={"If-None-Match": '"1-g2"'})).status_code == 304
    changed = await served.ask(a.admin, "PATCH", path, json={"name": "x"}, headers={"If-Match": '"1-g2"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')


async def test_an_unknown_view_is_not_found(served: Served, a: House) -> None:
    answer = await served.client.post("/api/v1/admin/projections/profits/rebuild", headers=a.admin.headers)
    assert answer.status_code == 404


async def test_an_admin_sees_how_far_the_own_views_are(served: Served, a: House, b: House) -> None:
    for _ in range(3):
        await b.lists(sku=f"MUG-{_}")
    await served.views_reach(a)
    answer = await served.get(a.admin, "/admin/projections")
    head = (await a.ledger.head(a.id)).position
    assert answer.json()["meta"] == {"head": head}
    found = answer.json()["data"]
    assert [each["view"] for each in found] == sorted(view.name for view in catalogue.VIEWS)
    for each in found:
        assert (each["position"], each["lag_events"], each["lag_seconds"]) == (head, 0, 0.0)
        assert (each["parked"], each["stopped"], each["failure"], each["other"]) == (0, False, None, None)
        assert each["rate"] > 0


async def test_what_waits_for_an_operator_is_said_to_whoever_asks_for_it(
    served: Served, a: House, world: World
) -> None:
    """A reader of their own write would otherwise be shown the product as it was before it."""
    product, other = await a.lists(), await a.lists(sku="CUP")
    await served.views_reach(a)
    position = (await a.ledger.head(a.id)).position
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO views.parked (tenant_id, view, generation, originator_id, position, topic, error, attempts)"
            " VALUES (%s, 'products', 1, %s, %s, 'product.renamed', 'ValueError', 5)",
            (a.id, product.id, position),
        )
        owner.execute("UPDATE views.positions SET parked = 1 WHERE tenant_id = %s AND view = 'products'", (a.id,))
    path = f"/products/{product.id}"
    refused = await served.get(a.admin, path, headers={"X-Position": str(position)})
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:bitnexus:problem:parked")
    assert (await served.get(a.admin, path, headers={"X-Position": str(position - 1)})).status_code == 200
    assert (await served.get(a.admin, path)).status_code == 200
    untouched = await served.get(a.admin, f"/products/{other.id}", headers={"X-Position": str(position)})
    assert untouched.status_code == 200
    assert (await served.get(a.admin, "/products")).json()["meta"] == {"next_cursor": None, "parked": 1}
    assert (await served.get(a.admin, "/transactions")).json()["meta"] == {"next_cursor": None}


async def test_a_sale_or_refund_that_waits_is_said_to_wait(served: Served, a: House, world: World) -> None:
    """Of a refund that is not there nobody knows whose it would be: whatever waits in the view may be it."""
    sale = await a.sells(await a.lists(), quantity=3)
    shown, hidden = [await a.refunds(sale, 1) for _ in range(2)]
    await served.views_reach(a)
    position = (await a.ledger.head(a.id)).position
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        for view in ("transactions", "refunds"):
            owner.execute(
                "INSERT INTO views.parked (tenant_id, view, generation, originator_id, position, topic, error, attempts)"
                " VALUES (%s, %s, 1, %s, %s, 'transaction.refunded', 'ValueError', 5)",
                (a.id, view, sale.id, position),
            )
            owner.execute("UPDATE views.positions SET parked = 1 WHERE tenant_id = %s AND view = %s", (a.id, view))
        owner.execute("DELETE FROM views.refunds WHERE refund_id = %s", (hidden.id,))
    asked = {"X-Position": str(position)}
    for path, without in ((f"/transactions/{sale.id}", 200), (f"/refunds/{hidden.id}", 404)):
        refused = await served.get(a.admin, path, headers=asked)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:bitnexus:problem:parked"), path
        assert (await served.get(a.admin, path)).status_code == without
        assert (await served.get(a.admin, path, headers={"X-Position": str(position - 1)})).status_code == without
    assert (await served.get(a.admin, f"/refunds/{shown.id}", headers=asked)).status_code == 200  # it never changes
    for path in ("/transactions", "/transactions?status=partly_refunded", "/refunds"):
        assert (await served.get(a.admin, path)).json()["meta"]["parked"] == 1, path
