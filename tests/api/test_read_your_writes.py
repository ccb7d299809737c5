"""X-Position: an answer says what it shows, and a query that carries it shows at least that."""

import asyncio
import dataclasses

import pytest

from api.app import create_app
from bitnexus import database as connections
from projections.positions import Reached
from tests.api import walk
from tests.api.house import House, Served
from tests.world import World

QUERIES = ["/products", "/transactions", "/refunds", "/users/me"]


async def test_a_query_with_the_position_of_a_command_shows_what_it_did(served: Served, a: House) -> None:
    for n in range(10):
        created = await served.post(a.admin, "/products", {"sku": f"S{n}", "name": "x", "price": 1})
        position = created.headers["X-Position"]
        shown = await served.get(a.admin, f"/products/{created.json()['data']['id']}", headers={"X-Position": position})
        assert shown.status_code == 200
        assert int(shown.headers["X-Position"]) >= int(position)


async def test_a_position_is_a_number_for_auditors_and_says_nothing_to_others(served: Served, a: House) -> None:
    await a.lists()
    await served.views_reach(a)
    head = (await a.ledger.head(a.id)).position
    for path in QUERIES:
        assert (await served.get(a.admin, path)).headers["X-Position"] == str(head)
        token = (await served.get(a.user, path)).headers["X-Position"]
        assert served.parts.tokens.position(a.id, token) == head
        for person in (a.user, a.admin):
            assert (await served.get(person, path, headers={"X-Position": token})).status_code == 200
    resource = (await served.get(a.user, "/products")).json()["data"][0]
    assert served.parts.tokens.position(a.id, resource["position"]) == head
    assert (await served.get(a.admin, "/products")).json()["data"][0]["position"] == head


async def test_a_position_that_there_is_not_is_refused_at_once(served: Served, a: House, b: House) -> None:
    head = (await a.ledger.head(a.id)).position
    beyond = served.parts.tokens.token(a.id, head + 1)
    of_another = served.parts.tokens.token(b.id, 1)
    for path in (*QUERIES, "/transactions/summary", "/ledger/head", "/ledger/entries"):
        for given in (str(head + 1), "9" * 30, beyond, of_another, "x", "A" * 32, "-1", "1.0"):
            refused = await served.get(a.admin, path, headers={"X-Position": given})
            assert refused.status_code == 400, (path, given)


async def test_a_number_from_somebody_who_sees_none_is_refused(served: Served, a: House) -> None:
    """Trying numbers would say how far the tenant's stream is."""
    assert (await served.get(a.user, "/products", headers={"X-Position": "1"})).status_code == 400


async def test_a_query_whose_view_does_not_get_there_is_told_to_come_back(
    served: Served, a: House, world: World
) -> None:
    """A process without projectors of its own, over a view that another tenant's row lock holds back."""
    reached = Reached(connections.connector(world.database.app_url, "projector"))
    app = create_app(dataclasses.replace(served.parts, reached=reached))
    waiting = Served(app, served.parts)
    await a.lists()
    await served.views_reach(a)
    async with waiting.client, world.projector.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM views.positions WHERE tenant_id = %s FOR UPDATE", (a.id,))
        product = await a.lists("CUP")
        position = str((await a.ledger.head(a.id)).position)
        behind = await waiting.get(a.admin, f"/products/{product.id}", headers={"X-Position": position})
        assert (behind.status_code, behind.headers["Retry-After"]) == (503, "1")
        free = asyncio.create_task(served.views_reach(a))
    await free
    async with Served(app, served.parts).client as client:
        shown = await client.get(f"/api/v1/products/{product.id}", headers={**a.admin.headers, "X-Position": position})
        assert shown.status_code == 200
    await app.state.feed.close()
    await reached.close()


async def test_a_database_that_came_back_from_an_earlier_moment_shows_nothing_older_as_newer(
    served: Served, a: House, world: World
) -> None:
    """After a crash the views stand where they were last written to disk, and a process remembers that they were further."""
    reached = Reached(connections.connector(world.database.app_url, "projector"))
    app = create_app(dataclasses.replace(served.parts, reached=reached))
    waiting = Served(app, served.parts)
    await a.lists()
    await served.views_reach(a)
    async with waiting.client, world.projector.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM views.positions WHERE tenant_id = %s FOR UPDATE", (a.id,))
        await a.lists("CUP")
        head = (await a.ledger.head(a.id)).position
        reached.moved(a.id, "products", head)
        behind = await waiting.get(a.admin, "/products", headers={"X-Position": str(head)})
        assert behind.status_code == 503
        assert reached.at(a.id, "products") == 0
        free = asyncio.create_task(served.views_reach(a))
    await free
    await reached.close()


@pytest.mark.parametrize("view", ["transactions", "refunds"])
async def test_an_export_after_a_crash_waits_for_the_views_themselves(
    served: Served, a: House, world: World, view: str
) -> None:
    """Or what a person is given would lack the last sales, and nothing would say so."""
    reached = Reached(connections.connector(world.database.app_url, "projector"))
    app = create_app(dataclasses.replace(served.parts, reached=reached))
    waiting = Served(app, served.parts)
    sale = await a.sells(await a.lists(), buyer=a.user)
    await served.views_reach(a)
    async with waiting.client, world.projector.connection() as connection, connection.transaction():
        await connection.execute(
            "SELECT FROM views.positions WHERE tenant_id = %s AND view = %s FOR UPDATE", (a.id, view)
        )
        await a.refunds(sale, 1)
        for each in ("transactions", "refunds"):  # remembered from before the crash; the export itself records an event
            reached.moved(a.id, each, (await a.ledger.head(a.id)).position + 10)
        for _ in range(
            3
        ):  # the other view may be behind, too, by the event that the export records; the next one waits for it
            behind = await waiting.get(a.user, f"/users/{a.user.id}/export")
            assert behind.status_code == 503
            if reached.at(a.id, view) == 0:
                break
        assert reached.at(a.id, view) == 0
        free = asyncio.create_task(served.views_reach(a))
    await free
    await reached.close()


async def test_every_query_takes_a_position(served: Served, a: House, b: House, world: World) -> None:
    """Or who reads an own command there would have to guess. The platform's are of all tenants, and a position is of one."""
    cast = await walk.Stage(world, served, a, b)._cast("admin", with_program=True)
    await served.post(a.admin, "/admin/projections/sales/rebuild", None)  # that there is one to be shown
    await served.views_reach(a)
    head = (await a.ledger.head(a.id)).position
    document = (await served.client.get("/schema/openapi.json")).json()
    asked = set()
    for path, item in document["paths"].items():
        operation = item.get("get")
        if operation is None or not operation["security"] or path.startswith(("/api/v1/platform", "/api/v1/feed")):
            continue
        assert "X-Position" in {parameter.get("name") for parameter in operation["parameters"]}, path
        for name, value in cast.given.items():
            path = path.replace(f"{{{name}}}", str(value))
        beyond = await served.client.get(path, headers={**a.admin.headers, "X-Position": str(head + 1_000)})
        assert (beyond.status_code, list(beyond.json()["errors"])) == (400, ["X-Position"]), path
        there = await served.client.get(path, headers={**a.admin.headers, "X-Position": str(head)})
        assert there.status_code == 200, path
        assert int(there.headers["X-Position"]) >= head, path
        asked.add(operation["operationId"])
    assert len(asked) > 20
