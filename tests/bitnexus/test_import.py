"""Importing sales: the same result however it is done, once, whatever happens meanwhile."""

import gzip
import itertools
import signal
import time
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from bitnexus.retail import plan as retail_plan
from bitnexus.retail import rows, run
from commands import products
from domain.products import Product
from ledger import errors, ids
from ledger.caller import Caller
from tests.bitnexus import commandline
from tests.bitnexus.commandline import SAMPLE, CommandLine
from tests.bitnexus.test_cli import HEADER, SALES
from tests.world import Database, World, caller

TOPICS = "SELECT topic, count(*) FROM ledger.events WHERE tenant_id = %s GROUP BY topic ORDER BY topic"
SALES_BY_DAY = (
    "SELECT day, currency, count, gross_minor, refunded_minor FROM views.sales_by_day"
    " WHERE tenant_id = %s ORDER BY day, currency"
)
POLL_S = 0.01
WAIT_S_MAX = 30.0


@pytest.fixture(scope="module")
def plan() -> retail_plan.Plan:
    """Of the shipped sample."""
    return retail_plan.plan(rows.read(SAMPLE))


def planned(text: str, folder: Path) -> retail_plan.Plan:
    path = folder / "sales.csv"
    path.write_text(HEADER + text)
    return retail_plan.plan(rows.read(path))


async def test_a_second_run_adds_nothing(world: World, tenant_id: UUID, plan: retail_plan.Plan) -> None:
    first = await run.carry_out(plan, tenant_id, world.ledger)
    position = (await world.ledger.head(tenant_id)).position
    second = await run.carry_out(plan, tenant_id, world.ledger)
    assert first.events == position == len(plan.products) + len(plan.sales) + len(plan.refunds)
    assert second.events == 0
    assert (second.products.found, second.transactions.found, second.refunds.found) == (
        len(plan.products),
        len(plan.sales),
        len(plan.refunds),
    )
    assert (await world.ledger.head(tenant_id)).position == position


async def test_a_longer_file_adds_what_is_new(world: World, tenant_id: UUID, tmp_path: Path) -> None:
    """What was imported before a file turned out bad is not doubled by the next run, nor a refund lost."""
    await run.carry_out(planned(SALES, tmp_path), tenant_id, world.ledger)
    longer = SALES + "5,C,Pen,1,2011-01-06 08:00:00,0.50,1,UK\nC6,A,Mug,-1,2011-01-07 08:00:00,1.25,17850,UK\n"
    carried = await run.carry_out(planned(longer, tmp_path), tenant_id, world.ledger)
    assert (carried.products.added, carried.transactions.added, carried.refunds.added) == (1, 1, 1)
    assert (carried.products.found, carried.transactions.found, carried.refunds.found) == (2, 2, 2)


async def test_another_source_has_invoice_numbers_of_its_own(world: World, tenant_id: UUID, tmp_path: Path) -> None:
    plan = planned(SALES, tmp_path)
    await run.carry_out(plan, tenant_id, world.ledger, source="shop-a")
    carried = await run.carry_out(plan, tenant_id, world.ledger, source="shop-b")
    assert (carried.products.added, carried.transactions.added, carried.refunds.added) == (0, 2, 2)


async def test_a_sale_that_a_rule_refuses_stops_no_other(world: World, tenant_id: UUID, tmp_path: Path) -> None:
    """A retired product cannot be sold: its sales and their refunds are told, the rest is recorded."""
    listed = products.ListProduct(sku="B", name="Lamp", price=Decimal(3), currency="GBP")
    lamp = await products.list_product(listed, caller(tenant_id), world.ledger)
    await products.retire(products.Retire(product_id=lamp.aggregate.id), caller(tenant_id), world.ledger)
    carried = await run.carry_out(planned(SALES, tmp_path), tenant_id, world.ledger)
    assert (carried.transactions.added, carried.transactions.refused) == (1, 1)
    assert (carried.refunds.added, carried.refunds.refused) == (1, 1)
    assert dict(carried.refused) == {"ProductNotSold": 1, "SaleRefused": 1}
    assert [refused.what for refused in carried.examples] == ["invoice 1", "refund C3"]


async def test_refunds_of_one_line_follow_each_other(world: World, tenant_id: UUID, tmp_path: Path) -> None:
    """Their amounts are differences of roundings: in another order each would be another amount."""
    sold = "1,A,Mug,4,2011-01-03 08:00:00,0.125,7,UK\n"
    back = "".join(f"C{n},A,Mug,-1,2011-01-04 08:00:0{n},0.125,7,UK\n" for n in range(1, 5))
    plan = planned(sold + back, tmp_path)
    await run.carry_out(plan, tenant_id, world.ledger, concurrency=64)
    entries = await world.ledger.entries(tenant_id, 2, 10)
    states = [world.ledger.codec.parse(e.topic, e.originator_id, e.originator_version, e.state).state for e in entries]
    assert [(s.external_id, s.amount_minor) for s in states] == [
        (refund.external_id, refund.amount_minor) for refund in plan.refunds
    ]


async def test_a_tenant_without_a_stream_is_refused(world: World, plan: retail_plan.Plan) -> None:
    with pytest.raises(errors.TenantUnknown):
        await run.carry_out(plan, ids.new_id(), world.ledger)


async def test_a_command_that_is_told_to_come_back_comes_back_under_its_id(
    world: World, tenant_id: UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another id an outcome that was unknown would be doubled."""
    sent: list[tuple[str, UUID]] = []
    real = products.list_product

    async def unlucky(command: products.ListProduct, by: Caller, ledger: object) -> object:
        sent.append((command.sku, by.command_id))
        if len(sent) <= 2:
            raise errors.OutcomeUnknown(by.command_id)
        return await real(command, by, world.ledger)

    monkeypatch.setattr(products, "list_product", unlucky)
    monkeypatch.setattr(run, "RETRY_S_MIN", 0.0)
    carried = await run.carry_out(planned(SALES, tmp_path), tenant_id, world.ledger, concurrency=1)
    assert carried.products.added == 2
    assert [sku for sku, _ in sent] == ["A", "A", "A", "B"]
    assert len({command_id for sku, command_id in sent if sku == "A"}) == 1


async def test_a_database_that_stays_away_ends_the_import_with_that(
    world: World, tenant_id: UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not with a heap of tracebacks, one for each command that was under way."""

    async def lost(command: products.ListProduct, by: Caller, ledger: object) -> object:
        raise errors.OutcomeUnknown(by.command_id)

    monkeypatch.setattr(products, "list_product", lost)
    monkeypatch.setattr(run, "RETRY_S_MIN", 0.0)
    with pytest.raises(errors.OutcomeUnknown):
        await run.carry_out(planned(SALES, tmp_path), tenant_id, world.ledger)


async def test_what_is_at_hand_is_the_ledgers(world: World, tenant_id: UUID, tmp_path: Path) -> None:
    """A product that was there before keeps its name and price; its sales are at the file's prices."""
    listed = products.ListProduct(sku="A", name="Cup", price=Decimal(9), currency="GBP")
    await products.list_product(listed, caller(tenant_id), world.ledger)
    carried = await run.carry_out(planned(SALES, tmp_path), tenant_id, world.ledger)
    assert (carried.products.found, carried.products.added, carried.transactions.added) == (1, 1, 2)
    cup = (await world.ledger.load_by(Product, tenant_id, products.SKU, ["A"]))["A"]
    assert (cup.name, str(cup.price)) == ("Cup", "9.00")


# From the shell


@pytest.fixture
def bitnexus(database: Database) -> CommandLine:
    return commandline.on(database)


def test_one_at_a_time_or_64_at_once_comes_to_the_same(
    bitnexus: CommandLine, database: Database, tmp_path: Path
) -> None:
    part = tmp_path / "part.csv"  # one at a time, each sale waits for the disk
    with gzip.open(SAMPLE, "rt") as file:
        part.write_text("".join(itertools.islice(file, 1_200)))
    ids_ = [commandline.create_shop(bitnexus, slug)["tenant_id"] for slug in ("one", "many")]
    reports = [
        bitnexus.good("import", "retail", part, "--tenant", slug, "--concurrency", concurrency)
        for slug, concurrency in (("one", 1), ("many", 64))
    ]
    for report in reports:
        for measured in ("tenant", "seconds", "events_per_s"):
            del report[measured]
    assert reports[0] == reports[1]
    bitnexus.good("projections", "rebuild", "sales")
    with psycopg.connect(database.owner_url) as connection:
        for query in (TOPICS, SALES_BY_DAY):
            one, many = (connection.execute(query, [tenant_id]).fetchall() for tenant_id in ids_)
            assert one
            assert one == many


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_import_that_was_ended_goes_on_where_it_was(
    bitnexus: CommandLine, database: Database, number: signal.Signals, plan: retail_plan.Plan
) -> None:
    tenant_id = commandline.create_shop(bitnexus)["tenant_id"]
    process = bitnexus.start("import", "retail", SAMPLE, "--tenant", "shop", "--concurrency", "2")
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        _wait_for_sales(connection, tenant_id)
        process.send_signal(number)
        _, said = process.communicate(timeout=WAIT_S_MAX)
        if number is signal.SIGTERM:
            assert process.returncode == 130
            assert "Interrupted. What was recorded stays" in said
        there = _topics(connection, tenant_id)["transaction.recorded"]
        assert 0 < there < len(plan.sales)
        report = bitnexus.good("import", "retail", SAMPLE, "--tenant", "shop")
        assert report["found"]["transactions"] == there
        assert report["added"]["transactions"] == len(plan.sales) - there
        topics = _topics(connection, tenant_id)
    assert topics["product.listed"] == len(plan.products)
    assert topics["transaction.recorded"] == len(plan.sales)
    assert topics["transaction.refunded"] + topics["refund.recorded"] == len(plan.refunds)
    assert bitnexus.good("audit", "verify")["verdict"] == "good"


def _wait_for_sales(connection: psycopg.Connection, tenant_id: str) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while "transaction.recorded" not in _topics(connection, tenant_id):
        assert time.monotonic() < deadline, "the import records nothing"
        time.sleep(POLL_S)


def _topics(connection: psycopg.Connection, tenant_id: str) -> dict[str, int]:
    rows: list[tuple[str, int]] = connection.execute(TOPICS, [tenant_id]).fetchall()
    return dict(rows)
