"""What is sent to record a sale or to refund one, and the commands that it means."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from api import errors, rights
from api.rights import Who
from commands import transactions as commands
from domain import money

_OTHERS = ("buyer_ref", "source", "external_id", "occurred_at")
"""What only who records for others may say: the rest of us buy for ourselves, here and now."""


class LineBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `product_id` and `sku` names the product; `unit_price` is the catalogue's unless said."""

    quantity: int
    product_id: UUID | None = None
    sku: str | None = None
    unit_price: Decimal | None = None


class TransactionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sale: `lines`, or in short `product_id` and `amount` for one line of quantity 1. `buyer_id` is the caller, and
    `occurred_at` is now, unless said by who may."""

    lines: list[LineBody] | None = None
    product_id: UUID | None = None
    amount: Decimal | None = None
    currency: str | None = None
    buyer_id: UUID | None = None
    buyer_ref: str | None = None
    affiliate_id: UUID | None = None
    source: str | None = None
    external_id: str | None = None
    occurred_at: datetime | None = None
    metadata: dict[str, Any] | None = None


class RefundLineBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    line_id: int
    quantity: int


class RefundBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `lines` all that is left."""

    lines: list[RefundLineBody] | None = None
    reason: str | None = None


def record(body: TransactionBody, who: Who) -> commands.Record:
    """The command that the body means. Raises RequestRefused, Forbidden and what a price is refused for."""
    return commands.Record(
        lines=_lines(body),
        sets_prices=who.may("transactions:price"),
        currency=body.currency,
        buyer_id=_buyer_id(body, who),
        buyer_ref=body.buyer_ref,
        affiliate_id=body.affiliate_id,
        source=body.source,
        external_id=body.external_id,
        occurred_at=body.occurred_at,
        metadata=body.metadata,
    )


def refund(body: RefundBody, transaction_id: UUID, version: int | None) -> commands.Refund:
    lines = None
    if body.lines is not None:
        lines = [commands.RefundLineOrdered(line_id=line.line_id, quantity=line.quantity) for line in body.lines]
    return commands.Refund(transaction_id=transaction_id, version=version, lines=lines, reason=body.reason)


def _lines(body: TransactionBody) -> list[commands.LineOrdered]:
    if body.lines is None:
        if body.product_id is None:
            raise _wrong("lines", "The sale has no lines. Add lines, or product_id and amount.")
        if body.amount is None:
            raise _wrong("amount", "The amount is missing. Add it, or give lines.")
        money.check_unit_price(body.amount, "amount")
        return [commands.LineOrdered(product_id=body.product_id, quantity=1, unit_price=body.amount)]
    for name in ("product_id", "amount"):
        if getattr(body, name) is not None:
            raise _wrong(name, f"There are lines and {name}. Leave {name} out: it is the short form's.")
    return [
        commands.LineOrdered(
            quantity=line.quantity, product_id=line.product_id, sku=line.sku, unit_price=line.unit_price
        )
        for line in body.lines
    ]


def _buyer_id(body: TransactionBody, who: Who) -> UUID | None:
    if who.may("transactions:record"):
        return body.buyer_id
    if body.buyer_id not in (None, who.account_id):
        raise _not_for_others("buyer_id")
    for name in _OTHERS:
        if getattr(body, name) is not None:
            raise _not_for_others(name)
    return who.account_id


def _not_for_others(field: str) -> rights.Forbidden:
    text = f"Your role may not say {field}: you record what you buy yourself. Leave it out."
    return rights.Forbidden(text, {field: [text]})


def _wrong(field: str, text: str) -> errors.RequestRefused:
    return errors.RequestRefused(errors.INVALID, text, {field: [text]})
