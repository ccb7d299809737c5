"""A person's own data: all of it in one document, and the end of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
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
from commands import exports, invitations, known_by, sessions
from commands import privacy as commands
from commands.accounts import held
from domain import accounts
from domain.transactions import Status
from ledger import security
from projections import reading
from projections import refunds as refunds_view
from projections import transactions as transactions_view

R = TypeVar("R")

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


class ExportedInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """`email`: as the admin wrote it who invited."""

    id: UUID
    email: str
    role: str
    issued_at: datetime
    good_until: datetime


class ExportedUser(msgspec.Struct, frozen=True, kw_only=True):
    """`sessions`: those that have not ended. `asked_email`: to which a change was asked for and not confirmed. `invitations`: open ones
    to an address of the account's, present or former."""

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
    invitations: list[ExportedInvitation]


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
        """All data held of a person: the account, its sessions, open invitations to it, the transactions and refunds of which the
        person is buyer or affiliate, then those under a buyer's reference that is an address of the account's, present or former,
        and the security events that are about the account or that it caused, the last first. What an erasure takes is in it. For
        oneself, under addresses that were verified, or for admins of anybody of the tenant. Of any length: it is sent while it is
        read. That it was asked for is recorded first.
        """
        visibility.check(reader.who, user_id, "accounts:export")
        head = await reader.head()
        account = await account_commands.show(user_id, reader.tenant_id, reader.parts.ledger)
        await exports.of_person(user_id, sender.caller, sender.ledger)
        await _wait_until_shown(user_id, head, reader)
        more = await held.of(account, reader.parts.ledger)
        known = await known_by.of(account, more, sender.caller, reader.parts.ledger)
        exported = await _user(account, more, known.addresses, reader)
        headers = {**answers.headers(reader.shown(head)), "Cache-Control": "no-store"}
        return Stream(_document(exported, known.buyers, reader), media_type="application/json", headers=headers)


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


async def _wait_until_shown(person: UUID, head: int, reader: Reader) -> None:
    """Until the views that are exported are at `head`, asked of themselves: after a crash of the database they are not where they
    were known to be. Raises ViewBehind, TooManyWaiters."""
    pages: dict[str, Callable[..., Awaitable[reading.Page[Any]]]] = {
        transactions_view.NAME: transactions_view.page,
        refunds_view.NAME: refunds_view.page,
    }
    await reader.parts.reached.wait(reader.tenant_id, list(pages), head)
    for view, page in pages.items():
        async with reader.parts.pool.connection() as connection:
            found = await page(connection, reader.tenant_id, before=None, limit=1, visible_to=person)
        reader.parts.reached.check(reader.tenant_id, (view,), found.position, head)


async def _user(account: accounts.Account, more: held.Held, addresses: Sequence[str], reader: Reader) -> ExportedUser:
    ledger = reader.parts.ledger
    invited = await invitations.open_to(addresses, reader.tenant_id, ledger)
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
        invitations=[
            ExportedInvitation(
                id=each.id, email=each.email, role=each.role, issued_at=each.issued_at, good_until=each.good_until
            )
            for each in invited
        ],
    )


async def _document(user: ExportedUser, buyers: Sequence[UUID], reader: Reader) -> AsyncIterator[bytes]:
    """`{"data": {"user": …, "transactions": […], "refunds": […], "events": […]}}`, a page of rows at a time."""
    yield b'{"data":{"user":' + _ENCODER.encode(user)
    for name, entries in (
        ("transactions", _transactions(user.id, buyers, reader)),
        ("refunds", _refunds(user.id, buyers, reader)),
        ("events", _events(user.id, reader)),
    ):
        yield b',"%s":[' % name.encode()
        separator = b""
        async for entry in entries:
            yield separator + _ENCODER.encode(entry)
            separator = b","
        yield b"]"
    yield b"}}"


async def _events(person: UUID, reader: Reader) -> AsyncIterator[audit.Event]:
    before = audit.END
    while True:
        async with reader.parts.pool.connection() as connection:
            found = await security.of_person(connection, reader.tenant_id, person, before, EVENTS_PER_READ)
        for entry in found:
            yield audit.of_entry(entry, reader)
        if len(found) < EVENTS_PER_READ:
            return
        before = found[-1].position


async def _transactions(person: UUID, buyers: Sequence[UUID], reader: Reader) -> AsyncIterator[msgspec.Struct]:
    """Of the account; then of the buyers, without those. Each the newest first, each sale once."""
    async for row in _rows(reader, transactions_view.page, visible_to=person):
        yield resources.of_row(row, reader.shown(row.position))
    async for row in _sold_to(person, buyers, reader):
        yield resources.of_row(row, reader.shown(row.position))


async def _refunds(person: UUID, buyers: Sequence[UUID], reader: Reader) -> AsyncIterator[msgspec.Struct]:
    """Of the account's sales; then of the buyers: those without a sale, and those of their sales. Each once."""
    async for row in _rows(reader, refunds_view.page, visible_to=person):
        yield refunds.of_row(row, reader.shown(row.position))
    for buyer in buyers:
        async for row in _rows(reader, refunds_view.page_of_subject, subject_id=buyer):
            yield refunds.of_row(row, reader.shown(row.position))
    async for sale in _sold_to(person, buyers, reader):
        if sale.status != Status.RECORDED:
            async for row in _rows(reader, refunds_view.page_of_transaction, transaction_id=sale.id):
                yield refunds.of_row(row, reader.shown(row.position))


async def _sold_to(
    person: UUID, buyers: Sequence[UUID], reader: Reader
) -> AsyncIterator[transactions_view.TransactionRow]:
    for buyer in buyers:
        async for row in _rows(reader, transactions_view.page_of_subject, subject_id=buyer, but_of=person):
            yield row


async def _rows(reader: Reader, page: Callable[..., Awaitable[reading.Page[R]]], **of: UUID) -> AsyncIterator[R]:
    """All that the pages have, a page at a time."""
    before: UUID | None = None
    while True:
        async with reader.parts.pool.connection() as connection:
            found = await page(connection, reader.tenant_id, before=before, limit=reading.PAGE_ROWS_MAX, **of)
        for row in found.rows:
            yield row
        if found.next is None:
            return
        before = found.next
