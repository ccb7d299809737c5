"""Nothing of tenant B comes out to tenant A: generated from the application's routes, so that a new one is covered."""

from typing import Any
from uuid import UUID

import pytest_asyncio
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api import rights
from tests.api.house import House, Served

BODIES: dict[str, Any] = {
    "changeProduct": {"name": "taken over"},
    "replaceProduct": {"name": "taken over"},
    "repriceProduct": {"price": "1.00"},
    "refundTransaction": {},
    "eraseBuyer": {"buyer_ref": "17850"},
    "listProduct": {"sku": "MINE", "name": "Mine", "price": "1.00"},
    "createUser": {"email": "new@alpha.test", "name": "New", "password": "correct horse battery"},
    "replaceUser": {"name": "taken over", "role": "admin"},
    "changeUser": {"role": "admin"},
    "createServiceAccount": {"name": "Mine", "scopes": ["ledger:read"]},
    "brandTenant": {"name": "taken over"},
    "configureTenant": {"currency": "USD", "flags": []},
    "limitTenant": {},
    "changeHosts": {"hosts": []},
    "suspendTenant": {"reason": "taken over"},
    "configureSignIn": {"registration": "closed", "second_factor": "required"},
    "recordTransaction": {"lines": [{"sku": "MUG", "quantity": 1}]},
}
STREAMS = {"listen"}  # never ends: test_feed has its own test of isolation


@pytest_asyncio.fixture
async def ids_of_b(b: House) -> dict[str, UUID]:
    """One id of tenant B's for each parameter that a path may have."""
    mug = await b.lists("MUG")
    sale = await b.sells(mug, quantity=3, buyer=b.user, affiliate=b.affiliate)
    refund = await b.refunds(sale, 1)
    await b.refunds_the_unknown()
    program = await b.program("ledger:read")
    return {
        "service_account_id": program.id,
        "session_id": b.user.session_id,
        "key_id": program.key_id,
        "invitation_id": await b.invites("invited@users.test"),
        "product_id": mug.id,
        "transaction_id": sale.id,
        "refund_id": refund.id,
        "tenant_id": b.id,
        "user_id": b.user.id,
        "aggregate_id": sale.id,
    }


def guarded(served: Served) -> list[tuple[HTTPRoute, HTTPRouteHandler, str]]:
    return [
        (route, handler, method)
        for route in served.app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if any(isinstance(guard, rights.Guard) for guard in handler.guards or ())
        and handler.operation_id not in STREAMS
    ]


async def test_no_route_gives_out_or_changes_anything_of_another_tenant(
    served: Served, a: House, b: House, ids_of_b: dict[str, UUID]
) -> None:
    await a.lists("MUG")
    await served.views_reach(b)
    head = (await b.ledger.head(b.id)).position
    secrets = [str(id) for id in ids_of_b.values()] + [str(b.admin.id), str(b.user.id), b.slug]
    tried = 0
    # Whoever ends all of their sessions is nobody afterwards: that comes last.
    by_end = sorted(
        guarded(served), key=lambda it: (rights.right_of(it[1]) == "session:end", "{" not in it[0].path_format)
    )
    for route, handler, method in by_end:
        path = route.path_format.replace("{view}", "sales")  # a name that all tenants have
        for name, id in ids_of_b.items():
            path = path.replace(f"{{{name}}}", str(id))
        assert "{" not in path, f"{path} has a parameter of which ids_of_b has no id: add one"
        operation = handler.operation_id if isinstance(handler.operation_id, str) else f"{_verb(method)}Product"
        answer = await served.client.request(method, path, json=BODIES.get(operation), headers=a.admin.headers)
        if path != route.path_format and "{view}" not in route.path_format:
            expected = 403 if path.startswith("/api/v1/platform") else 404
            assert answer.status_code == expected, (method, path, answer.text)
            body = answer.text
            for asked in path.split("/")[3:]:
                body = body.replace(asked, "")  # the id that was asked for is named again
        else:
            assert answer.status_code < 500, (method, path, answer.text)
            body = answer.text
        for secret in secrets:
            assert secret not in body, (method, path, secret)
        tried += 1
    assert tried >= 20
    assert (await b.ledger.head(b.id)).position == head


def _verb(method: str) -> str:
    return {"PUT": "replace", "PATCH": "change"}[method]


async def test_ids_of_another_tenant_in_a_body_find_nothing(
    served: Served, a: House, b: House, ids_of_b: dict[str, UUID]
) -> None:
    for line in ({"product_id": str(ids_of_b["product_id"])}, {"sku": "MUG"}):
        refused = await served.post(a.admin, "/transactions", {"lines": [{**line, "quantity": 1}]})
        assert (refused.status_code, list(refused.json()["errors"])) == (422, ["lines.0"])


async def test_cursors_of_another_tenant_lead_nowhere(
    served: Served, a: House, b: House, ids_of_b: dict[str, UUID]
) -> None:
    await b.lists("CUP")
    await served.views_reach(b)
    cursor = (await served.get(b.admin, "/products", params={"limit": 1})).json()["meta"]["next_cursor"]
    assert cursor is not None
    page = (await served.get(a.admin, "/products", params={"cursor": cursor})).json()
    assert page == {"data": [], "meta": {"next_cursor": None}}
