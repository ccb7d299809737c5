"""The application: routes, dependencies, errors."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers.base import BaseRouteHandler
from litestar.types import Receive, Scope, Send, WebSocketScope

from api import (
    api_keys,
    asked,
    attempts,
    audit,
    bodies,
    edge,
    errors,
    health,
    invitations,
    ledger,
    limits,
    metrics,
    platform,
    privacy,
    products,
    projections,
    refunds,
    rights,
    schema,
    service_accounts,
    tenants,
    tokens,
)
from api.accounts.administration import UserAdministration
from api.accounts.auth import AuthController
from api.accounts.devices import SessionController
from api.accounts.emails import EmailController
from api.accounts.passwords import PasswordController
from api.accounts.second_factors import SecondFactorController
from api.accounts.users import UserController
from api.feed import controller as feed
from api.feed.feed import Feed
from api.live import page as live
from api.parts import Parts
from api.plainsocket import endpoint as plainsocket
from api.socket import endpoint as socket
from api.socket import longpoll
from api.socket.client import Shared
from api.socket.presence import Presence
from api.socket.sessions import Sessions
from api.socket.sockets import Sockets
from api.transactions.controller import TransactionController

PREFIX = "/api/v1"
COUNTED = ("products:", "transactions:")
"""What begins the rights of routes whose commands a limit may stop; never those of accounts and security."""


class Application(Litestar):
    """Sockets do not go through the framework, which would keep a stack of its own for each as long as it lives."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket" and scope["path"] in SOCKETS:
            await self.state["edge"].socket(partial(SOCKETS[scope["path"]], self.state), scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


SOCKETS: dict[str, Callable[[State, WebSocketScope, Receive, Send], Awaitable[None]]] = {
    socket.PATH: socket.websocket,
    plainsocket.PATH: plainsocket.websocket,
}
"""By their path."""


def create_app(parts: Parts) -> Litestar:
    """An ASGI application with a lifespan. It starts nothing of `parts` and closes nothing of it.

    Raises RightUndeclared: a route does not say who may ask it.
    """
    access_tokens = tokens.AccessTokens(
        parts.token_keys, parts.ledger.revocations, parts.token_issuer, parts.token_audience
    )
    listeners, sockets, sessions, presence = Feed(parts), Sockets(parts), Sessions(parts), Presence(parts)
    known = limits.TenantsKnown(parts.ledger, parts.pool)
    parts.rates.requests_per_minute = known.requests_per_minute

    keys = api_keys.ApiKeys(parts.ledger, parts.pool, access_tokens.check_counts, parts.rates)

    def authenticate(authorization: str | None, scope: Scope | None = None) -> rights.Who | Awaitable[rights.Who]:
        key = api_keys.key_of(authorization)
        return access_tokens.authenticate(authorization) if key is None else keys.authenticate(key, scope)

    in_flight: set[UUID] = set()  # ids of commands with an idempotency key, from their request to their answer

    async def provide_parts() -> Parts:
        return parts

    app = Application(
        [
            health.health,
            health.ready,
            health.keys,
            metrics.metrics,
            socket.no_websocket,
            longpoll.longpoll,
            live.router(),
            Router(
                PREFIX,
                route_handlers=[
                    AuthController,
                    UserController,
                    SessionController,
                    UserAdministration,
                    service_accounts.ServiceAccountController,
                    PasswordController,
                    EmailController,
                    SecondFactorController,
                    invitations.InvitationController,
                    privacy.PrivacyController,
                    privacy.BuyerController,
                    tenants.TenantController,
                    tenants.branding,
                    platform.PlatformController,
                    products.ProductController,
                    TransactionController,
                    refunds.RefundController,
                    ledger.LedgerController,
                    audit.AuditController,
                    projections.ProjectionController,
                    feed.FeedController,
                ],
            ),
        ],
        dependencies={
            "parts": Provide(provide_parts),
            "sender": Provide(asked.sender),
            "reader": Provide(asked.reader),
        },
        exception_handlers={Exception: errors.answer},
        logging_config=None,  # what fails unexpectedly is logged by `errors`, by the standard library
        on_shutdown=[sessions.close, sockets.close, presence.close, listeners.close, known.close, attempts.close],
        openapi_config=schema.config(parts.version),
        request_class=asked.HttpRequest,
        request_max_body_size=bodies.BODY_BYTES_MAX,
        return_dto=None,
        state=State(
            {
                "parts": parts,
                "access_tokens": access_tokens,
                "authenticate": authenticate,
                "feed": listeners,
                "tenants_known": known,
                "counted": set[
                    BaseRouteHandler
                ](),  # the routes whose commands count towards a tenant's events of a day
                "database": health.Database(parts),
                "sockets": sockets,
                "sessions": sessions,
                "presence": presence,
                "channels": Shared(parts, listeners, presence, known),
                "in_flight": in_flight,
                "rates": parts.rates,
            },
            deep_copy=False,
        ),
    )
    routes = rights.declared(app)
    app.state["counted"].update(each for each in routes.values() if (rights.right_of(each) or "").startswith(COUNTED))
    open_paths = frozenset(name.partition(" ")[2] for name, each in routes.items() if rights.right_of(each) is None)
    app.asgi_handler = app.state["edge"] = edge.Edge(app.asgi_handler, parts, in_flight, open_paths)
    return app
