"""What each event made its tenant reserve: the same claims as the commands', read off the events again.

Reservations are keyed under the master key, so they are made anew where a tenant comes to another one. A command that claims
something has its line here; tests/bitnexus/moving compares the two.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from commands import accounts as account_commands
from commands import products as product_commands
from commands import transactions as transaction_commands
from domain import accounts, external, privacy, products, transactions
from ledger.codec import ERASED, UNREADABLE
from ledger.store import Claim


class Reference(NamedTuple):
    """That a person is known by this reference."""

    kind: str
    ref: str
    subject_id: UUID


def claimed(topic: str, event: Any) -> Claim | None:
    """What the event claims for ever. Nothing where it is a person's datum that cannot be read."""
    found = _CLAIMS.get(topic)
    return None if found is None else found(event)


def released(topic: str, event: Any) -> tuple[str, UUID] | None:
    """The kind and the owner of everything that the event gives back before it claims."""
    return (account_commands.EMAIL, event.originator_id) if topic == accounts.Account.EmailChanged.TOPIC else None


def named(topic: str, event: Any) -> Reference | None:
    """The person whom the event names by a reference. Nothing where it cannot be read."""
    if topic not in _NAMING or event.buyer_ref is None or not _readable(event.buyer_ref):
        return None
    return Reference(transaction_commands.BUYER, event.buyer_ref, event.buyer_subject_id)


def erased(topic: str, event: Any) -> UUID | None:
    """The subject whom the event says to be erased."""
    return event.subject_id if topic == privacy.Erasure.PersonErased.TOPIC else None


def _email(event: accounts.Account.Registered | accounts.Account.EmailChanged) -> Claim | None:
    if not _readable(event.email):
        return None
    return Claim(account_commands.EMAIL, accounts.normalise_email(event.email), event.originator_id)


def _sku(event: products.Product.Listed) -> Claim:
    return Claim(product_commands.SKU, event.sku, event.originator_id)


def _recorded(event: transactions.Transaction.Recorded | transactions.Refund.Recorded) -> Claim | None:
    return _external(event.source, event.external_id, event.originator_id)


def _refunded(event: transactions.Transaction.Refunded) -> Claim | None:
    return _external(event.source, event.external_id, event.refund_id)


def _external(source: str | None, external_id: str | None, owner: UUID) -> Claim | None:
    if source is None or external_id is None:
        return None
    return Claim(transaction_commands.EXTERNAL, external.key(source, external_id), owner)


def _readable(value: str) -> bool:
    return value not in (ERASED, UNREADABLE)


_CLAIMS: dict[str, Callable[[Any], Claim | None]] = {
    accounts.Account.Registered.TOPIC: _email,
    accounts.Account.EmailChanged.TOPIC: _email,
    products.Product.Listed.TOPIC: _sku,
    transactions.Transaction.Recorded.TOPIC: _recorded,
    transactions.Transaction.Refunded.TOPIC: _refunded,
    transactions.Refund.Recorded.TOPIC: _recorded,
}
_NAMING = frozenset({transactions.Transaction.Recorded.TOPIC, transactions.Refund.Recorded.TOPIC})
TOPICS = frozenset(_CLAIMS) | _NAMING | {privacy.Erasure.PersonErased.TOPIC}
"""Of the events that claim, name or erase anything."""
