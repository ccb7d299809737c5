"""Who may do what: each route declares a right by a guard, or says why it is open to all. The application does not start
with one that does neither. Which role has which right stands in `roles`."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Scope

from api import headers, roles

RIGHTS = roles.RIGHTS
OPEN_TO_ALL = "open_to_all"
"""The key of the mark of a route that needs no right; its value says why."""


class Unauthenticated(Exception):
    """No token, or none that is good. The answer says so with WWW-Authenticate."""


class Forbidden(Exception):
    """The caller is known and may not do this. `fields` names what in the body was too much."""

    def __init__(self, message: str, fields: dict[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.fields = fields or {}


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """The caller, as the token says. `rights` is what the role has; `expires_at` in seconds since 1970."""

    tenant_id: UUID
    account_id: UUID
    role: str
    session_id: UUID
    expires_at: int
    rights: frozenset[str]

    def may(self, right: str) -> bool:
        return right in self.rights


class Guard:
    """Lets pass who has the right, and leaves in the connection's scope who it is. Raises Unauthenticated, Forbidden, RateLimited."""

    def __init__(self, right: str) -> None:
        self.right = right

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        scope = connection.scope
        state = scope["litestar_app"].state
        authenticate: Callable[[str | None, Scope], Who | Awaitable[Who]] = state["authenticate"]
        try:
            who = authenticate(headers.first(scope, b"authorization"), scope)
            if not isinstance(who, Who):  # an API key that has to be looked up
                who = await who
        except Unauthenticated:
            await state["rates"].ready(scope)  # the attempt is counted where the error is answered
            raise
        await self.admit(connection, who)

    async def admit(self, connection: ASGIConnection[Any, Any, Any, Any], who: Who) -> None:
        """Raises Forbidden, RateLimited."""
        if self.right not in who.rights:
            raise Forbidden(f"Your role does not have this right: {self.right}. Ask an admin of your tenant.")
        scope = connection.scope
        scope["user"] = who
        rates = scope["litestar_app"].state["rates"]
        unleased = rates.known(scope, who)
        if unleased is not None:
            await rates.later(unleased, partial(rates.known, scope, who))


def may(right: str) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """The guard for a route: `guards=[may("products:write")]`."""
    if not any(right in rights for rights in RIGHTS.values()):
        raise ValueError(f"No role has the right {right!r}. Add it to the table.")
    return Guard(right)


def open_to_all(why: str) -> dict[str, str]:
    """The mark of a route that anybody may ask: `opt=open_to_all("to log in")`."""
    return {OPEN_TO_ALL: why}


class RightUndeclared(Exception):
    """A route says neither which right it needs nor that it is open to all."""

    def __init__(self, route: str) -> None:
        super().__init__(
            f'A route does not say who may ask it: {route}. Give it guards=[may("RIGHT")] or opt=open_to_all("WHY").'
        )


def declared(app: Litestar) -> dict[str, BaseRouteHandler]:
    """The handlers of all routes, by method and path: of HTTP, of WebSockets (GET), and of mounted applications (ANY).

    Raises RightUndeclared.
    """
    found: dict[str, BaseRouteHandler] = {}
    for route in app.routes:
        path = route.path_format or "/"
        if isinstance(route, HTTPRoute):
            for method, (of_method, _) in route.route_handler_map.items():
                if method != "OPTIONS":  # the framework's own: which methods there are
                    found[f"{method} {path}"] = of_method
        else:
            found[f"{route.scope_type.name} {path}"] = route.route_handler
    for name, handler in found.items():
        if right_of(handler) is None and not handler.opt.get(OPEN_TO_ALL):
            raise RightUndeclared(name)
    return found


def right_of(handler: BaseRouteHandler) -> str | None:
    """The right that a route needs."""
    guards = [guard for layer in handler.ownership_layers for guard in layer.guards or ()]
    return next((guard.right for guard in guards if isinstance(guard, Guard)), None)
