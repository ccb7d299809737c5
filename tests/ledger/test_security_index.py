"""The audit trail finds its events by their index."""

from uuid import uuid4

import psycopg

from ledger import security
from tests.world import Database


def test_security_events_are_found_without_reading_the_stream(database: Database) -> None:
    """They are a few in a thousand: a page would read a million sales. The statement has to be in the words of the index."""
    statement = security.BEFORE.replace("%(tenant)s", f"'{uuid4()}'::uuid").replace("%(limit)s", "20")
    statement = statement.replace("%(before)s", str(2**62)).replace("%(after)s", "0")
    with psycopg.connect(database.owner_url) as connection:
        connection.execute("SET enable_seqscan = off")
        rows = connection.execute(f"EXPLAIN {statement}").fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert "events_security" in plan, plan
    assert str(security.KINDS).replace("'", "")[1:-1].replace(", ", ",") in security.BEFORE
