"""`bitnexus projections …`: what an operator does to views, and reads of them."""

import re
import signal
import time
from typing import Any
from uuid import UUID

import psycopg
import pytest

from projections import catalogue
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.world import Database

WAIT_S_MAX = 30.0
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def database(sold_database: Database) -> Database:
    """With the tenant `shop`, which has 1,500 events."""
    return sold_database


@pytest.fixture
def bitnexus(database: Database) -> CommandLine:
    return commandline.on(database)


@pytest.fixture
def shop(shop_template: tuple[str, dict[str, Any]]) -> str:
    """The tenant's id."""
    return str(shop_template[1]["tenant_id"])


def listed(bitnexus: CommandLine, view: str) -> dict[str, Any]:
    """The line of the tenant with the most events."""
    found = bitnexus.good("projections", "list", "--by-tenant", "--tenant", "shop")["tenants"]
    (line,) = [each for each in found if each["view"] == view]
    return dict(line)


def refused(bitnexus: CommandLine, *words: str) -> str:
    run = bitnexus("projections", *words)
    assert (run.code, run.out) == (2, "")
    assert re.fullmatch(r"error: .+: .+\. .+\.\n", run.err, re.DOTALL), run.err
    return run.err


def test_rebuild_switch_back_and_drop(bitnexus: CommandLine, shop: str) -> None:
    rebuilt = bitnexus.good("projections", "rebuild", "transactions", "--tenant", "shop")
    (result,) = rebuilt["results"]
    assert (result["generation"], result["switched"], result["error"]) == (2, True, None)
    (table,) = result["comparison"]["tables"]
    assert table["rows_before"] == table["rows_after"] > 1_000
    line = listed(bitnexus, "transactions")
    assert (line["generation"], line["other"], line["lag_events"]) == (2, "ready", 0)
    assert "still has another generation: 1 (ready)" in refused(bitnexus, "rebuild", "transactions", "--tenant", "shop")
    back = bitnexus.good("projections", "switch", "transactions", "--tenant", "shop", "--back")
    assert back["switched"] == [{"tenant_id": shop, "before": 2, "now": 1}]
    assert "no older generation" in refused(bitnexus, "switch", "transactions", "--tenant", "shop", "--back")
    dropped = bitnexus.good("projections", "drop", "transactions", "--all")
    assert dropped["dropped"] == [{"tenant_id": shop, "generation": 2, "rows": table["rows_after"]}]
    assert "no other generation" in refused(bitnexus, "drop", "transactions", "--tenant", "shop")
    assert "is not a whole number from 1 to 100" in refused(bitnexus, "rebuild", "transactions", "--share", "0")
    assert (listed(bitnexus, "transactions")["generation"], listed(bitnexus, "transactions")["other"]) == (1, None)


def test_comparing_only_ends_with_1_if_the_rows_differ(bitnexus: CommandLine, shop: str, database: Database) -> None:
    bitnexus.good("projections", "rebuild", "sales")
    bitnexus.good("projections", "drop", "sales")
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("UPDATE views.sales_by_day SET count = count + 1 WHERE day = '2010-12-01'")
    run = bitnexus("projections", "rebuild", "sales", "--all", "--compare-only", "--jobs", "3")
    assert run.code == 1
    assert "they differ" in run.out
    assert re.search(r'views.sales_by_day of \S+ \{"day":"2010-12-01","currency":"GBP"\}: before \{"count":', run.out)
    assert "old" in run.out


def test_an_interrupted_rebuild_stands_still_and_is_gone_on_with(
    bitnexus: CommandLine, shop: str, database: Database
) -> None:
    """By Ctrl-C; and while it runs it is not begun a second time."""
    bitnexus.good("projections", "rebuild", "products", "--tenant", "shop")
    bitnexus.good("projections", "drop", "products")
    with psycopg.connect(database.owner_url) as owner:
        owner.execute("LOCK TABLE views.products IN EXCLUSIVE MODE")  # it cannot write its first batch
        process = bitnexus.start("projections", "rebuild", "products", "--tenant", "shop")
        _until_it_waits(database)
        assert "being rebuilt already: generation 3 is at" in refused(
            bitnexus, "rebuild", "products", "--tenant", "shop"
        )
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S_MAX)
        assert process.returncode == 130, errors
        assert "run the command again to go on" in errors
    assert (listed(bitnexus, "products")["generation"], listed(bitnexus, "products")["other"]) == (2, "filling")
    rebuilt = bitnexus.good("projections", "rebuild", "products", "--all")  # the platform is not begun anew
    assert [(each["tenant_id"], each["generation"]) for each in rebuilt["results"]] == [(shop, 3)]
    assert rebuilt["results"][0]["comparison"]["equal"]


def _until_it_waits(database: Database) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        while time.monotonic() < deadline:
            row = owner.execute(WAITING).fetchone()
            if row is not None and row[0]:
                return
            time.sleep(0.05)
    pytest.fail("it never came to write")


def test_a_missing_table_is_said_so(bitnexus: CommandLine, shop: str, database: Database) -> None:
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE views.refunds RENAME TO elsewhere")
    assert "views.refunds. Run `bitnexus migrate`" in refused(bitnexus, "rebuild", "refunds", "--tenant", "shop")


def test_a_version_that_goes_backwards_is_refused(bitnexus: CommandLine, shop: str, database: Database) -> None:
    """By a release that is older than the rows: neither a rebuild, nor what is new, would be as the newer one wants it."""
    bitnexus.good("projections", "rebuild", "sales", "--tenant", "shop")
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("UPDATE views.positions SET version = 99 WHERE view = 'sales'")
        rows = owner.execute("SELECT * FROM views.positions ORDER BY 1, 2, 3").fetchall()
        said = refused(bitnexus, "rebuild", "sales", "--tenant", "shop")
        assert "this release has version 1, and what is stored is of version 99" in said
        assert owner.execute("SELECT * FROM views.positions ORDER BY 1, 2, 3").fetchall() == rows


@pytest.mark.parametrize(
    "command", ["rebuild", "switch", "drop", "parked --view", "retry --reason R", "skip --reason R"]
)
def test_an_unknown_view_or_tenant_is_said_so(bitnexus: CommandLine, command: str) -> None:
    first, *more = command.split()
    view = more if more == ["--view"] else []
    options = [] if view else more
    known = ", ".join(each.name for each in catalogue.VIEWS)
    assert f"There is no such view: 'profits'. Give one of {known}." in refused(
        bitnexus, first, *view, "profits", "--tenant", "platform", *options
    )
    assert "There is no tenant with this slug: 'nobody'" in refused(
        bitnexus, first, *view, "sales", "--tenant", "nobody", *options
    )


def test_what_is_parked_is_shown_retried_and_skipped_with_the_reason_on_record(
    bitnexus: CommandLine, shop: str, database: Database
) -> None:
    bitnexus.good("projections", "rebuild", "products", "--tenant", "shop")
    bitnexus.good("projections", "drop", "products")
    first, second = _park_two(database, UUID(shop))
    admin = _only_account(database, UUID(shop))
    found = bitnexus.good("projections", "parked", "--view", "products", "--tenant", "shop")["parked"]
    assert {each["originator_id"] for each in found} == {str(first), str(second)}
    assert {(each["error"], each["events"]) for each in found} == {("ValueError", 1)}
    assert listed(bitnexus, "products")["parked"] == 2
    of = ("products", "--tenant", "shop", "--reason", "the release of today", "--originator")
    assert bitnexus.good("projections", "retry", *of, first)["applied"] == 1
    nobody = bitnexus("projections", "skip", *of, second, "--account", shop)
    assert (nobody.code, "There is no account with the id" in nobody.err) == (2, True)
    assert bitnexus.good("projections", "skip", *of, second, "--account", admin)["skipped"] == 1
    assert bitnexus.good("projections", "parked")["parked"] == []
    assert "has parked nothing of" in refused(bitnexus, "retry", *of, str(first))
    assert "has not stopped" in refused(bitnexus, "retry", *of[:-1])
    assert "is not a UUID" in refused(bitnexus, "retry", *of, "17")
    assert "--reason" in refused(bitnexus, "retry", "products", "--tenant", "shop")
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        rows = owner.execute("SELECT state FROM ledger.events WHERE topic = 'view.repaired' ORDER BY position")
        recorded = [bytes(state) for (state,) in rows]
        left = owner.execute("SELECT product_id FROM views.products").fetchall()
    assert len(recorded) == 2  # what was refused is no repair
    assert b'"decision":"retry","reason":"the release of today","operator":"command line"' in recorded[0]
    assert f'"decision":"skip","reason":"the release of today","operator":"{admin}"'.encode() in recorded[1]
    assert (first,) in left
    assert (second,) not in left


def _only_account(database: Database, tenant_id: UUID) -> UUID:
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        query = "SELECT originator_id FROM ledger.events WHERE tenant_id = %s AND topic = 'account.registered'"
        ((account_id,),) = owner.execute(query, (tenant_id,)).fetchall()
    return UUID(str(account_id))


def _park_two(database: Database, tenant_id: UUID) -> list[UUID]:
    """Two products that were listed, as if the view had not been able to digest it."""
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        rows = owner.execute(
            "INSERT INTO views.parked (tenant_id, view, generation, originator_id, position, topic, error, attempts)"
            " SELECT tenant_id, 'products', 2, originator_id, position, topic, 'ValueError', 5 FROM ledger.events"
            " WHERE tenant_id = %s AND topic = 'product.listed' ORDER BY position LIMIT 2 RETURNING originator_id",
            (tenant_id,),
        ).fetchall()
        parked = [originator for (originator,) in rows]
        owner.execute("DELETE FROM views.products WHERE product_id = ANY (%s)", (parked,))
        owner.execute("UPDATE views.positions SET parked = 2 WHERE tenant_id = %s AND view = 'products'", (tenant_id,))
    return parked
