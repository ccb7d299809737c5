"""A person's own data: all of it in one document, and the end of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.response import Stream

from api import answers, audit, bodies, refunds
from api.accounts import visibility
from api.asked import Reader, Sender
from api.rights import may
from api.routes import get, post
from api.transactions import resources
from commands import accounts as account_commands
from commands import exports, sessions
from commands import privacy as commands
from commands.accounts import held
from domain import accounts
from ledger import security
from projections import reading
from projections import refunds as refunds_view
from projections import transactions as transactions_view

_ENCODER = msgspec.json.Encoder()
EVENTS_PER_READ = 100
"""Some 100 KiB."""


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """`erased_at`: when it was recorded, also if it was asked for before."""

    user_id: UUID
    erased_at: datetime


class BuyerBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`buyer_ref`: the reference under which sales or refunds were recorded, of whichever source."""

    buyer_ref: str


class BuyerErasure(msgspec.Struct, frozen=True, kw_only=True):
    """`subject_id`: the random id that stands in the events in the buyer's place."""

    subject_id: UUID
    erased_at: datetime


class ExportedSession(msgspec.Struct, frozen=True, kw_only=True):
    """`device` and `address`: of the log-in or the last refresh, at `last_seen_at`."""

    id: UUID
    device: str
    address: str
    started_at: datetime
    last_seen_at: datetime


class ExportedUser(msgspec.Struct, frozen=True, kw_only=True):
    """`sessions`: those that have not ended. `asked_email`: to which a change was asked for and not confirmed."""

    id: UUID
    email: str
    email_verified: bool
    former_emails: list[str]
    asked_email: str | None
    asked_email_at: datetime | None
    name: str
    former_names: list[str]
    role: str
    second_factor: bool
    tenant_id: UUID
    inserted_at: datetime
    updated_at: datetime
    sessions: list[ExportedSession]


class PrivacyController(Controller):
    path = "/users"
    tags = ("accounts",)

    @post(
        "/{user_id:uuid}/erasure",
        operation_id="eraseUser",
        operation_class=answers.Command,
        guards=[may("account:erase")],
        status_code=200,
    )
    async def erase(self, user_id: FromPath[UUID], sender: NamedDependency[Sender]) -> Response[answers.Data[Erasure]]:
        """Forget a person, for good: oneself, or for admins anybody of the tenant. Doing it again changes nothing. The tenant's
        last admin is not erased, 409: let there be another one first.
        """
        visibility.check(sender.who, user_id, "accounts:erase")
        command = commands.Erase(account_id=user_id, version=sender.version)
        receipt = await commands.erase(command, sender.caller, sender.ledger, sender.parts.noted)
        erased = Erasure(user_id=user_id, erased_at=receipt.aggregate.created_on)
        return answers.one(erased, sender.shown(receipt.position))

    @get(
        "/{user_id:uuid}/export",
        operation_id="exportUser",
        operation_class=answers.Once,
        guards=[may("account:read")],
        media_type="application/json",
    )
    async def export(
        self, user_id: FromPath[UUID], reader: NamedDependency[Reader], sender: NamedDependency[Sender]
    ) -> Stream:
        """All data held of a person: the account, its sessions, the transactions and refunds of which the person is buyer or
        affiliate, and the security events that are about the account or that it caused, the last first. For oneself, or for admins
        of anybody of the tenant. Of any length: it is sent while it is read. That it was asked for is recorded first.
        """
        visibility.check(reader.who, user_id, "accounts:export")
        head = await reader.head()
        account = await account_commands.show(user_id, reader.tenant_id, reader.parts.ledger)
        await exports.of_person(user_id, sender.caller, sender.ledger)
        await reader.parts.reached.wait(reader.tenant_id, [transactions_view.NAME, refunds_view.NAME], head)
        exported = await _user(account, reader)
        headers = {**answers.headers(reader.shown(head)), "Cache-Control": "no-store"}
        return Stream(_document(exported, reader), media_type="application/json", headers=headers)


class BuyerController(Controller):
    path = "/buyers"
    tags = ("transactions",)

    @post(
        "/erasure",
        operation_id="eraseBuyer",
        operation_class=answers.Command,
        guards=[may("accounts:erase")],
        dto=bodies.named("buyer", BuyerBody),
        status_code=200,
    )
    async def erase(
        self, data: JSONBody[BuyerBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[BuyerErasure]]:
        """Forget a buyer who has no account, for good. A later sale under the same reference is somebody else's. The reference of
        nobody, and of somebody who has been erased, is 422: what was known of it is gone.
        """
        command = commands.Erase(buyer_ref=data.buyer_ref)
        receipt = await commands.erase(command, sender.caller, sender.ledger, sender.parts.noted)
        erased = BuyerErasure(subject_id=receipt.aggregate.subject_id, erased_at=receipt.aggregate.created_on)
        return answers.one(erased, sender.shown(receipt.position))


async def _user(account: accounts.Account, reader: Reader) -> ExportedUser:
    ledger = reader.parts.ledger
    more = await held.of(account, ledger)
    open_sessions = await sessions.listed(account.id, reader.tenant_id, ledger, reader.parts.session_limits)
    return ExportedUser(
        id=account.id,
        email=account.email,
        email_verified=account.email_verified,
        former_emails=more.former_emails,
        asked_email=more.asked_email,
        asked_email_at=more.asked_at,
        name=account.name,
        former_names=more.former_names,
        role=account.role,
        second_factor=account.second_factor,
        tenant_id=account.tenant_id,
        inserted_at=account.created_on,
        updated_at=account.modified_on,
        sessions=[
            ExportedSession(
                id=each.id,
                device=each.device.name,
                address=each.device.address,
                started_at=each.started_at,
                last_seen_at=each.seen_at,
            )
            for each in open_sessions
        ],
    )


async def _document(user: ExportedUser, reader: Reader) -> AsyncIterator[bytes]:
    """`{"data": {"user": …, "transactions": […], "refunds": […], "events": […]}}`, a page of rows at a time."""
    yield b'{"data":{"user":' + _ENCODER.encode(user)
    for name, page, resource in (
        ("transactions", transactions_view.page, resources.of_row),
        ("refunds", refunds_view.page, refunds.of_row),
    ):
        yield b',"%s":[' % name.encode()
        async for part in _rows(user.id, reader, page, resource):
            yield part
        yield b"]"
    yield b',"events":['
    async for part in _events(user.id, reader):
        yield part
    yield b"]}}"


async def _events(person: UUID, reader: Reader) -> AsyncIterator[bytes]:
    before, separator = audit.END, b""
    while True:
        async with reader.parts.pool.connection() as connection:
            found = await security.of_person(connection, reader.tenant_id, person, before, EVENTS_PER_READ)
        for entry in found:
            yield separator + _ENCODER.encode(audit.of_entry(entry, reader))
            separator = b","
        if len(found) < EVENTS_PER_READ:
            return
        before = found[-1].position


async def _rows(
    person: UUID,
    reader: Reader,
    page: Callable[..., Awaitable[reading.Page[Any]]],
    resource: Callable[[Any, int | str], msgspec.Struct],
) -> AsyncIterator[bytes]:
    before: UUID | None = None
    separator = b""
    while True:
        async with reader.parts.pool.connection() as connection:
            found = await page(connection, reader.tenant_id, before, reading.PAGE_ROWS_MAX, visible_to=person)
        for row in found.rows:
            yield separator + _ENCODER.encode(resource(row, reader.shown(row.position)))
            separator = b","
        if found.next is None:
            return
        before = found.next
