"""The command line: what it says, to people and to programs, and how it ends."""

import gzip
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bitnexus import cli
from projections import catalogue
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.world import Database

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
SALES = """1,A,Mug,2,2011-01-03 08:00:00,1.25,17850,United Kingdom
1,B,Lamp,1,2011-01-03 08:00:00,3.00,17850,United Kingdom
2,A,Mug,1,2011-01-04 09:30:00,1.25,,United Kingdom
2,GIFT,,1,2011-01-04 09:30:00,0,,United Kingdom
C3,A,Mug,-1,2011-01-05 10:00:00,1.25,17850,United Kingdom
C4,B,Lamp,-1,2011-01-05 11:00:00,3.00,,United Kingdom
"""


@pytest.fixture
def bitnexus(database: Database) -> CommandLine:
    return commandline.on(database)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """2 products, 2 sales, a matched refund, a guest's refund and a row without a price."""
    path = tmp_path / "sales.csv"
    path.write_text(HEADER + SALES)
    return path


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets as far as the database fails otherwise than these tests expect."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("BITNEXUS_MASTER_KEY", commandline.MASTER_KEY)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest's own handlers stay


def test_rights_are_shown_without_a_database(no_database: None, capsys: pytest.CaptureFixture[str]) -> None:
    """An auditor asks who may read the ledger."""
    assert cli.main(["rights", "--json"]) == 0
    shown = {each["right"]: each for each in json.loads(capsys.readouterr().out)["rights"]}
    assert (shown["ledger:read"]["roles"], shown["ledger:read"]["scope"]) == (["admin"], True)
    assert {right for right, each in shown.items() if "super_admin" in each["roles"]} >= {"account:read"}
    assert cli.main(["rights"]) == 0
    assert "transactions:refund" in capsys.readouterr().out


def test_no_command_loads_what_only_a_scrape_needs() -> None:
    """The library of metrics would be a tenth of each command's start."""
    modules = [f"bitnexus.cli.{each.name}" for each in pkgutil.iter_modules(cli.__path__)]
    program = f"import sys, {', '.join(modules)}\nsys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Words that cannot be understood


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "COMMAND"),
        (["serv"], "'serv'"),
        (["serve", "--port", "65536"], "'65536' is not a whole number from 0 to 65535"),
        (["serve", "--workers", "0"], "'0' is not a whole number from 1"),
        (["import", "retail", "x.csv"], "--tenant"),
        (["import", "retail", "x.csv", "--tenant", "shop", "--concurrency", "9" * 5_000], "from 1 to 1000"),
        (["import", "retail", "x.csv", "--tenant", "shop", "--source", "No Name"], "'No Name'"),
        (["audit", "replay", "--tenant", "shop", "--aggregate", "17"], "'17'"),
        (["audit", "replay", "--tenant", "shop", "--at", "yesterday"], "'yesterday'"),
        (["audit", "replay", "--tenant", "shop", "--at", "2026-01-31T09:30:00"], "2026-01-31T09:30:00"),
        (["audit", "replay", "--tenant", "shop", "--to", "1", "--at", "2026-01-31T09:30:00Z"], "--to"),
        (["projections", "rebuild", "profits"], "products, transactions, refunds, sales"),
    ],
)
@pytest.mark.usefixtures("no_database")
def test_wrong_use_is_told_in_three_parts_and_ends_with_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert re.fullmatch(r"error: .+: .+\. .+\.\n", said.err, re.DOTALL)
    assert "Traceback" not in said.err


@pytest.mark.usefixtures("no_database")
def test_a_program_gets_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "retail", "no-such-file.csv", "--tenant", "shop", "--json"]) == 2
    assert re.fullmatch(r'\{\n  "error": "no-such-file.csv: .*"\n\}\n', capsys.readouterr().out)


@pytest.mark.usefixtures("no_database")
def test_a_database_that_is_not_there_is_said_so(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert cli.main(["import", "retail", str(file), "--tenant", "shop"]) == 2
    said = capsys.readouterr().err
    assert "The database did not answer" in said
    assert "127.0.0.1" in said


def test_help_and_version_need_nothing_at_all() -> None:
    nowhere = CommandLine(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert nowhere("--version").out.startswith("bitnexus 0.")
    assert "projections" in nowhere("--help").out


# Bad files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1"),
        (HEADER.replace("UnitPrice", "Price").encode(), "lacks UnitPrice"),
        (f"{HEADER}1,A,Mug,two,2011-01-03 08:00:00,1.25,,UK\n".encode(), "line 2: Quantity"),
        (f"{HEADER}{SALES}5,A,Mug,1,2011-02-30 08:00:00,1.25,,UK\n".encode(), "line 8: InvoiceDate"),
        (f"{HEADER}1,A,Mug,1,2011-01-03 08:00:00,1.2.5,,UK\n".encode(), "line 2: UnitPrice"),
        (gzip.compress((HEADER + SALES * 5_000).encode())[:-2_000], "the gzip data are broken"),
    ],
)
@pytest.mark.usefixtures("no_database")
def test_a_bad_file_is_told_with_its_line_before_anything_is_recorded(
    content: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("bad.csv.gz" if content.startswith(b"\x1f\x8b") else "bad.csv")
    path.write_bytes(content)
    assert cli.main(["import", "retail", str(path), "--tenant", "shop"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "line " in said
    assert "Traceback" not in said


# The way through


def test_what_a_program_reads(bitnexus: CommandLine, file: Path, tmp_path: Path) -> None:
    """Every command prints one JSON document, and nothing else on standard output."""
    assert bitnexus.good("migrate") == {"applied": []}
    tenant = commandline.create_shop(bitnexus)
    assert (tenant["slug"], tenant["currency"]) == ("shop", "GBP")
    rejects = tmp_path / "rejects.csv"
    imported = bitnexus.good("import", "retail", file, "--tenant", "shop", "--rejects", rejects)
    assert imported["rows"] == 6
    assert imported["rejected"] == {"price_not_positive": 1}
    assert imported["added"] == {"products": 2, "transactions": 2, "refunds": 2}
    assert (imported["refunds_matched"], imported["refunds_unmatched"]) == (1, 1)
    assert (imported["gross"], imported["refunded"], imported["net"]) == ("6.75", "4.25", "2.50")
    assert imported["events"] == 6
    assert len(rejects.read_text().splitlines()) == 2
    verified = bitnexus.good("audit", "verify", "--tenant", "shop")
    assert [(each["tenant"], each["events"], each["verdict"]) for each in verified["tenants"]] == [("shop", 8, "good")]
    behind = {each["view"]: each["lag_events"] for each in bitnexus.good("projections", "list")["views"]}
    assert behind == dict.fromkeys([view.name for view in catalogue.VIEWS], 10)  # the platform has 2
    assert bitnexus.good("projections", "rebuild", "sales", "--tenant", "shop")["events"] == 8
    behind = {each["view"]: each["lag_events"] for each in bitnexus.good("projections", "list")["views"]}
    assert behind["sales"] == 0  # nobody else kept it up, so the rebuild did, of everybody
    replayed = bitnexus.good("audit", "replay", "--tenant", "shop")
    assert (replayed["position"], replayed["events"]) == (8, 8)
    assert replayed["hash"] == verified["tenants"][0]["hash"]
    assert replayed["aggregates"] == {"account": 1, "product": 2, "refund": 1, "tenant": 1, "transaction": 2}


def test_what_a_person_reads(bitnexus: CommandLine, file: Path) -> None:
    """Tables, without colours or bars where no terminal is."""
    commandline.create_shop(bitnexus)
    run = bitnexus("import", "retail", file, "--tenant", "shop")
    assert run.code == 0
    assert run.err == ""
    for words in ("rejected: price_not_positive", "unmatched", "net GBP", "2.50", "events/s"):
        assert words in run.out
    assert "\x1b" not in run.out


def test_a_slug_that_is_taken_ends_with_2(bitnexus: CommandLine) -> None:
    commandline.create_shop(bitnexus)
    again = bitnexus(
        *("tenants", "create", "shop", "--name", "S", "--admin-email", "a@b.example", "--admin-password", "-"),
        stdin="read from here\n",
    )
    assert (again.code, again.out) == (2, "")
    assert "There is a tenant with this slug: 'shop'. Choose another one." in again.err


@pytest.mark.parametrize(
    "command", ["import retail {file}", "audit verify", "audit replay", "projections rebuild sales"]
)
def test_an_unknown_tenant_ends_with_2(bitnexus: CommandLine, file: Path, command: str) -> None:
    run = bitnexus(*command.format(file=file).split(), "--tenant", "nobody", "--json")
    assert run.code == 2
    assert run.json == {"error": "There is no tenant with this slug: 'nobody'. Check its spelling."}


def test_another_master_key_is_refused(bitnexus: CommandLine) -> None:
    """With the wrong key a process would write what nobody else can read, and lock the others out."""
    assert bitnexus("projections", "list").code == 0
    stranger = CommandLine(**bitnexus.environment | {"BITNEXUS_MASTER_KEY": "A" * 43 + "="})
    run = stranger("projections", "list")
    assert run.code == 2
    assert "The database was begun with another master key" in run.err
    assert bitnexus("projections", "list").code == 0


# Audit


def test_a_changed_byte_is_found_at_its_position_and_ends_with_1(
    bitnexus: CommandLine, database: Database, file: Path
) -> None:
    commandline.create_shop(bitnexus)
    tenant_id = commandline.create_shop(bitnexus, "other")["tenant_id"]
    bitnexus.good("import", "retail", file, "--tenant", "other")
    with psycopg.connect(database.owner_url) as connection:
        connection.execute(
            "UPDATE ledger.events SET state = set_byte(state, 40, get_byte(state, 40) # 1)"
            " WHERE tenant_id = %s AND position = 5",
            [tenant_id],
        )
    run = bitnexus("audit", "verify", "--json")
    assert run.code == 1
    verdicts = {
        each["tenant"]: (each["verdict"], each["events"], each["broken_position"]) for each in run.json["tenants"]
    }
    assert verdicts == {"platform": ("good", 3, None), "shop": ("good", 2, None), "other": ("broken", 4, 5)}
    shown = bitnexus("audit", "verify", "--tenant", "other")
    assert shown.code == 1
    assert "other is broken at position 5: the stored hash is" in shown.out


def test_a_broken_stream_of_the_platform_is_found_too(bitnexus: CommandLine, database: Database) -> None:
    """The audit must not stand on what it audits: slugs come from that stream."""
    commandline.create_shop(bitnexus)
    with psycopg.connect(database.owner_url) as connection:
        connection.execute(
            "UPDATE ledger.events SET state = '{' WHERE topic IN ('tenant.registered', 'tenant.created')"
        )
    run = bitnexus("audit", "verify", "--json")
    assert run.code == 1
    verdicts = [(each["tenant"], each["verdict"], each["broken_position"]) for each in run.json["tenants"]]
    assert verdicts == [("platform", "broken", 1), (None, "broken", 1)]
    assert bitnexus("serve", "--port", "0").code == 2


def test_an_aggregate_is_shown_as_it_was(bitnexus: CommandLine, file: Path) -> None:
    """Whoever disputes a refund is shown the sale before it and after it."""
    commandline.create_shop(bitnexus)
    bitnexus.good("import", "retail", file, "--tenant", "shop", "--concurrency", "1")
    sale = _sale(bitnexus, 5)
    before = bitnexus.good("audit", "replay", "--tenant", "shop", "--aggregate", sale, "--to", "6")
    after = bitnexus.good("audit", "replay", "--tenant", "shop", "--aggregate", sale)
    assert [event["topic"] for event in after["events"]] == ["transaction.recorded", "transaction.refunded"]
    assert (before["version"], before["state"]["status"]) == (1, "recorded")
    assert (after["version"], after["state"]["status"]) == (2, "partly_refunded")
    assert after["state"]["refunded_minor"] == 125
    assert after["state"]["buyer_ref"] == "17850"
    shown = bitnexus("audit", "replay", "--tenant", "shop", "--aggregate", sale)
    assert "partly_refunded" in shown.out
    beyond = bitnexus("audit", "replay", "--tenant", "shop", "--to", "9")
    assert beyond.code == 2
    assert "The stream does not reach the position: 9. Give one from 1 to 8" in beyond.err


def test_a_tenant_and_an_aggregate_are_shown_as_they_were_at_an_instant(bitnexus: CommandLine, file: Path) -> None:
    """An auditor has a date in a contract, not a position."""
    commandline.create_shop(bitnexus)
    bitnexus.good("import", "retail", file, "--tenant", "shop", "--concurrency", "1")
    sale = _sale(bitnexus, 5)
    replay = ("audit", "replay", "--tenant", "shop")
    for event in bitnexus.good(*replay, "--aggregate", sale)["events"]:
        at = event["recorded_at"]
        assert bitnexus.good(*replay, "--at", at) == bitnexus.good(*replay, "--to", event["position"])
        was = bitnexus.good(*replay, "--at", at, "--aggregate", sale)
        assert (was["position"], was["version"]) == (event["position"], event["version"])
    nothing = bitnexus.good(*replay, "--at", "2001-01-01T00:00:00+02:00")
    assert (nothing["position"], nothing["events"], nothing["aggregates"]) == (0, 0, {})
    too_early = bitnexus(*replay, "--at", "2001-01-01T00:00:00Z", "--aggregate", sale)
    assert (too_early.code, "up to position 0" in too_early.err) == (2, True)


def _sale(bitnexus: CommandLine, position: int) -> Any:
    """The id of the aggregate whose event has that position."""
    with psycopg.connect(bitnexus.environment["DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT originator_id FROM ledger.events WHERE position = %s AND topic = 'transaction.recorded'", [position]
        ).fetchone()
    assert row is not None
    return row[0]
