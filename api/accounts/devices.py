"""One's own sessions: where one is logged in, and logging out there."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath

from api import answers, headers
from api.asked import HttpRequest, Reader, Sender
from api.rights import may
from api.routes import delete, get
from commands import sessions as commands


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """`device` is what the client called itself (User-Agent) and `address` the one it came from, at `last_seen_at`: the log-in or
    the last refresh. `current`: the one that asks."""

    id: UUID
    device: str
    address: str
    started_at: datetime
    last_seen_at: datetime
    current: bool


class SessionController(Controller):
    path = "/users/me/sessions"
    tags = ("accounts",)

    @get(operation_id="listSessions", operation_class=answers.Query, guards=[may("account:read")])
    async def index(self, reader: NamedDependency[Reader]) -> Response[answers.Page[OpenSession]]:
        """Where one is logged in, last seen first; 50 at the most, so there is no next page."""
        head, who, parts = await reader.head(), reader.who, reader.parts
        found = await commands.listed(who.account_id, who.tenant_id, parts.ledger, parts.session_limits)
        resources = [
            OpenSession(
                id=each.id,
                device=each.device.name,
                address=each.device.address,
                started_at=each.started_at,
                last_seen_at=each.seen_at,
                current=each.id == who.session_id,
            )
            for each in found
        ]
        return answers.page(resources, None, reader.shown(head), 0)

    @delete(
        "/{session_id:uuid}",
        operation_id="endSession",
        operation_class=answers.Command,
        guards=[may("session:end")],
        status_code=204,
    )
    async def end(self, session_id: FromPath[UUID], sender: NamedDependency[Sender]) -> Response[None]:
        """Log out there. Its tokens are refused everywhere within 2 s; doing it again changes nothing."""
        caller, who = sender.caller, sender.who
        receipt = await commands.end(session_id, who.account_id, "ended by its account", caller, sender.ledger)
        return answers.nothing(sender.shown(receipt.position))

    @delete(operation_id="endSessions", operation_class=answers.Command, guards=[may("session:end")], status_code=204)
    async def end_all(self, sender: NamedDependency[Sender]) -> Response[None]:
        """Log out everywhere, here too."""
        position = await commands.end_all(sender.who.account_id, "logged out everywhere", sender.caller, sender.ledger)
        return answers.nothing(sender.shown(position))


def of(request: HttpRequest) -> commands.Device:
    """The device that asks, as it says itself."""
    name = headers.first(request.scope, b"user-agent") or ""
    return commands.device(name, request.client.host if request.client else "")
