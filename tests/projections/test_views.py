"""What the views show is what the aggregates say, and nobody else sees or writes it."""

import importlib
import pkgutil
from datetime import date

import psycopg
import pytest

import projections
from domain import products, transactions
from ledger import ids
from projections import catalogue, cross_tenant, generations, refunds, sales, stream
from projections import products as products_view
from projections import transactions as transactions_view
from projections.products import ProductRow
from projections.transactions import LineRow
from tests.projections.conftest import TABLES, Connection, project, shown_of
from tests.projections.story import Story, tell
from tests.world import World


async def test_a_product_is_shown_as_its_aggregate_says(
    projector: Connection, app: Connection, source: stream.Source, world: World, story: Story
) -> None:
    view = products_view
    await project(projector, source, view.VIEW, story, limit=25)
    for product in story.listed:
        row = await shown_of(view, app, story.tenant_id, product.id)
        stored = await world.ledger.load(products.Product, story.tenant_id, product.id)
        assert row == ProductRow(
            product.id,
            product.sku,
            product.name,
            None,
            product.price,
            "GBP",
            product.category,
            {"b": 1, "a": [1.5, None]},
            str(product.status),
            stored.created_on,
            stored.modified_on,
            row.position,
        )
        assert (str(row.price), list(row.metadata)) == (str(product.price), ["b", "a"])
    assert (await view.page(app, story.tenant_id, None, 1)).position == story.position


async def test_a_sale_is_shown_as_its_aggregate_says(
    projector: Connection, app: Connection, source: stream.Source, world: World, story: Story
) -> None:
    view = transactions_view
    await project(projector, source, view.VIEW, story, limit=25)
    for sale in story.sales:
        row = await shown_of(view, app, story.tenant_id, sale.id)
        stored = await world.ledger.load(transactions.Transaction, story.tenant_id, sale.id)
        assert row.lines == [
            LineRow(
                line.id,
                str(line.product_id),
                line.sku,
                line.quantity,
                str(line.unit_price),
                line.amount_minor,
                sale.refunded_quantities.get(line.id, 0),
            )
            for line in sale.lines
        ]
        assert (row.amount_minor, row.refunded_minor, row.status) == (
            sale.amount_minor,
            sale.refunded_minor,
            str(sale.status),
        )
        assert (row.buyer_id, row.affiliate_id, row.buyer_ref) == (sale.buyer_id, sale.affiliate_id, sale.buyer_ref)
        assert (row.occurred_at, row.inserted_at, row.updated_at) == (
            sale.occurred_at,
            stored.created_on,
            stored.modified_on,
        )
    assert {sale.status for sale in story.sales} == set(transactions.Status)  # the story has all of them


async def test_refunds_of_known_and_unknown_sales_are_shown(
    projector: Connection, app: Connection, source: stream.Source, story: Story
) -> None:
    view = refunds
    await project(projector, source, view.VIEW, story, limit=25)
    for sale in story.sales:
        for made in sale.refunds.values():
            row = await shown_of(view, app, story.tenant_id, made.id)
            assert (row.transaction_id, row.amount_minor, row.reason) == (sale.id, made.amount_minor, "broken")
            assert (row.buyer_id, row.affiliate_id) == (sale.buyer_id, sale.affiliate_id)
            assert [line.quantity for line in row.lines] == [line.quantity for line in made.lines]
    for refund in story.unmatched:
        row = await shown_of(view, app, story.tenant_id, refund.id)
        assert (row.transaction_id, row.amount_minor, row.buyer_ref) == (None, 250, "17850")


async def test_the_summary_is_what_the_sales_add_up_to(
    projector: Connection, app: Connection, source: stream.Source, story: Story
) -> None:
    view = sales
    await project(projector, source, view.VIEW, story, limit=7)
    summary = await view.summary(app, story.tenant_id, None, None)
    expected = story.sums()
    assert [(r.day, r.currency, r.count, r.gross_minor, r.refunded_minor) for r in summary.rows] == [
        (*key, *expected[key]) for key in sorted(expected)
    ]
    for total in summary.totals:
        of_currency = [sums for (_, currency), sums in expected.items() if currency == total.currency]
        assert [total.count, total.gross_minor, total.refunded_minor] == [
            sum(c) for c in zip(*of_currency, strict=True)
        ]
        assert total.net_minor == total.gross_minor - total.refunded_minor
    assert summary.position == story.position


async def test_a_summary_of_some_days_has_both_ends(
    projector: Connection, app: Connection, source: stream.Source, story: Story
) -> None:
    await project(projector, source, sales.VIEW, story, limit=100)
    days = sorted({day for day, _ in story.sums()})
    summary = await sales.summary(app, story.tenant_id, days[1], days[3])
    assert sorted({row.day for row in summary.rows}) == days[1:4]
    nothing = await sales.summary(app, story.tenant_id, date(1999, 1, 1), date(1999, 1, 2))
    assert (nothing.rows, nothing.totals) == ([], [])


async def test_a_summary_that_would_be_cut_is_refused(
    projector: Connection,
    app: Connection,
    source: stream.Source,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Totals of a part would pass for totals of the whole."""
    await project(projector, source, sales.VIEW, story, limit=100)
    monkeypatch.setattr(sales, "ROWS_MAX", 3)
    with pytest.raises(sales.SummaryTooLong):
        await sales.summary(app, story.tenant_id, None, None)


async def test_a_connection_of_one_tenant_sees_no_row_of_another(
    projector: Connection, app: Connection, source: stream.Source, world: World, story: Story
) -> None:
    """Even a query that forgets its tenant must not leak."""
    other = await tell(world, Story(ids.new_id()), 40, seed=2)
    for each in (story, other):
        for view in catalogue.VIEWS:
            await project(projector, source, view, each, limit=100)
            await generations.begin(projector, view.name, view.version, each.tenant_id)
    for table in (*TABLES, "positions"):
        query = f"SELECT DISTINCT tenant_id FROM views.{table}".encode()
        async with app.transaction():
            await app.execute("SELECT ledger.set_tenant(%s)", (story.tenant_id,))
            assert await (await app.execute(query)).fetchall() == [(story.tenant_id,)]
        assert await (await app.execute(query)).fetchall() == []


@pytest.mark.parametrize("table", [*TABLES, "positions"])
async def test_who_answers_requests_cannot_write_a_view(app: Connection, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await app.execute(f"DELETE FROM views.{table}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await app.execute(f"INSERT INTO views.{table} DEFAULT VALUES".encode())


async def test_every_index_of_a_view_begins_with_the_tenant(projector: Connection) -> None:
    """Or the tables could not be spread over machines by tenant."""
    cursor = await projector.execute(
        "SELECT i.indexrelid::regclass::text, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        " WHERE c.relnamespace = 'views'::regnamespace AND c.relname NOT IN ('leases', 'processes')"  # of the installation
    )
    found = await cursor.fetchall()
    assert found
    assert {column for _, column in found} == {"tenant_id"}


def test_every_statement_but_the_listed_ones_names_the_tenant() -> None:
    found = 0
    for module in pkgutil.iter_modules(projections.__path__):
        for name, value in vars(importlib.import_module(f"projections.{module.name}")).items():
            if not isinstance(value, str) or not name.isupper() or " views." not in value:
                continue
            found += 1
            bound = ("tenant_id = %(tenant)s", "t.tenant_id = %b", "p.tenant_id = %b", "(%(tenant)s,")
            inserts = value.lstrip().startswith("INSERT INTO") and "(tenant_id," in value
            assert inserts or any(each in value for each in bound) or value in cross_tenant.STATEMENTS, name
    assert found > 15
