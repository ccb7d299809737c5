"""What an import comes to, in numbers."""

from collections.abc import Callable

import msgspec

from bitnexus.retail.plan import Plan
from bitnexus.retail.rows import CURRENCY
from bitnexus.retail.run import Carried, Done, Refused
from domain import money


class Added(msgspec.Struct, frozen=True):
    products: int
    transactions: int
    refunds: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and amounts are the file's; `added`, `events` and the times are this run's."""

    file: str
    tenant: str
    source: str
    rows: int
    accepted: int
    rejected: dict[str, int]  # by reason
    products: int
    transactions: int
    refunds: int
    refunds_matched: int
    refunds_unmatched: int
    currency: str
    gross: str
    refunded: str
    net: str
    added: Added
    found: Added  # recorded before this run
    refused: dict[str, int]  # commands, by the rule that turned them away
    refusals: list[Refused]  # the first of them
    events: int
    seconds: float
    events_per_s: int


def report(file: str, tenant: str, source: str, plan: Plan, carried: Carried, seconds: float) -> Report:
    """`seconds`: from the first row read to the last command answered."""
    return Report(
        file=file,
        tenant=tenant,
        source=source,
        rows=plan.rows_total,
        accepted=plan.accepted,
        rejected={reason.value: count for reason, count in sorted(plan.rejected.items())},
        products=len(plan.products),
        transactions=len(plan.sales),
        refunds=len(plan.refunds),
        refunds_matched=plan.matched,
        refunds_unmatched=len(plan.refunds) - plan.matched,
        currency=CURRENCY,
        gross=money.to_text(plan.gross_minor, CURRENCY),
        refunded=money.to_text(plan.refunded_minor, CURRENCY),
        net=money.to_text(plan.gross_minor - plan.refunded_minor, CURRENCY),
        added=_counts(carried, lambda done: done.added),
        found=_counts(carried, lambda done: done.found),
        refused=dict(sorted(carried.refused.items())),
        refusals=carried.examples,
        events=carried.events,
        seconds=round(seconds, 3),
        events_per_s=round(carried.events / seconds),
    )


def _counts(carried: Carried, count: Callable[[Done], int]) -> Added:
    return Added(count(carried.products), count(carried.transactions), count(carried.refunds))
