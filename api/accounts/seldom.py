"""Changes of one's own account: each is an event for good, and an account is read by its whole history. So there are few of them."""

from functools import partial
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from api.rates import Rates


async def seldom(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A guard, after the one that finds out who it is. Raises RateLimited."""
    scope = connection.scope
    rates: Rates = scope["litestar_app"].state["rates"]
    unleased = rates.changing(scope, scope["user"])
    if unleased is not None:
        await rates.later(unleased, partial(rates.changing, scope, scope["user"]))
