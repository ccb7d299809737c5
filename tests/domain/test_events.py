"""Events are forever: their topics, their fields' types, their stored examples, and that the widest ones fit."""

import base64
import json
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from eventsourcing.domain import AggregateEvent

from domain import catalogue, money, transactions
from domain.aggregates import Aggregate
from domain.transactions import parties
from tests.domain.given import (
    AFFILIATE_ID,
    BUYER_ID,
    ENVELOPE,
    NOON,
    PRODUCT_ID,
    REFUND_ID,
    SALE_ID,
    SUBJECT_ID,
    TENANT_ID,
    event_classes,
    state,
    topic,
)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tests" / "events"
EVENT_CLASSES = {topic(found): found for each in catalogue.AGGREGATES for found in event_classes(each)}
# What an event may take, so that its own metadata (ids of command, actor, request) and the frame fit in 65,535 too.
STATE_BYTES_MAX = 60_000


def fields(event_class: type[AggregateEvent]) -> dict[str, Any]:
    """Its own fields with their types, as the ledger's codec looks them up."""
    hints = get_type_hints(event_class, include_extras=True)
    names = [name for name in vars(event_class)["__dataclass_fields__"] if name not in ENVELOPE]
    return {name: hints[name] for name in names}


def test_the_topics_are_these() -> None:
    """A topic that changes makes every stored event of that type unreadable."""
    assert sorted(EVENT_CLASSES) == [
        "account.deactivated",
        "account.email_changed",
        "account.email_verified",
        "account.password_changed",
        "account.reactivated",
        "account.recovery_code_used",
        "account.registered",
        "account.renamed",
        "account.role_changed",
        "account.second_factor_disabled",
        "account.second_factor_enabled",
        "invitation.accepted",
        "invitation.issued",
        "invitation.revoked",
        "person.erased",
        "person.exported",
        "product.listed",
        "product.renamed",
        "product.repriced",
        "product.retired",
        "refund.recorded",
        "security.key_rotated",
        "security.log_ins_failed",
        "security.refresh_token_replayed",
        "service_account.closed",
        "service_account.created",
        "service_account.key_issued",
        "service_account.key_revoked",
        "session.refreshed",
        "session.revoked",
        "session.started",
        "tenant.branded",
        "tenant.closed",
        "tenant.configured",
        "tenant.created",
        "tenant.exported",
        "tenant.hosts_changed",
        "tenant.limited",
        "tenant.looked_into",
        "tenant.registered",
        "tenant.resumed",
        "tenant.sign_in_configured",
        "tenant.suspended",
        "transaction.recorded",
        "transaction.refunded",
        "view.repaired",
    ]
    assert [vars(each)["TOPIC"] for each in catalogue.AGGREGATES] == [
        "tenant", "registration", "account", "session", "invitation", "service_account", "erasure", "product", "transaction", "refund",
        "repair", "look", "failed_log_ins", "person_export", "tenant_export", "key_rotation",
    ]  # fmt: skip


@pytest.mark.parametrize("name", EVENT_CLASSES)
def test_every_version_of_every_event_has_a_stored_example(name: str) -> None:
    """The example decodes by the fields' types and encodes to the very same bytes."""
    version = getattr(EVENT_CLASSES[name], "class_version", 1)
    example = json.loads((EXAMPLES / f"{name}.v{version}.json").read_text("utf-8"))
    assert (example["topic"], example["class_version"]) == (name, version)
    types = fields(EVENT_CLASSES[name])
    assert list(example["state"]) == list(types)
    stored = msgspec.json.encode(example["state"])
    raw = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
    decoded = {field: msgspec.json.decode(raw[field], type=hint) for field, hint in types.items()}
    assert msgspec.json.encode(decoded) == stored


@pytest.mark.parametrize("aggregate_class", catalogue.AGGREGATES)
def test_the_examples_fold_into_their_aggregate(aggregate_class: type[Aggregate]) -> None:
    """What is stored today must still be an aggregate after any change of the code."""
    folded: Aggregate | None = None
    for version, event_class in enumerate(event_classes(aggregate_class), start=1):
        latest = getattr(event_class, "class_version", 1)
        example = json.loads((EXAMPLES / f"{topic(event_class)}.v{latest}.json").read_text("utf-8"))
        values = {name: msgspec.convert(example["state"][name], hint) for name, hint in fields(event_class).items()}
        make: Any = event_class
        created = {} if folded else {"originator_topic": vars(aggregate_class)["TOPIC"]}
        event = make(originator_id=SALE_ID, originator_version=version, timestamp=NOON, **created, **values)
        folded = event.mutate(folded)
        assert state(event) == values
    assert folded is not None
    assert (folded.id, folded.version) == (SALE_ID, len(event_classes(aggregate_class)))


@pytest.mark.parametrize("name", EVENT_CLASSES)
def test_personal_fields_have_a_subject(name: str) -> None:
    """A personal field without a subject could not be encrypted, and so never be erased."""
    types = fields(EVENT_CLASSES[name])
    personal = {field for field, hint in types.items() if is_personal(hint)}
    subject = getattr(EVENT_CLASSES[name], "SUBJECT", None)
    assert personal == {
        "account.registered": {"email", "name"},
        "account.renamed": {"name"},
        "account.email_changed": {"email"},
        "transaction.recorded": {"buyer_ref"},
        "refund.recorded": {"buyer_ref"},
    }.get(name, set())
    assert (subject in {"originator_id", *types}) if personal else subject is None


def is_personal(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return any(meta.extra == {"personal": True} for meta in hint.__metadata__ if isinstance(meta, msgspec.Meta))
    return any(is_personal(each) for each in get_args(hint))


def ciphertext(value: str) -> str:
    """As wide as AES-256-GCM with its nonce and tag makes it, with room for a key's name."""
    return "key-000001:" + base64.b64encode(bytes(12 + 16) + msgspec.json.encode(value)).decode()


WIDE_SKU = "👩" * 16  # 64 bytes
WIDE_REF = "👩" * (parties.BUYER_REF_ENCODED_BYTES_MAX // 4)
WIDE_METADATA = {"x": "y" * 4_088}


def widest_lines() -> list[tuple[int, Decimal]]:
    """Quantity and unit price of 250 lines with the most digits that the greatest total admits.

    A yen has no minor unit, so there an amount says the least with the most digits before the point of the price. A
    line of amount 10^k or a little more has k+1 digits there and at most k+2 in quantity and price; each two digits
    more cost ten times the money. So: all lines equal as far as the total goes, and as many as it admits one wider.
    """
    narrow, wide = (10**9, Decimal("10000.000001")), (10**9, Decimal("100000.000001"))
    amount_narrow, amount_wide = (money.line_amount(*each, "JPY") for each in (narrow, wide))
    spare = money.AMOUNT_MINOR_MAX - transactions.LINES_MAX * amount_narrow
    wide_count = spare // (amount_wide - amount_narrow)
    assert 0 < wide_count < transactions.LINES_MAX
    return [wide] * wide_count + [narrow] * (transactions.LINES_MAX - wide_count)


def widest_sale() -> transactions.Transaction:
    return transactions.record(
        id=SALE_ID,
        tenant_id=TENANT_ID,
        lines=[
            transactions.LineWanted(product_id=PRODUCT_ID, sku=WIDE_SKU, quantity=quantity, unit_price=price)
            for quantity, price in widest_lines()
        ],
        currency="JPY",
        occurred_at=NOON.replace(microsecond=999_999),
        buyer_id=BUYER_ID,
        buyer_subject_id=SUBJECT_ID,
        buyer_ref=WIDE_REF,
        affiliate_id=AFFILIATE_ID,
        source="s" * 32,
        external_id="👩" * 64,
        metadata=WIDE_METADATA,
    )


def encoded_bytes(aggregate: Aggregate) -> int:
    """Of the last pending event, personal fields encrypted."""
    values = state(aggregate.pending_events[-1])
    if values.get("buyer_ref"):
        values["buyer_ref"] = ciphertext(values["buyer_ref"])
    return len(msgspec.json.encode(values))


def test_the_widest_sale_fits_in_a_leaf() -> None:
    """Else somebody's longest invoice could not be recorded at all, for no reason that a user would understand."""
    widest = encoded_bytes(widest_sale())
    assert widest < STATE_BYTES_MAX
    assert f"takes {widest:,} bytes as an event" in (ROOT / "docs" / "money.md").read_text("utf-8")


def test_the_widest_refunds_fit_in_a_leaf() -> None:
    """What could be sold must be refundable in one go."""
    reason = "👩" * parties.REASON_LENGTH_MAX
    sold = widest_sale()
    sold.refund(REFUND_ID, None, reason=reason, occurred_at=NOON, source="s" * 32, external_id="👩" * 64)
    unmatched = transactions.record_refund(
        id=REFUND_ID,
        tenant_id=TENANT_ID,
        lines=[
            transactions.UnmatchedLineWanted(product_id=PRODUCT_ID, sku=WIDE_SKU, quantity=quantity, unit_price=price)
            for quantity, price in widest_lines()
        ],
        currency="JPY",
        occurred_at=NOON.replace(microsecond=999_999),
        reason=reason,
        source="s" * 32,
        external_id="👩" * 64,
        buyer_subject_id=SUBJECT_ID,
        buyer_ref=WIDE_REF,
    )
    assert encoded_bytes(sold) < STATE_BYTES_MAX
    assert encoded_bytes(unmatched) < STATE_BYTES_MAX
