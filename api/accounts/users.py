"""Who one is."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency

from api import answers
from api.asked import Reader
from api.rights import may
from api.routes import get
from commands import accounts as commands
from domain import accounts
from ledger import codec


class User(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: active, deactivated, or erased; address and name of who was erased read `[erased]`."""

    id: UUID
    email: str
    name: str
    role: str
    tenant_id: UUID
    status: str
    inserted_at: datetime
    updated_at: datetime


class UserController(Controller):
    path = "/users"
    tags = ("accounts",)

    @get("/me", operation_id="showMe", operation_class=answers.Query, guards=[may("account:read")])
    async def me(self, reader: NamedDependency[Reader]) -> Response[answers.Data[User]]:
        """Whose token this is."""
        head = await reader.head()
        account = await commands.show(reader.who.account_id, reader.tenant_id, reader.parts.ledger)
        return answers.one(of(account), reader.shown(head), version=account.version)


def of(account: accounts.Account) -> User:
    return User(
        id=account.id,
        email=account.email,
        name=account.name,
        role=account.role,
        tenant_id=account.tenant_id,
        status=status_of(account),
        inserted_at=account.created_on,
        updated_at=account.modified_on,
    )


def status_of(account: accounts.Account) -> str:
    if account.email == codec.ERASED:
        return accounts.Status.ERASED
    return accounts.Status.ACTIVE if account.active else accounts.Status.DEACTIVATED
