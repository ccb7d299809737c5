"""The shape of a sale."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar.params import Body

from api import etags, single
from domain import money, transactions
from ledger import codec
from projections import sales as sales_view
from projections import transactions as view

# What is read is written as it was, without a UUID and a Decimal made in between: for the documents of HTTP, and of the feeds.
IdText = Annotated[str, Body(schema_extra={"format": "uuid"}), msgspec.Meta(extra_json_schema={"format": "uuid"})]
DecimalText = Annotated[str, msgspec.Meta(extra_json_schema={"format": "decimal"})]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """`unit_price` and `amount` are decimal strings."""

    id: int
    product_id: IdText
    sku: str
    quantity: int
    unit_price: DecimalText
    amount: str
    refunded_quantity: int


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` and `refunded` are decimal strings with all the places of `currency`."""

    id: UUID
    lines: list[Line]
    amount: str
    refunded: str
    currency: str
    status: str
    buyer_id: UUID | None
    buyer_ref: str | None
    affiliate_id: UUID | None
    source: str | None
    external_id: str | None
    occurred_at: datetime
    metadata: dict[str, Any]
    inserted_at: datetime
    updated_at: datetime
    position: int | str


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """`count` counts sales; `net` is gross less refunded."""

    currency: str
    count: int
    gross: str
    refunded: str
    net: str


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """As Total, of one UTC day; a refund counts on its own day."""

    day: date
    currency: str
    count: int
    gross: str
    refunded: str
    net: str


class SummaryMeta(msgspec.Struct, frozen=True, kw_only=True):
    totals: list[Total]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    data: list[Day]
    meta: SummaryMeta


def of_row(row: view.TransactionRow, position: int | str) -> Transaction:
    """`position` is the row's, as the reader may see it."""
    return Transaction(
        id=row.id,
        lines=[
            Line(
                id=line.id,
                product_id=line.product_id,
                sku=line.sku,
                quantity=line.quantity,
                unit_price=line.unit_price,
                amount=money.to_text(line.amount_minor, row.currency),
                refunded_quantity=line.refunded_quantity,
            )
            for line in row.lines
        ],
        amount=money.to_text(row.amount_minor, row.currency),
        refunded=money.to_text(row.refunded_minor, row.currency),
        currency=row.currency,
        status=row.status,
        buyer_id=row.buyer_id,
        buyer_ref=row.buyer_ref,
        affiliate_id=row.affiliate_id,
        source=row.source,
        external_id=row.external_id,
        occurred_at=row.occurred_at,
        metadata=row.metadata,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
        position=position,
    )


def version(sale: transactions.Transaction) -> int | str:
    """For the ETag, the same as of a row."""
    return etags.version(sale.version, erased=sale.buyer_ref == codec.ERASED)


def _rendered(columns: tuple[Any, ...]) -> Transaction:
    return msgspec.structs.replace(of_row(view.row(*columns), single.HOLE), buyer_ref=single.HOLE)


def _people(columns: tuple[Any, ...]) -> tuple[UUID | None, ...]:
    return columns[view.BUYER_ID], columns[view.AFFILIATE_ID]


SINGLE = single.Resource(view.NAME, "transaction", _rendered, personal=(view.BUYER_REF,), people=_people)


def of_aggregate(sale: transactions.Transaction, position: int | str) -> Transaction:
    """`position` is the command's, as the caller may see it."""
    return Transaction(
        id=sale.id,
        lines=[
            Line(
                id=line.id,
                product_id=str(line.product_id),
                sku=line.sku,
                quantity=line.quantity,
                unit_price=str(line.unit_price),
                amount=money.to_text(line.amount_minor, sale.currency),
                refunded_quantity=sale.refunded_quantities.get(line.id, 0),
            )
            for line in sale.lines
        ],
        amount=money.to_text(sale.amount_minor, sale.currency),
        refunded=money.to_text(sale.refunded_minor, sale.currency),
        currency=sale.currency,
        status=str(sale.status),
        buyer_id=sale.buyer_id,
        buyer_ref=sale.buyer_ref,
        affiliate_id=sale.affiliate_id,
        source=sale.source,
        external_id=sale.external_id,
        occurred_at=sale.occurred_at,
        metadata=sale.metadata,
        inserted_at=sale.created_on,
        updated_at=sale.modified_on,
        position=position,
    )


def of_summary(summary: sales_view.Summary) -> Summary:
    return Summary(
        data=[
            Day(
                day=row.day,
                currency=row.currency,
                count=row.count,
                gross=money.to_text(row.gross_minor, row.currency),
                refunded=money.to_text(row.refunded_minor, row.currency),
                net=money.to_text(row.net_minor, row.currency),
            )
            for row in summary.rows
        ],
        meta=SummaryMeta(
            totals=[
                Total(
                    currency=total.currency,
                    count=total.count,
                    gross=money.to_text(total.gross_minor, total.currency),
                    refunded=money.to_text(total.refunded_minor, total.currency),
                    net=money.to_text(total.net_minor, total.currency),
                )
                for total in summary.totals
            ]
        ),
    )
