"""What a tenant sells: list, rename, reprice, retire."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from commands.repeats import repeatable
from domain import products, refusals, tenants
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt

SKU = "sku"
"""The kind of reservation that makes a SKU unique in its tenant; its owner is the product."""


class SkuTaken(refusals.Conflict):
    def __init__(self, sku: str, product_id: UUID) -> None:
        super().__init__(f"The SKU belongs to the product {product_id}", sku, "Choose another SKU", field="sku")
        self.product_id = product_id


class ListProduct(msgspec.Struct, frozen=True, kw_only=True):
    """`currency` None: the tenant's."""

    sku: str
    name: str
    price: Decimal
    currency: str | None = None
    description: str | None = None
    category: str | None = None
    metadata: dict[str, Any] | None = None


class Rename(msgspec.Struct, frozen=True, kw_only=True):
    product_id: UUID
    name: str


class Reprice(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: the one that the price was decided upon, None if any will do."""

    product_id: UUID
    price: Decimal
    version: int | None = None


class Revise(msgspec.Struct, frozen=True, kw_only=True):
    """Several changes at once. What is None stays as it is; `version` as in Reprice."""

    product_id: UUID
    name: str | None = None
    price: Decimal | None = None
    version: int | None = None


class Retire(msgspec.Struct, frozen=True, kw_only=True):
    """`version` as in Reprice."""

    product_id: UUID
    version: int | None = None


@repeatable(products.Product)
async def list_product(command: ListProduct, caller: Caller, ledger: Ledger) -> Receipt[products.Product]:
    """Raises SkuTaken and what `products.list_product` raises."""
    currency = command.currency
    if currency is None:
        currency = (await ledger.load(tenants.Tenant, caller.tenant_id, caller.tenant_id)).currency
    product = products.list_product(
        id=ids.new_id(),
        tenant_id=caller.tenant_id,
        sku=command.sku,
        name=command.name,
        price=command.price,
        currency=currency,
        description=command.description,
        category=command.category,
        metadata=command.metadata,
    )
    try:
        return await ledger.append(caller, product, claims=[Claim(SKU, product.sku, product.id)])
    except errors.ReservationTaken as taken:
        raise SkuTaken(product.sku, taken.owner) from None


@repeatable(products.Product)
async def rename(command: Rename, caller: Caller, ledger: Ledger) -> Receipt[products.Product]:
    """Raises NotFound, ProductRetired, VersionConflict and what a name may be refused for."""
    product = await ledger.load(products.Product, caller.tenant_id, command.product_id)
    product.rename(command.name)
    return await ledger.append(caller, product)


@repeatable(products.Product)
async def reprice(command: Reprice, caller: Caller, ledger: Ledger) -> Receipt[products.Product]:
    """Raises NotFound, ProductRetired, VersionConflict and what a price may be refused for."""
    product = await _at(command.version, command.product_id, caller, ledger)
    product.reprice(command.price)
    return await ledger.append(caller, product)


@repeatable(products.Product)
async def revise(command: Revise, caller: Caller, ledger: Ledger) -> Receipt[products.Product]:
    """All of it or nothing. Raises NotFound, ProductRetired, VersionConflict and what name and price may be refused for."""
    product = await _at(command.version, command.product_id, caller, ledger)
    if command.name is not None:
        product.rename(command.name)
    if command.price is not None:
        product.reprice(command.price)
    return await ledger.append(caller, product)


@repeatable(products.Product)
async def retire(command: Retire, caller: Caller, ledger: Ledger) -> Receipt[products.Product]:
    """The SKU stays taken: it names the product in what was sold. Raises NotFound, VersionConflict."""
    product = await _at(command.version, command.product_id, caller, ledger)
    product.retire()
    return await ledger.append(caller, product)


async def _at(version: int | None, product_id: UUID, caller: Caller, ledger: Ledger) -> products.Product:
    product = await ledger.load(products.Product, caller.tenant_id, product_id)
    if version is not None and product.version != version:
        raise errors.VersionConflict(product_id)
    return product
