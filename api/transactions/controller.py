"""The routes of sales."""

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from api import answers, cursors, errors, past, refunds, single
from api import bodies as request_bodies
from api.asked import HttpRequest, Reader, Sender
from api.rights import may
from api.routes import delete, get, post
from api.sent import Found
from api.transactions import bodies, resources, visibility
from commands import transactions as commands
from projections import reading
from projections import sales as sales_view
from projections import transactions as view

PATH = "/api/v1/transactions"


class TransactionController(Controller):
    path = "/transactions"
    tags = ("transactions",)

    @get(operation_id="listTransactions", operation_class=answers.Query, guards=[may("transactions:read")])
    async def index(
        self,
        reader: NamedDependency[Reader],
        limit: Annotated[int, QueryParameter(ge=1, le=cursors.LIMIT_MAX)] = cursors.LIMIT_DEFAULT,
        cursor: FromQuery[str | None] = None,
        status: FromQuery[Literal["recorded", "partly_refunded", "refunded"] | None] = None,
        buyer_id: FromQuery[UUID | None] = None,
        affiliate_id: FromQuery[UUID | None] = None,
    ) -> Response[answers.Page[resources.Transaction]]:
        """Sales, the newest first: those of which the caller is buyer or affiliate, for admins all."""
        before = cursors.decode(cursor)
        person = visibility.person(reader.who)
        filters: dict[str, Any] = {"status": status, "buyer_id": buyer_id, "affiliate_id": affiliate_id}
        if any(value is not None for value in filters.values()):
            found = await reader.read(
                lambda connection: view.page(connection, reader.tenant_id, before, limit, visible_to=person, **filters),
                view.NAME,
            )
        else:
            newest = await reader.newest_transactions(before, limit, visible_to=person)
            if before is None:  # what everybody asks for; keeping all other pages would push that out
                known = single.listed(reader, resources.SINGLE, newest.rows)
                return answers.page(known, newest.next, reader.shown(newest.position), newest.parked)
            read = [view.row(*each.columns) for each in newest.rows]
            found = reading.Page(read, newest.next, newest.position, newest.parked)
        rows = [resources.of_row(row, reader.shown(row.position)) for row in found.rows]
        return answers.page(rows, found.next, reader.shown(found.position), found.parked)

    @post(
        operation_id="recordTransaction",
        operation_class=answers.Command,
        guards=[may("transactions:write")],
        dto=request_bodies.named("transaction", bodies.TransactionBody),
    )
    async def record(
        self,
        data: JSONBody[bodies.TransactionBody],
        sender: NamedDependency[Sender],
    ) -> Response[answers.Data[resources.Transaction]]:
        """Record a sale. Others than admins record what they buy themselves, at the catalogue's prices."""
        receipt = await commands.record(bodies.record(data, sender.who), sender.caller, sender.ledger)
        sale = receipt.aggregate
        resource = resources.of_aggregate(sale, sender.shown(receipt.position))
        return answers.created(resource, resource.position, f"{PATH}/{sale.id}", version=resources.version(sale))

    @get(
        "/summary",
        operation_id="summariseTransactions",
        operation_class=answers.Query,
        guards=[may("transactions:summary")],
    )
    async def summary(
        self,
        reader: NamedDependency[Reader],
        request: HttpRequest,
        first: Annotated[date | None, QueryParameter(name="from")] = None,
        last: Annotated[date | None, QueryParameter(name="to")] = None,
        at: FromQuery[str | None] = None,
    ) -> Response[resources.Summary]:
        """Sales by day and currency, from one UTC day to another, both included; left out: from the first, to the last.

        With `at` as they stood then: at a position, or at an instant (RFC 3339), which means the last position that was recorded
        by then. That is computed anew: 503 while another answer of that kind is being made for the tenant, or after a minute.
        """
        if first is not None and last is not None and first > last:
            text = f"The summary would end on {last}, before it begins on {first}. Exchange from and to."
            raise errors.RequestRefused(errors.INVALID, text, {"from": [text]})
        if at is not None:
            position = await past.position(reader, at)
            found = await past.while_asked(request, reader, _summary_at(reader, position, first, last))
        else:
            found = await reader.read(
                lambda connection: sales_view.summary(connection, reader.tenant_id, first, last), sales_view.NAME
            )
        return Found(resources.of_summary(found), reader.shown(found.position))

    @get(
        "/{transaction_id:uuid}",
        operation_id="showTransaction",
        operation_class=answers.Query,
        guards=[may("transactions:read")],
    )
    async def show(
        self, transaction_id: FromPath[UUID], reader: NamedDependency[Reader]
    ) -> Response[answers.Data[resources.Transaction]]:
        """One sale, as its refunds left it. 404 also for sales that the caller may not see."""
        sees_all = reader.who.may("transactions:read_all")
        return await single.show(reader, resources.SINGLE, transaction_id, sees_all=sees_all)

    @delete(
        "/{transaction_id:uuid}",
        operation_id="deleteTransaction",
        operation_class=answers.Command,
        guards=[may("transactions:refund")],
    )
    async def refund_all(
        self,
        transaction_id: FromPath[UUID],
        sender: NamedDependency[Sender],
    ) -> Response[None]:
        """Refund all that is left. 409 if nothing is."""
        receipt = await commands.refund(
            commands.Refund(transaction_id=transaction_id, version=sender.version), sender.caller, sender.ledger
        )
        return answers.nothing(sender.shown(receipt.position))

    @post(
        "/{transaction_id:uuid}/refunds",
        operation_id="refundTransaction",
        operation_class=answers.Command,
        guards=[may("transactions:refund")],
        dto=request_bodies.named("refund", bodies.RefundBody),
    )
    async def refund(
        self,
        transaction_id: FromPath[UUID],
        data: JSONBody[bodies.RefundBody],
        sender: NamedDependency[Sender],
    ) -> Response[answers.Data[refunds.Refund]]:
        """Give back units of lines, or with {} all that is left. 409 if nothing is, 422 for more than is left."""
        receipt = await commands.refund(
            bodies.refund(data, transaction_id, sender.version), sender.caller, sender.ledger
        )
        resource = refunds.of_sale(receipt.aggregate, sender.shown(receipt.position))
        return answers.created(
            resource, resource.position, f"{refunds.PATH}/{resource.id}", version=receipt.aggregate.version
        )


async def _summary_at(reader: Reader, position: int, first: date | None, last: date | None) -> sales_view.Summary:
    async with past.stood(reader, sales_view.VIEW, position) as stood:
        return await sales_view.summary_of(stood, first, last)
