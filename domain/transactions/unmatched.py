"""A refund whose sale is not known: an aggregate of its own."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, external, instants, money, tenants
from domain.meaning import meaning
from domain.transactions import parties
from domain.transactions.lines import (
    LINES_MAX,
    UnmatchedLine,
    UnmatchedLineWanted,
    check_count,
    check_total,
    priced,
)


class Refund(aggregates.Aggregate):
    """Money given back for a sale that is not known here."""

    TOPIC = "refund"

    class Recorded(aggregates.Aggregate.Created):
        """Money was given back, and for which sale is not known."""

        TOPIC = "refund.recorded"
        SUBJECT = "buyer_subject_id"
        tenant_id: tenants.TenantId
        lines: Annotated[list[UnmatchedLine], meaning("What is given back", unit=f"1 to {LINES_MAX} lines")]
        amount_minor: Annotated[money.Minor, meaning("The sum of the lines' amounts")]
        currency: money.Currency
        reason: parties.Reason | None
        source: external.Source | None
        external_id: external.ExternalId | None
        occurred_at: instants.OccurredAt
        buyer_subject_id: parties.BuyerSubjectId | None
        buyer_ref: parties.BuyerRef | None

    @event(Recorded)
    def __init__(
        self,
        id: UUID,
        tenant_id: UUID,
        lines: list[UnmatchedLine],
        amount_minor: int,
        currency: str,
        reason: str | None,
        source: str | None,
        external_id: str | None,
        occurred_at: datetime,
        buyer_subject_id: UUID | None,
        buyer_ref: str | None,
    ) -> None:
        self.tenant_id = tenant_id
        self.lines = lines
        self.amount_minor = amount_minor
        self.currency = currency
        self.reason = reason
        self.source = source
        self.external_id = external_id
        self.occurred_at = occurred_at
        self.buyer_subject_id = buyer_subject_id
        self.buyer_ref = buyer_ref


def record_refund(
    *,
    id: UUID,
    tenant_id: UUID,
    lines: Sequence[UnmatchedLineWanted],
    currency: str,
    occurred_at: datetime,
    reason: str | None = None,
    source: str | None = None,
    external_id: str | None = None,
    buyer_subject_id: UUID | None = None,
    buyer_ref: str | None = None,
) -> Refund:
    """A refund with its lines numbered from 1 in the given order; amounts are positive, rounded as a sale's.

    Raises LineCountOutOfRange, TotalTooHigh, TimeWithoutZone, TimeOutOfRange, what `lines.priced` and
    `external.checked` raise, and for reason and reference TextBlank, TextTooLong, TextTooWide, TextForbidden.
    """
    check_count(lines)
    recorded = [_line(wanted, index, currency) for index, wanted in enumerate(lines)]
    amount_minor = sum(line.amount_minor for line in recorded)
    check_total(amount_minor)
    checked_source, checked_external_id = external.checked(source, external_id)
    return Refund(
        id=id,
        tenant_id=tenant_id,
        lines=recorded,
        amount_minor=amount_minor,
        currency=currency,
        reason=parties.checked_reason(reason),
        source=checked_source,
        external_id=checked_external_id,
        occurred_at=instants.in_utc(occurred_at, "occurred_at"),
        buyer_subject_id=buyer_subject_id,
        buyer_ref=parties.checked_buyer(buyer_ref, buyer_subject_id),
    )


def _line(wanted: UnmatchedLineWanted, index: int, currency: str) -> UnmatchedLine:
    sku, unit_price, amount_minor = priced(wanted, index, currency)
    return UnmatchedLine(index + 1, sku, wanted.product_id, wanted.quantity, unit_price, amount_minor)
