"""Programs that act by themselves: service accounts, and their keys."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api import answers, bodies, roles
from api.asked import Reader, Sender
from api.parts import Parts
from api.rights import Who, may
from api.routes import delete, get, post
from api.sent import Found
from commands import service_accounts as commands
from domain.service_accounts import ServiceAccount as Aggregate
from ledger import key_uses

PATH = "/api/v1/service-accounts"


class ServiceAccountBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`scopes`: rights out of those of whoever makes it."""

    name: str
    scopes: list[str]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """`last_used_at` to within five minutes; null: never."""

    id: UUID
    last_used_at: datetime | None


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: open or closed."""

    id: UUID
    name: str
    scopes: list[str]
    status: str
    keys: list[Key]
    created_by: UUID | None
    inserted_at: datetime
    updated_at: datetime


class ServiceAccountWithKey(ServiceAccount, frozen=True, kw_only=True):
    """`key` is shown this once, and null in the answer to a repeat."""

    key_id: UUID
    key: str | None


class ServiceAccounts(msgspec.Struct, frozen=True, kw_only=True):
    data: list[ServiceAccount]
    meta: answers.PageMeta


class ServiceAccountController(Controller):
    path = "/service-accounts"
    tags = ("accounts",)

    @get(operation_id="listServiceAccounts", operation_class=answers.Query, guards=[may("service_accounts:read")])
    async def index(self, reader: NamedDependency[Reader]) -> Response[ServiceAccounts]:
        """Those that were not closed, the newest first: at most 100."""
        head = await reader.head()
        ids = await commands.all_ids(reader.tenant_id, reader.parts.ledger)
        found = await reader.parts.ledger.load_many(Aggregate, reader.tenant_id, ids)
        shown = await _shown(sorted(found.values(), key=lambda each: each.id, reverse=True), reader.parts)
        return Found(ServiceAccounts(data=shown, meta=answers.PageMeta(None)), reader.shown(head))

    @post(
        operation_id="createServiceAccount",
        operation_class=answers.Command,
        guards=[may("service_accounts:write")],
        dto=bodies.named("service_account", ServiceAccountBody),
    )
    async def create(
        self, data: JSONBody[ServiceAccountBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[ServiceAccountWithKey]]:
        """A program with rights of its own, and its first key, which is shown this once."""
        command = commands.Create(name=data.name, scopes=data.scopes, may_give=may_give(sender.who))
        return await _made(await commands.make(command, sender.caller, sender.ledger), sender)

    @get(
        "/{service_account_id:uuid}",
        operation_id="showServiceAccount",
        operation_class=answers.Query,
        guards=[may("service_accounts:read")],
    )
    async def show(
        self, service_account_id: FromPath[UUID], reader: NamedDependency[Reader]
    ) -> Response[answers.Data[ServiceAccount]]:
        """One, closed or not."""
        head = await reader.head()
        account = await reader.parts.ledger.load(Aggregate, reader.tenant_id, service_account_id)
        (shown,) = await _shown([account], reader.parts)
        return answers.one(shown, reader.shown(head), version=account.version)

    @delete(
        "/{service_account_id:uuid}",
        operation_id="closeServiceAccount",
        operation_class=answers.Command,
        guards=[may("service_accounts:write")],
    )
    async def close(self, service_account_id: FromPath[UUID], sender: NamedDependency[Sender]) -> Response[None]:
        """Its keys count no more, for good."""
        command = commands.Close(account_id=service_account_id, version=sender.version)
        receipt = await commands.close(command, sender.caller, sender.ledger)
        return answers.nothing(sender.shown(receipt.position))

    @post(
        "/{service_account_id:uuid}/keys",
        operation_id="issueKey",
        operation_class=answers.Command,
        guards=[may("service_accounts:write")],
    )
    async def issue_key(
        self, service_account_id: FromPath[UUID], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[ServiceAccountWithKey]]:
        """A second key, to be used before the first one is revoked. 409 if there are two."""
        made = await commands.issue_key(service_account_id, sender.caller, sender.ledger, version=sender.version)
        return await _made(made, sender)

    @delete(
        "/{service_account_id:uuid}/keys/{key_id:uuid}",
        operation_id="revokeKey",
        operation_class=answers.Command,
        guards=[may("service_accounts:write")],
    )
    async def revoke_key(
        self,
        service_account_id: FromPath[UUID],
        key_id: FromPath[UUID],
        sender: NamedDependency[Sender],
    ) -> Response[None]:
        """The key counts no more, within two seconds everywhere. 409 if there is none of that id."""
        command = commands.RevokeKey(account_id=service_account_id, key_id=key_id, version=sender.version)
        receipt = await commands.revoke_key(command, sender.caller, sender.ledger)
        return answers.nothing(sender.shown(receipt.position))


def may_give(who: Who) -> frozenset[str]:
    """The rights that somebody can give to a key."""
    return who.rights & roles.SCOPES


async def _made(made: commands.Made, sender: Sender) -> Response[answers.Data[ServiceAccountWithKey]]:
    account = made.receipt.aggregate
    (shown,) = await _shown([account], sender.parts)
    resource = ServiceAccountWithKey(**msgspec.structs.asdict(shown), key_id=made.key_id, key=made.key)
    response = answers.created(
        resource, sender.shown(made.receipt.position), f"{PATH}/{account.id}", version=account.version
    )
    response.headers["Cache-Control"] = "no-store"
    return response


async def _shown(accounts: Sequence[Aggregate], parts: Parts) -> list[ServiceAccount]:
    """All of one tenant."""
    if not accounts:
        return []
    keys = [key for account in accounts for key in account.keys]
    async with parts.pool.connection() as connection:
        used = await key_uses.last(connection, accounts[0].tenant_id, keys)
    return [
        ServiceAccount(
            id=account.id,
            name=account.name,
            scopes=account.scopes,
            status="closed" if account.closed else "open",
            keys=[Key(id=key, last_used_at=used.get(key)) for key in account.keys],
            created_by=account.created_by,
            inserted_at=account.created_on,
            updated_at=account.modified_on,
        )
        for account in accounts
    ]
