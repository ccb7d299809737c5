"""How `ledger.append` reaches its rows: what it costs must not hang on how full the tables are, nor on who analyzed them."""

from uuid import UUID

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import ids
from tests.ledger import calls
from tests.ledger.calls import APPENDED, REPLAYED, RESERVATION_TAKEN, VERSION_CONFLICT, Command, Event, Key, Secret

App = Connection[TupleRow]

pytestmark = pytest.mark.usefixtures("through")


def test_no_flush_reads_a_table_from_end_to_end(app: App, tenant: UUID) -> None:
    """Plans are kept as long as the connection is. One that was right for an empty table stops the ledger when it has grown."""
    originator, holder = ids.new_id(), ids.new_id()
    first = Command(
        tenant=tenant,
        events=[Event(originator)],
        claims=[Key(calls.key(1), holder)],
        secrets=[Secret(holder, b"new"), Secret(originator, None)],
    )
    releasing = Command(tenant=tenant, releases=[Key(calls.key(1), holder)], claims=[Key(calls.key(2), holder)])
    with app.transaction():
        assert calls.statuses(calls.append(app, first)) == [APPENDED]
        refused = [
            Command(tenant=tenant, events=[Event(originator)]),
            Command(tenant=tenant, claims=[Key(calls.key(1), originator)]),
        ]
        answers = calls.append(app, first, *refused, releasing)
        assert calls.statuses(answers) == [REPLAYED, VERSION_CONFLICT, RESERVATION_TAKEN, APPENDED]
        assert calls.read_whole(app) == []
