"""`bitnexus persons erase`: an operator forgets somebody, at the database itself."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.world import Database

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
SALES = "1,A,Mug,2,2011-01-03 08:00:00,1.25,ann@example.com,UK\n2,A,Mug,1,2011-01-04 08:00:00,1.25,bob@example.com,UK\n"


@pytest.fixture
def database(shop_database: Database) -> Database:
    """With the tenant `shop`."""
    return shop_database


@pytest.fixture
def bitnexus(database: Database, tmp_path: Path) -> CommandLine:
    """A shop with an admin, and two sales to buyers without an account; the views show both."""
    made = commandline.on(database, BITNEXUS_ERASURE_LIST=str(tmp_path / "erasures.jsonl"))
    (tmp_path / "sales.csv").write_text(HEADER + SALES)
    made.good("import", "retail", tmp_path / "sales.csv", "--tenant", "shop")
    made.good("projections", "rebuild", "transactions")
    assert buyers(database) == ["ann@example.com", "bob@example.com"]
    return made


def buyers(database: Database) -> list[Any]:
    with psycopg.connect(database.owner_url) as owner:
        return sorted(
            ref for _, ref in owner.execute("SELECT DISTINCT transaction_id, buyer_ref FROM views.transactions")
        )


def test_a_buyer_is_gone_from_every_view_when_the_command_ends(
    bitnexus: CommandLine, database: Database, tmp_path: Path
) -> None:
    """Also where no server runs that would keep the views up."""
    said = bitnexus.good("persons", "erase", "--tenant", "shop", "--buyer", "ann@example.com")
    assert (said["tenant"], said["views"]) == ("shop", "forgotten")
    assert buyers(database) == ["[erased]", "bob@example.com"]
    noted = [json.loads(line) for line in (tmp_path / "erasures.jsonl").read_text().splitlines()]
    assert [each["subject_id"] for each in noted] == [said["subject_id"]]
    replayed = bitnexus.good("audit", "replay", "--tenant", "shop", "--to", said["position"])
    assert replayed["topics"]["person.erased"] == 1
    again = bitnexus("persons", "erase", "--tenant", "shop", "--buyer", "ann@example.com")
    assert again.code == 2
    assert "There is no such person, or the person has been erased" in again.err
    assert "ann@" not in again.err


def test_an_account_is_erased_by_its_address_unless_it_is_the_last_admin(bitnexus: CommandLine) -> None:
    erase = ("persons", "erase", "--tenant", "shop")
    refused = bitnexus(*erase, "--email", "Admin@Shop.example")
    assert refused.code == 2
    assert "Let there be another admin first (bitnexus tenants admin)" in refused.err
    bitnexus.good(
        *("tenants", "admin", "shop", "--admin-email", "second@shop.example", "--admin-password", "correct horse")
    )
    run = bitnexus(*erase, "--email", "-", stdin="admin@shop.example\n")
    assert run.code == 0, run.err
    assert "Erased, as event 7 of shop" in run.out
    assert bitnexus(*erase, "--email", "second@shop.example").code == 2


def test_who_is_not_named_is_not_erased(bitnexus: CommandLine, tmp_path: Path) -> None:
    for words, says in (
        ((), "--email --buyer"),
        (("--email", "a@b.example", "--buyer", "1"), "not allowed with"),
        (("--email", "nobody"), "This is not an e-mail address"),
        (("--email", "nobody@shop.example"), "There is no such person"),
        (("--buyer", " "), "buyer_ref"),
    ):
        run = bitnexus("persons", "erase", "--tenant", "shop", *words)
        assert run.code == 2
        assert says in run.err
    assert not (tmp_path / "erasures.jsonl").exists()
