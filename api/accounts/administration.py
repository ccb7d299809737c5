"""Users as admins have them: list, make, change, deactivate."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from api import answers, bodies, cursors
from api.accounts import users, visibility
from api.asked import Reader, Sender
from api.rights import may
from api.routes import delete, get, post, route
from commands import accounts as commands
from commands.accounts import administering
from domain import accounts
from projections import accounts as view

PATH = "/api/v1/users"


class UserBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`role`: user unless it says otherwise."""

    email: str
    name: str
    password: str
    role: str = accounts.Role.USER


class UserReplacement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    role: str


class UserChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    role: str | msgspec.UnsetType = msgspec.UNSET


class UserAdministration(Controller):
    path = "/users"
    tags = ("accounts",)

    @get(operation_id="listUsers", operation_class=answers.Query, guards=[may("accounts:read")])
    async def index(
        self,
        reader: NamedDependency[Reader],
        limit: Annotated[int, QueryParameter(ge=1, le=cursors.LIMIT_MAX)] = cursors.LIMIT_DEFAULT,
        cursor: FromQuery[str | None] = None,
        role: FromQuery[accounts.Role | None] = None,
        status: FromQuery[accounts.Status | None] = None,
    ) -> Response[answers.Page[users.User]]:
        """The tenant's users, the newest first; of a role or status only, if one is named."""
        before = cursors.decode(cursor)
        found = await reader.read(
            lambda connection: view.page(connection, reader.tenant_id, before, limit, role=role, status=status),
            view.NAME,
        )
        rows = [_of_row(row, reader.tenant_id) for row in found.rows]
        return answers.page(rows, found.next, reader.shown(found.position), found.parked)

    @get("/{user_id:uuid}", operation_id="showUser", operation_class=answers.Query, guards=[may("account:read")])
    async def show(
        self, user_id: FromPath[UUID], reader: NamedDependency[Reader]
    ) -> Response[answers.Data[users.User]]:
        """Oneself, or for admins anybody of the tenant."""
        visibility.check(reader.who, user_id, "accounts:read")
        head = await reader.head()
        account = await commands.show(user_id, reader.tenant_id, reader.parts.ledger)
        return answers.one(users.of(account), reader.shown(head), version=users.version(account))

    @post(
        operation_id="createUser",
        operation_class=answers.Command,
        guards=[may("accounts:write")],
        dto=bodies.named("user", UserBody),
    )
    async def create(
        self, data: JSONBody[UserBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[users.User]]:
        """Make an account with a password that its person should change. 409 if the address is taken."""
        command = commands.Register(email=data.email, name=data.name, password=data.password, role=data.role)
        receipt = await commands.register(command, sender.caller, sender.ledger, sender.parts.passwords)
        account = receipt.aggregate
        shown = sender.shown(receipt.position)
        return answers.created(users.of(account), shown, f"{PATH}/{account.id}", version=account.version)

    @route(
        "/{user_id:uuid}",
        http_method=["PUT"],
        operation_id="replaceUser",
        operation_class=answers.Command,
        guards=[may("accounts:write")],
        dto=bodies.named("user", UserReplacement),
        status_code=200,
    )
    async def replace(
        self, user_id: FromPath[UUID], data: JSONBody[UserReplacement], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[users.User]]:
        """Name and role. Another role ends the user's sessions. 409 for the last admin's role, and if it was deactivated."""
        command = administering.Change(account_id=user_id, name=data.name, role=data.role, version=sender.version)
        return await _changed(command, sender)

    @route(
        "/{user_id:uuid}",
        http_method=["PATCH"],
        operation_id="changeUser",
        operation_class=answers.Command,
        guards=[may("accounts:write")],
        dto=bodies.named("user", UserChange),
        status_code=200,
    )
    async def change(
        self, user_id: FromPath[UUID], data: JSONBody[UserChange], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[users.User]]:
        """Name, role, or both at once, as PUT."""
        command = administering.Change(
            account_id=user_id,
            name=None if data.name is msgspec.UNSET else data.name,
            role=None if data.role is msgspec.UNSET else data.role,
            version=sender.version,
        )
        return await _changed(command, sender)

    @delete(
        "/{user_id:uuid}",
        operation_id="deactivateUser",
        operation_class=answers.Command,
        guards=[may("account:deactivate")],
    )
    async def deactivate(self, user_id: FromPath[UUID], sender: NamedDependency[Sender]) -> Response[None]:
        """Nobody logs in with the account any more, and its sessions end; what it did stays, and so does its address. For oneself, or
        for admins anybody of the tenant. 409 for the last admin. `POST /users/{id}/erasure` forgets the person."""
        visibility.check(sender.who, user_id, "accounts:write")
        command = administering.Deactivate(account_id=user_id, version=sender.version)
        receipt = await administering.deactivate(command, sender.caller, sender.ledger)
        return answers.nothing(sender.shown(receipt.position))

    @post(
        "/{user_id:uuid}/reactivation",
        operation_id="reactivateUser",
        operation_class=answers.Command,
        guards=[may("accounts:write")],
        status_code=200,
    )
    async def reactivate(
        self, user_id: FromPath[UUID], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[users.User]]:
        """The person may log in again, with the password that there was."""
        command = administering.Reactivate(account_id=user_id, version=sender.version)
        receipt = await administering.reactivate(command, sender.caller, sender.ledger)
        account = receipt.aggregate
        return answers.one(users.of(account), sender.shown(receipt.position), version=account.version)


async def _changed(command: administering.Change, sender: Sender) -> Response[answers.Data[users.User]]:
    receipt = await administering.change(command, sender.caller, sender.ledger)
    account = receipt.aggregate
    return answers.one(users.of(account), sender.shown(receipt.position), version=account.version)


def _of_row(row: view.AccountRow, tenant_id: UUID) -> users.User:
    return users.User(
        id=row.id,
        email=row.email,
        name=row.name,
        role=row.role,
        tenant_id=tenant_id,
        status=row.status,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
    )
