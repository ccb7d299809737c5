"""Who may do what: one table from role to rights, declared on each route by a guard."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from api import headers
from domain import accounts

_MEMBER = frozenset(
    {
        "account:read",  # one's own
        "account:erase",  # one's own
        "session:end",  # one's own
        "tenants:read",  # one's own
        "products:read",
        "transactions:read",  # those of which one is buyer or affiliate
        "transactions:write",  # as the buyer oneself, at the catalogue's prices
        "feed:read",  # what one may see by query
    }
)
_ADMIN = _MEMBER | {
    "accounts:erase",
    "accounts:export",
    "ledger:read",
    "products:write",
    "projections:read",
    "projections:write",  # fill a view of the own tenant anew
    "transactions:read_all",
    "transactions:price",  # sell at other prices than the catalogue's
    "transactions:record",  # for others: buyer, reference, source and time are the caller's word
    "transactions:refund",
    "transactions:summary",
}

RIGHTS: dict[str, frozenset[str]] = {
    accounts.Role.ADMIN: frozenset(_ADMIN),
    accounts.Role.USER: _MEMBER,
    accounts.Role.AFFILIATE: _MEMBER,
    accounts.Role.SUPER_ADMIN: frozenset({"account:read", "account:erase", "session:end", "tenants:read"}),
}


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
    """Lets pass who has the right, and leaves in the connection's scope who it is. Raises Unauthenticated, Forbidden."""

    def __init__(self, right: str) -> None:
        self.right = right

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        scope = connection.scope
        authenticate: Callable[[str | None], Who] = scope["litestar_app"].state["authenticate"]
        who = authenticate(headers.first(scope, b"authorization"))
        if self.right not in who.rights:
            raise Forbidden(f"Your role does not have this right: {self.right}. Ask an admin of your tenant.")
        scope["user"] = who


def may(right: str) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """The guard for a route: `guards=[may("products:write")]`."""
    if not any(right in rights for rights in RIGHTS.values()):
        raise ValueError(f"No role has the right {right!r}. Add it to the table.")
    return Guard(right)
