"""The view `products`: a row for each product, retired ones included."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

import msgspec

from domain.products import Product
from ledger import read
from projections import changes, failures, reading
from projections.columns import Int8s, Jsons, Texts, Times, Uuids
from projections.view import Batch, Cursor, Table, View

NAME = "products"

INSERT_LISTED: LiteralString = """
INSERT INTO views.products (tenant_id, generation, product_id, sku, name, description, price, currency, category, metadata, status,
                            inserted_at, updated_at, position, version)
SELECT %b, %b, x.id, x.sku, x.name, x.description, x.price::numeric, x.currency, x.category, x.metadata, 'listed', x.at, x.at,
       x.position, x.version
FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
     AS x (id, sku, name, description, price, currency, category, metadata, at, position, version)
ON CONFLICT (tenant_id, generation, product_id) DO NOTHING
"""

# NULL leaves a column as it is. The guard on position makes a repeat harmless. That the ids are named a second time keeps the
# server from reading the whole generation where it has no statistics of it yet.
UPDATE_CHANGED: LiteralString = """
UPDATE views.products p
SET name = coalesce(x.name, p.name), price = coalesce(x.price::numeric, p.price), status = coalesce(x.status, p.status),
    updated_at = x.at, position = x.position, version = x.version
FROM unnest(%b, %b, %b, %b, %b, %b, %b) AS x (id, name, price, status, at, position, version)
WHERE p.tenant_id = %b AND p.generation = %b AND p.product_id = ANY (%b) AND p.product_id = x.id AND p.position < x.position
"""

COLUMNS: LiteralString = (
    "product_id, sku, name, description, price, currency, category, metadata::text, status,"
    " inserted_at, updated_at, position"
)

PAGE: LiteralString = f"""
SELECT {COLUMNS} FROM views.products
WHERE tenant_id = %(tenant)s AND generation = %(generation)s
  AND (%(after)s::uuid IS NULL OR product_id > %(after)s::uuid)
  AND (%(status)s::text IS NULL OR status = %(status)s::text)
  AND (%(category)s::text IS NULL OR category = %(category)s::text)
ORDER BY product_id LIMIT %(limit)s
"""


class ProductRow(msgspec.Struct, frozen=True):
    """`position` is that of the last event applied to the row."""

    id: UUID
    sku: str
    name: str
    description: str | None
    price: Decimal
    currency: str
    category: str | None
    metadata: dict[str, Any]
    status: str
    inserted_at: datetime
    updated_at: datetime
    position: int


async def project(batch: Batch, cursor: Cursor) -> None:
    """New products by one statement; what happened to products by another one, folded to one change a product."""
    if listed := batch.of(Product.Listed):
        await cursor.execute(INSERT_LISTED, _listed_columns(batch, listed), prepare=True)
    if changed := batch.by_originator(Product.Renamed, Product.Repriced, Product.Retired):
        await cursor.execute(UPDATE_CHANGED, _changed_columns(batch, changed), prepare=True)


def _listed_columns(batch: Batch, listed: Sequence[read.Recorded]) -> list[object]:
    events = [recorded.event for recorded in listed]
    return [
        batch.tenant_id,
        batch.generation,
        Uuids.of([event.originator_id for event in events]),
        Texts.of([event.sku for event in events]),
        Texts.of([event.name for event in events]),
        Texts.of([event.description for event in events]),
        Texts.of([str(event.price) for event in events]),
        Texts.of([event.currency for event in events]),
        Texts.of([event.category for event in events]),
        Jsons.of([event.metadata for event in events]),
        Times.of([recorded.recorded_at for recorded in listed]),
        Int8s.of([recorded.position for recorded in listed]),
        Int8s.of([event.originator_version for event in events]),
    ]


def _changed_columns(batch: Batch, changed: dict[UUID, list[read.Recorded]]) -> list[object]:
    return [
        *changes.columns(changed, _said, "name", "price", "status"),
        Int8s.of([happened[-1].event.originator_version for happened in changed.values()]),
        batch.tenant_id,
        batch.generation,
        Uuids.of(list(changed)),
    ]


def _said(event: Any) -> dict[str, str]:
    match event:
        case Product.Renamed():
            return {"name": event.name}
        case Product.Repriced():
            return {"price": str(event.price)}
        case _:
            return {"status": "retired"}


def row(
    id: UUID,
    sku: str,
    name: str,
    description: str | None,
    price: Decimal,
    currency: str,
    category: str | None,
    metadata: str,
    status: str,
    inserted_at: datetime,
    updated_at: datetime,
    position: int,
) -> ProductRow:
    """Of COLUMNS."""
    return ProductRow(
        id,
        sku,
        name,
        description,
        price,
        currency,
        category,
        msgspec.json.decode(metadata),
        status,
        inserted_at,
        updated_at,
        position,
    )


async def page(
    connection: reading.Connection,
    tenant_id: UUID,
    after: UUID | None,
    limit: int,
    *,
    status: str | None = None,
    category: str | None = None,
) -> reading.Page[ProductRow]:
    """At most `limit` (1–100) rows in id order, the oldest first, those after `after`. Raises ValueError for another limit."""
    return await reading.page(
        connection, NAME, tenant_id, row, PAGE, limit, after=after, status=status, category=category
    )


VIEW = View(
    name=NAME,
    version=2,
    tables=(Table(name="products", key=("product_id",), since={"version": 2}),),
    topics=(Product.Listed, Product.Renamed, Product.Repriced, Product.Retired),
    project=project,
    on_failure=failures.park_after(failures.ATTEMPTS),
    commutes=True,
)
