"""The catalogue."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from api import answers, bodies, cursors, single
from api.asked import Reader, Sender
from api.rights import may
from api.routes import delete, get, post, put, route
from commands import products as commands
from domain import products
from ledger.store import Receipt
from projections import products as view

PATH = "/api/v1/products"


class ProductBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`price` for one unit, as a decimal string or a number; `currency` is the tenant's unless said."""

    sku: str
    name: str
    price: Decimal
    currency: str | None = None
    description: str | None = None
    category: str | None = None
    metadata: dict[str, Any] | None = None


class ProductChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    price: Decimal | msgspec.UnsetType = msgspec.UNSET


class PriceBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    price: Decimal


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """`price` is a decimal string, for one unit."""

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
    position: int | str


class ProductController(Controller):
    path = "/products"
    tags = ("products",)

    @get(operation_id="listProducts", operation_class=answers.Query, guards=[may("products:read")])
    async def index(
        self,
        reader: NamedDependency[Reader],
        limit: Annotated[int, QueryParameter(ge=1, le=cursors.LIMIT_MAX)] = cursors.LIMIT_DEFAULT,
        cursor: FromQuery[str | None] = None,
        status: FromQuery[Literal["listed", "retired"] | None] = None,
        category: Annotated[str | None, QueryParameter(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")] = None,
    ) -> Response[answers.Page[Product]]:
        """The catalogue in the order in which it was listed, a page at a time."""
        after = cursors.decode(cursor)
        found = await reader.read(
            lambda connection: view.page(connection, reader.tenant_id, after, limit, status=status, category=category),
            view.NAME,
        )
        resources = [of_row(row, reader.shown(row.position)) for row in found.rows]
        return answers.page(resources, found.next, reader.shown(found.position), found.parked)

    @post(
        operation_id="listProduct",
        operation_class=answers.Command,
        guards=[may("products:write")],
        dto=bodies.named("product", ProductBody),
    )
    async def create(
        self,
        data: JSONBody[ProductBody],
        sender: NamedDependency[Sender],
    ) -> Response[answers.Data[Product]]:
        """Take a product into the catalogue. 409 if the SKU is taken."""
        command = commands.ListProduct(
            sku=data.sku,
            name=data.name,
            price=data.price,
            currency=data.currency,
            description=data.description,
            category=data.category,
            metadata=data.metadata,
        )
        receipt = await commands.list_product(command, sender.caller, sender.ledger)
        resource = _of_receipt(receipt, sender)
        return answers.created(resource, resource.position, f"{PATH}/{resource.id}", version=receipt.aggregate.version)

    @get("/{product_id:uuid}", operation_id="showProduct", operation_class=answers.Query, guards=[may("products:read")])
    async def show(
        self, product_id: FromPath[UUID], reader: NamedDependency[Reader]
    ) -> Response[answers.Data[Product]]:
        """One product, retired or not."""
        return await single.show(reader, SINGLE, product_id)

    @route(
        "/{product_id:uuid}",
        http_method=["PUT", "PATCH"],
        operation_id=lambda handler, method, path: f"{'replace' if method == 'PUT' else 'change'}Product",
        operation_class=answers.Command,
        guards=[may("products:write")],
        dto=bodies.named("product", ProductChange),
        status_code=200,
    )
    async def change(
        self,
        product_id: FromPath[UUID],
        data: JSONBody[ProductChange],
        sender: NamedDependency[Sender],
    ) -> Response[answers.Data[Product]]:
        """Rename, reprice, or both at once. 409 if it was retired."""
        command = commands.Revise(
            product_id=product_id,
            name=None if data.name is msgspec.UNSET else data.name,
            price=None if data.price is msgspec.UNSET else data.price,
            version=sender.version,
        )
        return _changed(await commands.revise(command, sender.caller, sender.ledger), sender)

    @put(
        "/{product_id:uuid}/price",
        operation_id="repriceProduct",
        operation_class=answers.Command,
        guards=[may("products:write")],
        dto=bodies.named("product", PriceBody),
    )
    async def reprice(
        self,
        product_id: FromPath[UUID],
        data: JSONBody[PriceBody],
        sender: NamedDependency[Sender],
    ) -> Response[answers.Data[Product]]:
        """Set the price. 409 if it was retired, 422 for a price that breaks a rule."""
        command = commands.Reprice(product_id=product_id, price=data.price, version=sender.version)
        return _changed(await commands.reprice(command, sender.caller, sender.ledger), sender)

    @delete(
        "/{product_id:uuid}",
        operation_id="retireProduct",
        operation_class=answers.Command,
        guards=[may("products:write")],
    )
    async def retire(
        self,
        product_id: FromPath[UUID],
        sender: NamedDependency[Sender],
    ) -> Response[None]:
        """Sell it no longer. It stays readable, and its SKU stays taken."""
        command = commands.Retire(product_id=product_id, version=sender.version)
        receipt = await commands.retire(command, sender.caller, sender.ledger)
        return answers.nothing(sender.shown(receipt.position))


def of_row(row: view.ProductRow, position: int | str) -> Product:
    """`position` is the row's, as the reader may see it."""
    return Product(
        id=row.id,
        sku=row.sku,
        name=row.name,
        description=row.description,
        price=row.price,
        currency=row.currency,
        category=row.category,
        metadata=row.metadata,
        status=row.status,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
        position=position,
    )


SINGLE = single.Resource(view.NAME, "product", lambda columns: of_row(view.row(*columns), single.HOLE))


def _of_receipt(receipt: Receipt[products.Product], sender: Sender) -> Product:
    product = receipt.aggregate
    return Product(
        id=product.id,
        sku=product.sku,
        name=product.name,
        description=product.description,
        price=product.price,
        currency=product.currency,
        category=product.category,
        metadata=product.metadata,
        status=str(product.status),
        inserted_at=product.created_on,
        updated_at=product.modified_on,
        position=sender.shown(receipt.position),
    )


def _changed(receipt: Receipt[products.Product], sender: Sender) -> Response[answers.Data[Product]]:
    resource = _of_receipt(receipt, sender)
    return answers.one(resource, resource.position, version=receipt.aggregate.version)
