"""Given: aggregates as they come back from the ledger. Then: what they recorded."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.domain import AggregateEvent

from domain import products, transactions
from domain.aggregates import Aggregate

A = TypeVar("A", bound=Aggregate)

TENANT_ID = UUID("01900000-0000-7000-8000-00000000000a")
PRODUCT_ID = UUID("01900000-0000-7000-8000-00000000000b")
SALE_ID = UUID("01900000-0000-7000-8000-00000000000c")
REFUND_ID = UUID("01900000-0000-7000-8000-00000000000d")
OTHER_REFUND_ID = UUID("01900000-0000-7000-8000-00000000000e")
SUBJECT_ID = UUID("01900000-0000-7000-8000-00000000000f")
BUYER_ID = UUID("01900000-0000-7000-8000-000000000010")
AFFILIATE_ID = UUID("01900000-0000-7000-8000-000000000011")
ACCOUNT_ID = UUID("01900000-0000-7000-8000-000000000012")
SESSION_ID = UUID("01900000-0000-7000-8000-000000000013")

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

# Envelope fields, which the ledger keeps in columns of their own or not at all.
ENVELOPE = frozenset({"originator_id", "originator_version", "originator_topic", "timestamp"})


def given(aggregate: A) -> A:
    """The aggregate folded from its recorded events, with nothing pending: as a command gets it from the ledger."""
    folded: A | None = None
    for event in aggregate.pending_events:
        folded = event.mutate(folded)
    assert folded is not None
    return folded


def recorded(aggregate: Aggregate) -> list[tuple[str, dict[str, Any]]]:
    """Topic and own fields of each pending event."""
    return [(topic(type(event)), state(event)) for event in aggregate.pending_events]


def topic(event_class: type) -> str:
    found = getattr(event_class, "TOPIC", None)
    assert isinstance(found, str)
    return found


def state(event: object) -> dict[str, Any]:
    return {name: value for name, value in vars(event).items() if name not in ENVELOPE}


def event_classes(aggregate_class: type[Aggregate]) -> list[type[AggregateEvent]]:
    return [
        value
        for name, value in vars(aggregate_class).items()
        if isinstance(value, type) and issubclass(value, AggregateEvent) and name != "Event"
    ]


def mug_at(price: str) -> products.Product:
    return given(
        products.list_product(
            id=PRODUCT_ID, tenant_id=TENANT_ID, sku="MUG-1", name="Mug", price=Decimal(price), currency="EUR"
        )
    )


def line(quantity: int = 1, unit_price: str = "9.00", sku: str = "MUG-1") -> transactions.LineWanted:
    return transactions.LineWanted(product_id=PRODUCT_ID, sku=sku, quantity=quantity, unit_price=Decimal(unit_price))


def unmatched(quantity: int = 1, unit_price: str = "9.00", sku: str = "MUG-1") -> transactions.UnmatchedLineWanted:
    return transactions.UnmatchedLineWanted(product_id=None, sku=sku, quantity=quantity, unit_price=Decimal(unit_price))


def sale(*lines: transactions.LineWanted, currency: str = "EUR") -> transactions.Transaction:
    return given(transactions.record(id=SALE_ID, tenant_id=TENANT_ID, lines=lines, currency=currency, occurred_at=NOON))
