"""A sale and the refunds of it."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
from eventsourcing.domain import event

from domain import aggregates, external, instants, money, refusals, tenants
from domain import metadata as free_metadata
from domain.meaning import meaning
from domain.transactions import parties
from domain.transactions.lines import (
    LINES_MAX,
    CurrencyMixed,
    Line,
    LineWanted,
    RefundLine,
    check_count,
    check_total,
    priced,
)


class Status(StrEnum):
    RECORDED = "recorded"
    PARTLY_REFUNDED = "partly_refunded"
    REFUNDED = "refunded"


class LineUnknown(refusals.Invalid):
    def __init__(self, line_id: int, line_count: int) -> None:
        super().__init__(
            "The transaction has no such line", line_id, f"Give a line_id from 1 to {line_count}", field="lines"
        )


class RefundExceeds(refusals.Invalid):
    def __init__(self, line_id: int, quantity: int, left: int) -> None:
        super().__init__(
            f"The refund is more than what is left of line {line_id}, which is {left}",
            quantity,
            f"Refund at most {left} of it",
            field="lines",
        )


class NothingLeft(refusals.Conflict):
    def __init__(self, transaction_id: UUID) -> None:
        super().__init__(
            "All of the transaction has been refunded", transaction_id, "Look at its refunds; there is no more to do"
        )


class RefundMade(msgspec.Struct, frozen=True):
    """One refund of a transaction, as the transaction remembers it."""

    id: UUID
    lines: list[RefundLine]
    amount_minor: int
    reason: str | None
    source: str | None
    external_id: str | None
    occurred_at: datetime


class Transaction(aggregates.Aggregate):
    """A sale, and the refunds of it. Lines never change; what is left of them does."""

    TOPIC = "transaction"

    class Recorded(aggregates.Aggregate.Created):
        """Something was sold. Prices and amounts are those of the sale, whatever the products cost later."""

        TOPIC = "transaction.recorded"
        SUBJECT = "buyer_subject_id"
        tenant_id: tenants.TenantId
        lines: Annotated[
            list[Line], meaning("What was sold, in the order of the lines' ids", unit=f"1 to {LINES_MAX} lines")
        ]
        currency: money.Currency
        amount_minor: Annotated[money.Minor, meaning("The sum of the lines' amounts")]
        buyer_id: parties.BuyerId | None
        buyer_subject_id: parties.BuyerSubjectId | None
        buyer_ref: parties.BuyerRef | None
        affiliate_id: parties.AffiliateId | None
        source: external.Source | None
        external_id: external.ExternalId | None
        occurred_at: instants.OccurredAt
        metadata: free_metadata.Metadata

    class Refunded(aggregates.Aggregate.Event):
        """Some or all of the sale was given back."""

        TOPIC = "transaction.refunded"
        refund_id: Annotated[UUID, meaning("This refund")]
        lines: Annotated[list[RefundLine], meaning("What is given back of which line", unit=f"1 to {LINES_MAX} lines")]
        amount_minor: Annotated[money.Minor, meaning("What this refund gives back")]
        refunded_minor: Annotated[money.Minor, meaning("Given back of the whole transaction, this refund included")]
        status: Annotated[str, meaning(f"Of the transaction after it: {', '.join(list(Status)[1:])}")]
        currency: Annotated[money.Currency, meaning("The currency of the sale")]
        reason: parties.Reason | None
        source: external.Source | None
        external_id: external.ExternalId | None
        occurred_at: instants.OccurredAt
        buyer_id: Annotated[parties.BuyerId, meaning("The buyer of the sale")] | None
        affiliate_id: Annotated[parties.AffiliateId, meaning("The affiliate of the sale")] | None

    @event(Recorded)
    def __init__(
        self,
        id: UUID,
        tenant_id: UUID,
        lines: list[Line],
        currency: str,
        amount_minor: int,
        buyer_id: UUID | None,
        buyer_subject_id: UUID | None,
        buyer_ref: str | None,
        affiliate_id: UUID | None,
        source: str | None,
        external_id: str | None,
        occurred_at: datetime,
        metadata: dict[str, Any],
    ) -> None:
        self.tenant_id = tenant_id
        self.lines = lines  # in the order of their ids: line n is lines[n - 1]
        self.currency = currency
        self.amount_minor = amount_minor
        self.buyer_id = buyer_id
        self.buyer_subject_id = buyer_subject_id
        self.buyer_ref = buyer_ref
        self.affiliate_id = affiliate_id
        self.source = source
        self.external_id = external_id
        self.occurred_at = occurred_at
        self.metadata = metadata
        self.status = Status.RECORDED
        self.refunded_minor = 0
        self.refunded_quantities: dict[int, int] = {}  # by line id; a line of which nothing was refunded is absent
        self.refunds: dict[UUID, RefundMade] = {}  # in the order in which they were made

    def line(self, line_id: int) -> Line:
        """Raises LineUnknown."""
        if not 1 <= line_id <= len(self.lines):
            raise LineUnknown(line_id, len(self.lines))
        return self.lines[line_id - 1]

    def left(self, line_id: int) -> int:
        """Units of the line that have not been refunded. Raises LineUnknown."""
        return self.line(line_id).quantity - self.refunded_quantities.get(line_id, 0)

    def refund(
        self,
        refund_id: UUID,
        wanted: Sequence[tuple[int, int]] | None,
        *,
        reason: str | None = None,
        occurred_at: datetime,
        source: str | None = None,
        external_id: str | None = None,
    ) -> RefundMade:
        """The refund of `wanted`, pairs of line id and quantity (a line named twice counts with the sum), or of all
        that is left if None. A refund id that is already here records nothing and gives that refund back.

        Raises NothingLeft, LineCountOutOfRange, LineUnknown, QuantityOutOfRange, RefundExceeds, TimeWithoutZone,
        TimeOutOfRange, TextTooLong, TextForbidden, and what `external.checked` raises.
        """
        if refund_id in self.refunds:
            return self.refunds[refund_id]
        if self.status is Status.REFUNDED:
            raise NothingLeft(self.id)
        quantities = self._all_that_is_left() if wanted is None else self._added_up(wanted)
        lines = [self._refund_line(line_id, quantities[line_id]) for line_id in sorted(quantities)]
        amount_minor = sum(line.amount_minor for line in lines)
        checked_source, checked_external_id = external.checked(source, external_id)
        self._refunded(
            refund_id=refund_id,
            lines=lines,
            amount_minor=amount_minor,
            refunded_minor=self.refunded_minor + amount_minor,
            status=str(self._status_after(lines)),
            currency=self.currency,
            reason=parties.checked_reason(reason),
            source=checked_source,
            external_id=checked_external_id,
            occurred_at=instants.in_utc(occurred_at, "occurred_at"),
            buyer_id=self.buyer_id,
            affiliate_id=self.affiliate_id,
        )
        return self.refunds[refund_id]

    @event(Refunded)
    def _refunded(
        self,
        refund_id: UUID,
        lines: list[RefundLine],
        amount_minor: int,
        refunded_minor: int,
        status: str,
        currency: str,
        reason: str | None,
        source: str | None,
        external_id: str | None,
        occurred_at: datetime,
        buyer_id: UUID | None,
        affiliate_id: UUID | None,
    ) -> None:
        for line in lines:
            self.refunded_quantities[line.line_id] = line.refunded_quantity
        self.refunded_minor = refunded_minor
        self.status = Status(status)
        self.refunds[refund_id] = RefundMade(refund_id, lines, amount_minor, reason, source, external_id, occurred_at)

    def _all_that_is_left(self) -> dict[int, int]:
        left = {line.id: self.left(line.id) for line in self.lines}
        return {line_id: quantity for line_id, quantity in left.items() if quantity}

    def _added_up(self, wanted: Sequence[tuple[int, int]]) -> dict[int, int]:
        """Sums by line, each within what is left of its line."""
        check_count(wanted)
        quantities: Counter[int] = Counter()
        for index, (line_id, quantity) in enumerate(wanted):
            money.check_quantity(quantity, f"lines.{index}.quantity")
            quantities[line_id] += quantity
        for line_id, quantity in quantities.items():
            left = self.left(line_id)
            if quantity > left:
                raise RefundExceeds(line_id, quantity, left)
        return quantities

    def _refund_line(self, line_id: int, quantity: int) -> RefundLine:
        line = self.lines[line_id - 1]
        already = self.refunded_quantities.get(line_id, 0)
        amount_minor = money.refund_amount(already, quantity, line.unit_price, self.currency)
        return RefundLine(line_id, line.sku, quantity, amount_minor, already + quantity)

    def _status_after(self, lines: list[RefundLine]) -> Status:
        """By units, not by money: a gift is refunded when it has come back."""
        refunded = self.refunded_quantities | {line.line_id: line.refunded_quantity for line in lines}
        complete = all(refunded.get(line.id, 0) == line.quantity for line in self.lines)
        return Status.REFUNDED if complete else Status.PARTLY_REFUNDED


def record(
    *,
    id: UUID,
    tenant_id: UUID,
    lines: Sequence[LineWanted],
    currency: str,
    occurred_at: datetime,
    buyer_id: UUID | None = None,
    buyer_subject_id: UUID | None = None,
    buyer_ref: str | None = None,
    affiliate_id: UUID | None = None,
    source: str | None = None,
    external_id: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Transaction:
    """A sale with its lines numbered from 1 in the given order, and the amounts of docs/money.md.

    Raises LineCountOutOfRange, CurrencyMixed, TotalTooHigh, TimeWithoutZone, TimeOutOfRange, what `lines.priced`,
    `external.checked` and `metadata.checked` raise, and for the buyer's reference TextBlank, TextTooLong, TextTooWide,
    TextForbidden.
    """
    check_count(lines)
    recorded = [_line(wanted, index, currency) for index, wanted in enumerate(lines)]
    amount_minor = sum(line.amount_minor for line in recorded)
    check_total(amount_minor)
    checked_source, checked_external_id = external.checked(source, external_id)
    return Transaction(
        id=id,
        tenant_id=tenant_id,
        lines=recorded,
        currency=currency,
        amount_minor=amount_minor,
        buyer_id=buyer_id,
        buyer_subject_id=buyer_subject_id,
        buyer_ref=parties.checked_buyer(buyer_ref, buyer_subject_id),
        affiliate_id=affiliate_id,
        source=checked_source,
        external_id=checked_external_id,
        occurred_at=instants.in_utc(occurred_at, "occurred_at"),
        metadata=free_metadata.checked(metadata or {}),
    )


def _line(wanted: LineWanted, index: int, currency: str) -> Line:
    if wanted.currency is not None and wanted.currency != currency:
        raise CurrencyMixed(wanted.currency, currency, f"lines.{index}.unit_price")
    sku, unit_price, amount_minor = priced(wanted, index, currency)
    return Line(index + 1, wanted.product_id, sku, wanted.quantity, unit_price, amount_minor)
