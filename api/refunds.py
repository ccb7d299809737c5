"""What was given back: of sales, and of sales that are not known."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from api import answers, cursors, single
from api.asked import Reader
from api.rights import may
from api.routes import get
from api.transactions import visibility
from domain import money, transactions
from projections import reading
from projections import refunds as view

PATH = "/api/v1/refunds"


class RefundLine(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` is a decimal string."""

    line_id: int
    sku: str
    quantity: int
    amount: str


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """`transaction_id` is null if the sale is not known."""

    id: UUID
    transaction_id: UUID | None
    lines: list[RefundLine]
    amount: str
    currency: str
    reason: str | None
    source: str | None
    external_id: str | None
    occurred_at: datetime
    position: int | str


class RefundController(Controller):
    path = "/refunds"
    tags = ("transactions",)

    @get(operation_id="listRefunds", operation_class=answers.Query, guards=[may("transactions:read")])
    async def index(
        self,
        reader: NamedDependency[Reader],
        limit: Annotated[int, QueryParameter(ge=1, le=cursors.LIMIT_MAX)] = cursors.LIMIT_DEFAULT,
        cursor: FromQuery[str | None] = None,
        transaction_id: FromQuery[UUID | None] = None,
    ) -> Response[answers.Page[Refund]]:
        """Refunds, the newest first: those of sales that the caller may see, for admins all; or those of one sale."""
        before = cursors.decode(cursor)
        person = visibility.person(reader.who)

        async def query(connection: reading.Connection) -> reading.Page[view.RefundRow]:
            if transaction_id is None:
                return await view.page(connection, reader.tenant_id, before, limit, visible_to=person)
            return await view.page_of_transaction(
                connection, reader.tenant_id, transaction_id, before, limit, visible_to=person
            )

        found = await reader.read(query, view.NAME)
        resources = [of_row(row, reader.shown(row.position)) for row in found.rows]
        return answers.page(resources, found.next, reader.shown(found.position), found.parked)

    @get(
        "/{refund_id:uuid}", operation_id="showRefund", operation_class=answers.Query, guards=[may("transactions:read")]
    )
    async def show(self, refund_id: FromPath[UUID], reader: NamedDependency[Reader]) -> Response[answers.Data[Refund]]:
        """One refund. 404 also for those of sales that the caller may not see."""
        sees_all = reader.who.may("transactions:read_all")
        return await single.show(reader, SINGLE, refund_id, sees_all=sees_all)


def of_row(row: view.RefundRow, position: int | str) -> Refund:
    """`position` is the row's, as the reader may see it."""
    return Refund(
        id=row.id,
        transaction_id=row.transaction_id,
        lines=[
            RefundLine(
                line_id=line.line_id,
                sku=line.sku,
                quantity=line.quantity,
                amount=money.to_text(line.amount_minor, row.currency),
            )
            for line in row.lines
        ],
        amount=money.to_text(row.amount_minor, row.currency),
        currency=row.currency,
        reason=row.reason,
        source=row.source,
        external_id=row.external_id,
        occurred_at=row.occurred_at,
        position=position,
    )


SINGLE = single.Resource(
    view.NAME,
    "refund",
    lambda columns: of_row(view.row(*columns), single.HOLE),
    people=lambda columns: (columns[view.BUYER_ID], columns[view.AFFILIATE_ID]),
    whole_view_if_absent=True,
)


def of_sale(sale: transactions.Transaction, position: int | str) -> Refund:
    """The sale's last refund. `position` is the command's, as the caller may see it."""
    made = list(sale.refunds.values())[-1]
    return Refund(
        id=made.id,
        transaction_id=sale.id,
        lines=[
            RefundLine(
                line_id=line.line_id,
                sku=line.sku,
                quantity=line.quantity,
                amount=money.to_text(line.amount_minor, sale.currency),
            )
            for line in made.lines
        ],
        amount=money.to_text(made.amount_minor, sale.currency),
        currency=sale.currency,
        reason=made.reason,
        source=made.source,
        external_id=made.external_id,
        occurred_at=made.occurred_at,
        position=position,
    )
