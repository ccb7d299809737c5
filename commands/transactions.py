"""Sales and refunds: record, refund, and a refund whose sale is unknown."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from commands.products import SKU
from commands.repeats import repeatable
from domain import accounts, aggregates, external, money, products, refusals, transactions
from ledger import codec, errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt

A = TypeVar("A", bound=aggregates.Aggregate)

EXTERNAL = "external"
"""The kind of reservation that makes (source, external id) unique in its tenant; its owner is the sale or the refund."""
BUYER = "buyer"
"""The kind of subject that a buyer's reference names."""


class ProductUnknown(refusals.Invalid):
    def __init__(self, named: str, index: int) -> None:
        super().__init__("There is no such product", named, "List the product first", field=f"lines.{index}")


class ProductNotNamed(refusals.Invalid):
    def __init__(self, index: int) -> None:
        super().__init__("The line does not say what was sold", index, "Give product_id or sku", field=f"lines.{index}")


class ProductNotSold(refusals.Invalid):
    def __init__(self, sku: str, index: int) -> None:
        super().__init__("The product has been retired", sku, "Leave the line out", field=f"lines.{index}")


class PriceNotTheCatalogues(refusals.Invalid):
    def __init__(self, price: Decimal, catalogue: Decimal, index: int) -> None:
        super().__init__(
            f"The price is not the catalogue's, which is {catalogue}",
            price,
            "Leave unit_price out, or ask somebody who may set prices",
            field=f"lines.{index}.unit_price",
        )


class ExternalIdTaken(refusals.Conflict):
    def __init__(self, source: str, external_id: str, owner: UUID) -> None:
        super().__init__(
            f"This was recorded before, as {owner}",
            f"{source} {external_id}",
            "Nothing is left to do",
            field="external_id",
        )
        self.owner = owner


class AccountUnknown(refusals.Invalid):
    def __init__(self, account_id: UUID, field: str) -> None:
        super().__init__("The tenant has no such account", account_id, "Check the id", field=field)


class LineOrdered(msgspec.Struct, frozen=True, kw_only=True):
    """One of `product_id` and `sku` names the product; `unit_price` None: the catalogue's."""

    quantity: int
    product_id: UUID | None = None
    sku: str | None = None
    unit_price: Decimal | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`sets_prices`: whether the caller may sell at another price than the catalogue's. `occurred_at` None: now."""

    lines: Sequence[LineOrdered]
    sets_prices: bool
    currency: str | None = None
    buyer_id: UUID | None = None
    buyer_ref: str | None = None
    affiliate_id: UUID | None = None
    source: str | None = None
    external_id: str | None = None
    occurred_at: datetime | None = None
    metadata: dict[str, Any] | None = None


class RefundLineOrdered(msgspec.Struct, frozen=True, kw_only=True):
    line_id: int
    quantity: int


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """`lines` None: all that is left. `version`: the one that it was decided upon, None if any will do."""

    transaction_id: UUID
    version: int | None = None
    lines: Sequence[RefundLineOrdered] | None = None
    reason: str | None = None
    source: str | None = None
    external_id: str | None = None
    occurred_at: datetime | None = None


class RecordRefund(msgspec.Struct, frozen=True, kw_only=True):
    """A refund whose sale is not known here. Each line names its SKU and its price."""

    lines: Sequence[LineOrdered]
    currency: str
    buyer_ref: str | None = None
    reason: str | None = None
    source: str | None = None
    external_id: str | None = None
    occurred_at: datetime | None = None


@repeatable(transactions.Transaction, optimistic=True)
async def record(command: Record, caller: Caller, ledger: Ledger) -> Receipt[transactions.Transaction]:
    """Raises ProductUnknown, ProductNotSold, ProductNotNamed, PriceNotTheCatalogues, AccountUnknown, ExternalIdTaken and what
    `transactions.record` raises."""
    transactions.check_count(command.lines)
    sold = await _products(command.lines, caller.tenant_id, ledger)
    wanted = [_wanted(line, product, index, command.sets_prices) for index, (line, product) in enumerate(sold)]
    await _check_accounts(command, caller, ledger)
    buyer = await _buyer(command.buyer_ref, transactions.Transaction, caller, ledger)
    if isinstance(buyer, Receipt):
        return buyer
    buyer_ref, subject_id = buyer
    transaction = transactions.record(
        id=ids.new_id(),
        tenant_id=caller.tenant_id,
        lines=wanted,
        currency=command.currency or sold[0][1].currency,
        occurred_at=command.occurred_at or datetime.now(UTC),
        buyer_id=command.buyer_id,
        buyer_subject_id=subject_id,
        buyer_ref=buyer_ref,
        affiliate_id=command.affiliate_id,
        source=command.source,
        external_id=command.external_id,
        metadata=command.metadata,
    )
    return await _append(caller, ledger, transaction, transaction.source, transaction.external_id, transaction.id)


@repeatable(transactions.Transaction)
async def refund(command: Refund, caller: Caller, ledger: Ledger) -> Receipt[transactions.Transaction]:
    """The refund is the last of the aggregate's `refunds`.

    Raises NotFound, VersionConflict, ExternalIdTaken and what `Transaction.refund` raises.
    """
    transaction = await ledger.load(transactions.Transaction, caller.tenant_id, command.transaction_id)
    if command.version is not None and transaction.version != command.version:
        raise errors.VersionConflict(transaction.id)
    made = transaction.refund(
        ids.new_id(),
        None if command.lines is None else [(line.line_id, line.quantity) for line in command.lines],
        reason=command.reason,
        occurred_at=command.occurred_at or datetime.now(UTC),
        source=command.source,
        external_id=command.external_id,
    )
    return await _append(caller, ledger, transaction, made.source, made.external_id, made.id)


@repeatable(transactions.Refund, optimistic=True)
async def record_refund(command: RecordRefund, caller: Caller, ledger: Ledger) -> Receipt[transactions.Refund]:
    """Raises ExternalIdTaken and what `transactions.record_refund` raises."""
    transactions.check_count(command.lines)
    known = await _find(command.lines, caller.tenant_id, ledger)
    buyer = await _buyer(command.buyer_ref, transactions.Refund, caller, ledger)
    if isinstance(buyer, Receipt):
        return buyer
    buyer_ref, subject_id = buyer
    made = transactions.record_refund(
        id=ids.new_id(),
        tenant_id=caller.tenant_id,
        lines=[_unmatched(line, product, index) for index, (line, product) in enumerate(known)],
        currency=command.currency,
        occurred_at=command.occurred_at or datetime.now(UTC),
        reason=command.reason,
        source=command.source,
        external_id=command.external_id,
        buyer_subject_id=subject_id,
        buyer_ref=buyer_ref,
    )
    return await _append(caller, ledger, made, made.source, made.external_id, made.id)


async def _append(
    caller: Caller, ledger: Ledger, aggregate: A, source: str | None, external_id: str | None, owner: UUID
) -> Receipt[A]:
    """Claims the external id, if there is one, for `owner`."""
    if source is None or external_id is None:
        return await ledger.append(caller, aggregate)
    try:
        return await ledger.append(
            caller, aggregate, claims=[Claim(EXTERNAL, external.key(source, external_id), owner)]
        )
    except errors.ReservationTaken as taken:
        raise ExternalIdTaken(source, external_id, taken.owner) from None


async def _find(
    lines: Sequence[LineOrdered], tenant_id: UUID, ledger: Ledger
) -> list[tuple[LineOrdered, products.Product | None]]:
    """Each line with its product, None if there is none: one query for all SKUs, one for all ids."""
    named = {line.sku.strip() for line in lines if line.product_id is None and line.sku is not None}
    by_sku = await ledger.load_by(products.Product, tenant_id, SKU, sorted(named))
    by_id = await ledger.load_many(products.Product, tenant_id, [line.product_id for line in lines if line.product_id])
    return [
        (line, by_id.get(line.product_id) if line.product_id is not None else by_sku.get((line.sku or "").strip()))
        for line in lines
    ]


async def _products(
    lines: Sequence[LineOrdered], tenant_id: UUID, ledger: Ledger
) -> list[tuple[LineOrdered, products.Product]]:
    found = []
    for index, (line, product) in enumerate(await _find(lines, tenant_id, ledger)):
        if line.product_id is None and line.sku is None:
            raise ProductNotNamed(index)
        if product is None:
            raise ProductUnknown(str(line.product_id or line.sku), index)
        if product.status is products.Status.RETIRED:
            raise ProductNotSold(product.sku, index)
        found.append((line, product))
    return found


def _wanted(line: LineOrdered, product: products.Product, index: int, sets_prices: bool) -> transactions.LineWanted:
    said = line.unit_price
    if said is not None:
        money.check_unit_price(said, f"lines.{index}.unit_price")  # before it is compared: NaN cannot be
    if said is not None and not sets_prices and said != product.price:
        raise PriceNotTheCatalogues(said, product.price, index)
    return transactions.LineWanted(
        product_id=product.id,
        sku=product.sku,
        quantity=line.quantity,
        unit_price=product.price if said is None else said,
        currency=None if said is not None and sets_prices else product.currency,
    )


def _unmatched(line: LineOrdered, product: products.Product | None, index: int) -> transactions.UnmatchedLineWanted:
    sku = product.sku if product is not None else line.sku
    if sku is None:
        raise ProductNotNamed(index)
    price = line.unit_price if line.unit_price is not None else product.price if product is not None else None
    if price is None:
        raise ProductUnknown(sku, index)
    return transactions.UnmatchedLineWanted(
        product_id=None if product is None else product.id, sku=sku, quantity=line.quantity, unit_price=price
    )


async def _check_accounts(command: Record, caller: Caller, ledger: Ledger) -> None:
    """Whoever is named as buyer or affiliate is somebody of this tenant, and not erased; the caller itself is. Raises
    AccountUnknown."""
    named = {"buyer_id": command.buyer_id, "affiliate_id": command.affiliate_id}
    asked = {field: id for field, id in named.items() if id is not None and id != caller.actor_id}
    found = await ledger.load_many(accounts.Account, caller.tenant_id, list(set(asked.values())))
    for field, id in asked.items():
        if id not in found or found[id].email == codec.ERASED:
            raise AccountUnknown(id, field)


async def _buyer(
    ref: str | None, cls: type[A], caller: Caller, ledger: Ledger
) -> tuple[str, UUID] | tuple[None, None] | Receipt[A]:
    """The reference as it is kept, and its subject; or what became of the command before.

    A repeat of a sale whose buyer was erased since finds nobody under the reference, and must not make somebody who has nothing. So
    whoever is about to make one looks first; who finds the buyer there, or sent no key, pays nothing for that.
    """
    if ref is None:
        return None, None
    checked = transactions.checked_buyer_ref(ref)
    known = await ledger.known_subject(caller.tenant_id, BUYER, checked)
    if known is not None:
        return checked, known
    first = await ledger.recall(cls, caller) if caller.fingerprint else None
    return first or (checked, await ledger.subject(caller.tenant_id, BUYER, checked))
