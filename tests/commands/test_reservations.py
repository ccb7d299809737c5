"""What events reserve, where a person's datum in them is lost. That all of it is found: tests/bitnexus/moving."""

from types import SimpleNamespace

import pytest

from commands import reservations
from domain import accounts, transactions
from ledger import codec, ids


@pytest.mark.parametrize("lost", [codec.ERASED, codec.UNREADABLE])
def test_what_cannot_be_read_reserves_nothing(lost: str) -> None:
    """Else the first of the erased would have the address of all of them."""
    registered = SimpleNamespace(originator_id=ids.new_id(), email=lost)
    assert reservations.claimed(accounts.Account.Registered.TOPIC, registered) is None
    for topic in (transactions.Transaction.Recorded.TOPIC, transactions.Refund.Recorded.TOPIC):
        sold = SimpleNamespace(buyer_ref=lost, buyer_subject_id=ids.new_id())
        assert reservations.named(topic, sold) is None
