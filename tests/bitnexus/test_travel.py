"""`bitnexus projections at`: an operator looks at a view as it stood."""

from typing import Any

import psycopg
import pytest

from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.world import Database


@pytest.fixture
def database(sold_database: Database) -> Database:
    """With the tenant `shop`, which has 1,500 events."""
    return sold_database


@pytest.fixture
def bitnexus(database: Database) -> CommandLine:
    return commandline.on(database)


def at(bitnexus: CommandLine, view: str, time: object, limit: int = 100_000) -> dict[str, Any]:
    words = ("--tenant", "shop", "--time", time, "--limit", limit)
    found: dict[str, Any] = bitnexus.good("projections", "at", view, *words)
    return found


def test_a_view_as_it_stood(bitnexus: CommandLine, database: Database) -> None:
    """By position and by instant, in whole or its first rows; the live view is not needed for it, and is not made."""
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        query = (
            "SELECT position, recorded_at FROM (SELECT max(position) AS position, recorded_at, sum(count(*)) OVER (ORDER BY recorded_at)"
            " AS sold FROM ledger.events WHERE topic = 'transaction.recorded' GROUP BY recorded_at) AS flush"
            " WHERE sold >= 10 ORDER BY recorded_at LIMIT 1"
        )
        ((position, recorded_at),) = owner.execute(query).fetchall()
    then = at(bitnexus, "transactions", position)
    (found,) = then["tables"]
    assert (then["position"], found["table"], found["count"]) == (position, "transactions", len(found["rows"]))
    assert max(row["position"] for row in found["rows"]) == position
    (sums,) = at(bitnexus, "sales", recorded_at.isoformat())["tables"]
    assert sum(row["count"] for row in sums["rows"]) == found["count"] >= 10
    assert sum(row["gross_minor"] for row in sums["rows"]) == sum(row["amount_minor"] for row in found["rows"])
    run = bitnexus("projections", "at", "transactions", "--tenant", "shop", "--time", position, "--limit", 3)
    assert (
        f"3 of {found['count']:,} rows of views.transactions at position {position:,}. --limit gives more." in run.out
    )
    assert found["rows"][2]["transaction_id"] in run.out
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        assert owner.execute("SELECT count(*) FROM views.transactions").fetchall() == [(0,)]


def test_what_cannot_be_looked_at_is_said_in_three_parts(bitnexus: CommandLine) -> None:
    of = ("--tenant", "shop", "--time")
    for words, said in (
        (("profits", *of, "1"), "There is no such view: 'profits'. Give one of products,"),
        (("sales", "--tenant", "nobody", "--time", "1"), "nobody"),
        (("sales", *of, "9999999"), "The stream does not reach the position: 9999999. Give one from 1 to"),
        (("sales", *of, "yesterday"), "--time is no time: 'yesterday'. Write it as"),
        (("sales", *of, "2026-01-31T09:30:00"), "does not say its offset from UTC"),
        (("sales", *of, "1", "--limit", "0"), "is not a whole number from 1 to"),
        (("sales", "--tenant", "shop"), "--time"),
    ):
        run = bitnexus("projections", "at", *words)
        assert (run.code, run.out, said in run.err) == (2, "", True), run.err
