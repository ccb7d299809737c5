"""Who one is."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import JSONBody

from api import answers, bodies, etags
from api.accounts.seldom import seldom
from api.asked import Reader, Sender
from api.rights import may
from api.routes import get, patch
from commands import accounts as commands
from commands.accounts import administering
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


class Me(User, frozen=True, kw_only=True):
    """What one sees of oneself besides."""

    email_verified: bool
    second_factor: bool


class ProfileBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is."""

    name: str | msgspec.UnsetType = msgspec.UNSET


class UserController(Controller):
    path = "/users"
    tags = ("accounts",)

    @get("/me", operation_id="showMe", operation_class=answers.Query, guards=[may("account:read")])
    async def me(self, reader: NamedDependency[Reader]) -> Response[answers.Data[Me]]:
        """Whose token this is."""
        head = await reader.head()
        account = await commands.show(reader.who.account_id, reader.tenant_id, reader.parts.ledger)
        return answers.one(me(account), reader.shown(head), version=version(account))

    @patch(
        "/me",
        operation_id="changeMe",
        operation_class=answers.Command,
        guards=[may("account:write"), seldom],
        dto=bodies.named("user", ProfileBody),
    )
    async def change(self, data: JSONBody[ProfileBody], sender: NamedDependency[Sender]) -> Response[answers.Data[Me]]:
        """One's own name. Address and password have ways of their own."""
        name = None if data.name is msgspec.UNSET else data.name
        command = administering.Change(account_id=sender.who.account_id, name=name, version=sender.version)
        receipt = await administering.change(command, sender.caller, sender.ledger)
        account = receipt.aggregate
        return answers.one(me(account), sender.shown(receipt.position), version=account.version)


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


def me(account: accounts.Account) -> Me:
    return Me(
        **msgspec.structs.asdict(of(account)),
        email_verified=account.email_verified,
        second_factor=account.second_factor,
    )


def version(account: accounts.Account) -> int | str:
    """For the ETag."""
    return etags.version(account.version, erased=account.email == codec.ERASED)


def status_of(account: accounts.Account) -> str:
    if account.email == codec.ERASED:
        return accounts.Status.ERASED
    return accounts.Status.ACTIVE if account.active else accounts.Status.DEACTIVATED
