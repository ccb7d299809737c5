"""What the API says was sold is what an independent computation over the file says."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.bitnexus import commandline, independent_summary
from tests.bitnexus.commandline import SAMPLE, CommandLine
from tests.bitnexus.independent_summary import Day, Summary
from tests.bitnexus.test_serve import WAIT_S_MAX, log_in, serving
from tests.world import Database

TRIES_MAX = 15


@pytest.fixture(scope="module")
def expected() -> Summary:
    return independent_summary.summarise(SAMPLE)


@pytest.fixture
def bitnexus(shop_database: Database) -> CommandLine:
    return commandline.on(shop_database)


def test_the_imported_sample_adds_up_to_what_the_file_says(bitnexus: CommandLine, expected: Summary) -> None:
    """Every day's count and money, by the whole way: file, commands, ledger, projector of another process, HTTP."""
    with serving(bitnexus) as served:
        report = bitnexus.good("import", "retail", SAMPLE, "--tenant", "shop")
        with httpx.Client(
            base_url=served.url, headers=log_in(served.url), trust_env=False, timeout=WAIT_S_MAX
        ) as client:
            head = client.get("/api/v1/ledger/head").json()["data"]["position"]
            answers = (
                client.get("/api/v1/transactions/summary", headers={"X-Position": str(head)}) for _ in range(TRIES_MAX)
            )
            answer = next(answer for answer in answers if answer.status_code != 503)  # waits 2 s for the view itself
    assert answer.status_code == 200, answer.text
    summary = answer.json()
    assert {(row["day"], row["currency"]): _day(row) for row in summary["data"]} == expected.days
    assert [_day(row) for row in summary["meta"]["totals"]] == [expected.total]
    assert (report["rows"], report["accepted"], report["rejected"]) == (
        expected.rows,
        expected.accepted,
        dict(expected.rejected),
    )
    assert (report["products"], report["transactions"]) == (expected.products, expected.transactions)
    assert (report["refunds_matched"], report["refunds_unmatched"]) == (
        expected.refunds_matched,
        expected.refunds_unmatched,
    )
    assert [report["gross"], report["refunded"], report["net"]] == [
        f"{Decimal(minor) / 100:.2f}" for minor in (expected.total.gross, expected.total.refunded, expected.total.net)
    ]


def _day(row: dict[str, Any]) -> Day:
    day = Day(row["count"], _pennies(row["gross"]), _pennies(row["refunded"]))
    assert _pennies(row["net"]) == day.net
    return day


def _pennies(text: str) -> int:
    return int(Decimal(text) * 100)
