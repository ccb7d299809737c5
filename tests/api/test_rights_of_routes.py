"""Every route declares a right, or stands in the list of those that are open to all."""

import re
from typing import Any

import pytest
from litestar import Controller, Litestar, WebSocket, asgi, get, websocket
from litestar.types import Receive, Scope, Send

from api import rights
from tests.api.house import House, Served

OPEN_TO_ALL = {
    "ASGI /socket/longpoll",  # its tokens come in the query
    "ASGI /socket/websocket",  # tells that it is none
    "GET /health",
    "GET /ready",
    "GET /metrics",  # its own rule: a scraper's token, or this machine
    "GET /.well-known/jwks.json",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/refresh",
    "GET /api/v1/tenant/branding",
    "POST /api/v1/auth/password/forgot",
    "POST /api/v1/auth/password/reset",
    "POST /api/v1/auth/email/verify",
    "POST /api/v1/auth/email/change",
    "POST /api/v1/auth/second-factor",
    "POST /api/v1/auth/second-factor/enrolment",
    "POST /api/v1/auth/second-factor/confirmation",
    "GET /live",  # a page; what it shows it asks for with a token
    "GET /live/live.css",
    "GET /live/live.js",
    "GET /live/sales.js",
    "GET /live/client.js",
    "GET /live/feed.js",
    "GET /live/problem.js",
    "GET /schema",
    "GET /schema/openapi.json",
    "GET /schema/openapi-3.0.json",
    "GET /schema/{path}",
    "GET /schema/start.js",
    "GET /schema/swagger-ui.css",
    "GET /schema/swagger-ui-bundle.js",
    "GET /schema/favicon-32x32.png",
}

MEMBER = {
    "account:write",
    "account:read",
    "account:erase",
    "account:deactivate",
    "session:end",
    "tenants:read",
    "products:read",
    "transactions:read",
    "transactions:write",
}
DECLARED = {
    "POST /api/v1/auth/logout": "session:end",
    "GET /api/v1/users": "accounts:read",
    "POST /api/v1/users": "accounts:write",
    "GET /api/v1/users/me": "account:read",
    "GET /api/v1/users/me/sessions": "account:read",
    "DELETE /api/v1/users/me/sessions": "session:end",
    "DELETE /api/v1/users/me/sessions/{session_id}": "session:end",
    "GET /api/v1/users/{user_id}": "account:read",
    "PUT /api/v1/users/{user_id}": "accounts:write",
    "PATCH /api/v1/users/{user_id}": "accounts:write",
    "DELETE /api/v1/users/{user_id}": "account:deactivate",
    "POST /api/v1/users/{user_id}/reactivation": "accounts:write",
    "GET /api/v1/users/{user_id}/export": "account:read",
    "POST /api/v1/users/{user_id}/erasure": "account:erase",
    "GET /api/v1/service-accounts": "service_accounts:read",
    "POST /api/v1/service-accounts": "service_accounts:write",
    "GET /api/v1/service-accounts/{service_account_id}": "service_accounts:read",
    "DELETE /api/v1/service-accounts/{service_account_id}": "service_accounts:write",
    "POST /api/v1/service-accounts/{service_account_id}/keys": "service_accounts:write",
    "DELETE /api/v1/service-accounts/{service_account_id}/keys/{key_id}": "service_accounts:write",
    "PATCH /api/v1/users/me": "account:write",
    "PUT /api/v1/users/me/password": "account:write",
    "POST /api/v1/users/me/email": "account:write",
    "POST /api/v1/users/me/email/verification": "account:write",
    "POST /api/v1/users/me/second-factor": "account:write",
    "POST /api/v1/users/me/second-factor/confirmation": "account:write",
    "POST /api/v1/users/me/second-factor/removal": "account:write",
    "DELETE /api/v1/users/{user_id}/second-factor": "accounts:write",
    "GET /api/v1/invitations": "accounts:invite",
    "POST /api/v1/invitations": "accounts:invite",
    "DELETE /api/v1/invitations/{invitation_id}": "accounts:invite",
    "PUT /api/v1/tenants/{tenant_id}/sign-in": "tenants:write",
    "POST /api/v1/buyers/erasure": "accounts:erase",
    "GET /api/v1/tenants/{tenant_id}": "tenants:read",
    "PUT /api/v1/tenants/{tenant_id}/branding": "tenants:write",
    "PUT /api/v1/tenants/{tenant_id}/configuration": "tenants:write",
    "GET /api/v1/platform/tenants": "platform:read",
    "POST /api/v1/platform/tenants": "platform:write",
    "GET /api/v1/platform/tenants/{tenant_id}": "platform:read",
    "PUT /api/v1/platform/tenants/{tenant_id}/limits": "platform:write",
    "PUT /api/v1/platform/tenants/{tenant_id}/hosts": "platform:write",
    "POST /api/v1/platform/tenants/{tenant_id}/suspension": "platform:write",
    "DELETE /api/v1/platform/tenants/{tenant_id}/suspension": "platform:write",
    "GET /api/v1/platform/figures": "platform:read",
    "GET /api/v1/products": "products:read",
    "POST /api/v1/products": "products:write",
    "GET /api/v1/products/{product_id}": "products:read",
    "PUT /api/v1/products/{product_id}": "products:write",
    "PATCH /api/v1/products/{product_id}": "products:write",
    "DELETE /api/v1/products/{product_id}": "products:write",
    "PUT /api/v1/products/{product_id}/price": "products:write",
    "GET /api/v1/transactions": "transactions:read",
    "POST /api/v1/transactions": "transactions:write",
    "GET /api/v1/transactions/summary": "transactions:summary",
    "GET /api/v1/transactions/{transaction_id}": "transactions:read",
    "DELETE /api/v1/transactions/{transaction_id}": "transactions:refund",
    "POST /api/v1/transactions/{transaction_id}/refunds": "transactions:refund",
    "GET /api/v1/refunds": "transactions:read",
    "GET /api/v1/refunds/{refund_id}": "transactions:read",
    "GET /api/v1/ledger/head": "ledger:read",
    "GET /api/v1/ledger/entries": "ledger:read",
    "GET /api/v1/ledger/aggregates/{aggregate_id}": "ledger:read",
    "GET /api/v1/feed": "feed:read",
    "GET /api/v1/audit": "audit:read",
    "POST /api/v1/feed/tickets": "feed:read",
    "GET /api/v1/admin/projections": "projections:read",
    "GET /api/v1/admin/projections/{view}/rebuild": "projections:read",
    "POST /api/v1/admin/projections/{view}/rebuild": "projections:write",
}


async def test_every_route_declares_its_right(served: Served) -> None:
    """A route that was added without a right would be open to everybody."""
    found = {name: rights.right_of(handler) for name, handler in rights.declared(served.app).items()}
    assert {name for name, right in found.items() if right is None} == OPEN_TO_ALL
    assert {name: right for name, right in found.items() if right is not None} == DECLARED


@get("/open")
async def unguarded() -> None:
    """A route as somebody in a hurry writes it."""


@get("/closed", guards=[rights.may("products:read")])
async def guarded() -> None:
    pass


@get("/marked", opt=rights.open_to_all("it is a test"))
async def marked() -> None:
    pass


@websocket("/socket")
async def unguarded_socket(socket: WebSocket[Any, Any, Any]) -> None:
    pass


@asgi("/files", is_mount=True, copy_scope=True)
async def unguarded_mount(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@pytest.mark.parametrize("route", [unguarded, unguarded_socket, unguarded_mount])
def test_an_application_with_a_route_that_declares_nothing_is_refused(route: Any) -> None:
    """Of whichever kind: it would be open to everybody."""
    assert len(rights.declared(Litestar([guarded, marked], openapi_config=None))) == 2
    with pytest.raises(rights.RightUndeclared, match=next(iter(route.paths))):
        rights.declared(Litestar([guarded, marked, route], openapi_config=None))


def test_a_controllers_guard_is_that_of_its_routes() -> None:
    class Shelf(Controller):
        guards = [rights.may("products:read")]  # noqa: RUF012  the framework's way

        @get("/shelf")
        async def show(self) -> None:
            pass

    found = rights.declared(Litestar([Shelf], openapi_config=None))
    assert [rights.right_of(handler) for handler in found.values()] == ["products:read"]


async def test_what_a_role_lacks_is_forbidden_and_what_it_has_is_not(served: Served, a: House) -> None:
    for name, right in DECLARED.items():
        if right == "feed:read":
            continue  # a stream
        method, path = name.split(" ")
        path = path.replace("{tenant_id}", str(a.id)).replace("{view}", "sales")
        for parameter in (
            "{product_id}",
            "{transaction_id}",
            "{refund_id}",
            "{user_id}",
            "{aggregate_id}",
            "{session_id}",
        ):
            path = path.replace(parameter, str(a.id))
        path = re.sub(r"\{\w+_id\}", str(a.id), path)
        assert (await served.client.request(method, path)).status_code == 401
        for person in (a.admin, a.user, a.affiliate):
            if right == "session:end" and "{session_id}" not in name:
                continue  # would end the session
            answer = await served.client.request(method, path, headers=person.headers)
            allowed = (person is a.admin and not right.startswith("platform:")) or right in MEMBER
            assert (answer.status_code != 403) == allowed, (name, person.role, answer.text)


def test_a_right_that_nobody_has_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="producs:write"):
        rights.may("producs:write")
