"""How many rows a batch reads: as many as it changes, however many its tenant has."""

from collections.abc import Sequence

import psycopg
import pytest

from projections import accounts, batches, generations, products, refunds, sales, stream, transactions
from projections.view import View
from tests.projections.conftest import Connection
from tests.projections.story import Story
from tests.world import World

ROWS = 20_000
"""Of the tenant, beside those that are changed: to read all of them for each batch would be its end."""
READ_MAX = 4
"""Rows for each event: the row as it was, and its older versions, which a repeat leaves behind."""
GENERATION = 2
REPEATS = 7
"""From the sixth time on the server may take a plan that was made for all values."""

READ = """
SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE schemaname = 'views' AND relname = %s
"""
OTHER_ROWS = {
    "products": "jsonb_build_object('product_id', gen_random_uuid())",
    "transactions": "jsonb_build_object('transaction_id', gen_random_uuid())",
    "refunds": "jsonb_build_object('refund_id', gen_random_uuid())",
    "sales_by_day": "jsonb_build_object('day', date '1900-01-01' + n / 2, 'currency', (ARRAY['USD', 'CHF'])[n % 2 + 1])",
    "accounts": "jsonb_build_object('account_id', gen_random_uuid())",
}


def fill(owner: "psycopg.Connection[tuple[object, ...]]", table: str) -> None:
    """Makes ROWS of one that is there."""
    owner.execute(
        f"INSERT INTO views.{table} SELECT (jsonb_populate_record(s.t, {OTHER_ROWS[table]})).*"
        f" FROM (SELECT t FROM views.{table} t LIMIT 1) s, generate_series(1, {ROWS}) n".encode()
    )


async def read_by(connection: Connection, view: View, story: Story, events: Sequence[stream.Event]) -> int:
    """Rows of the view's table that the batch reads."""
    table = view.tables[0].name

    async def so_far() -> int:
        cursor = await connection.execute(READ, (table,))
        ((found,),) = await cursor.fetchall()
        return int(found)

    async with connection.transaction():
        before = await so_far()
        await batches.project(connection, view, story.tenant_id, GENERATION, events)
        return await so_far() - before


@pytest.mark.parametrize("statistics", ["none", "of an empty table", "of the first generation", "right"])
@pytest.mark.parametrize(
    "view", [products.VIEW, transactions.VIEW, refunds.VIEW, sales.VIEW, accounts.VIEW], ids=lambda view: view.name
)
async def test_a_batch_reads_the_rows_that_it_changes_and_no_others(
    view: View, statistics: str, world: World, story: Story, projector: Connection, source: stream.Source
) -> None:
    """What it costs must not grow with the tenant, nor while the server knows nothing yet of a new generation."""
    table = view.tables[0].name
    stretch = await stream.read_stretch(projector, source, sorted(view.wanted), story.tenant_id, 0, story.position)
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE views.{table} SET (autovacuum_enabled = off)".encode())
        if statistics == "of an empty table":
            owner.execute(f"ANALYZE views.{table}".encode())
        await generations.begin(projector, view.name, view.version, story.tenant_id)
        await batches.project(projector, view, story.tenant_id, GENERATION, stretch.events)
        if statistics == "of the first generation":
            owner.execute(f"UPDATE views.{table} SET generation = 1".encode())
            fill(owner, table)
            owner.execute(f"ANALYZE views.{table}".encode())
            owner.execute(f"UPDATE views.{table} SET generation = {GENERATION}".encode())
        else:
            fill(owner, table)
        if statistics == "right":
            owner.execute(f"ANALYZE views.{table}".encode())
    read = [await read_by(projector, view, story, stretch.events) for _ in range(REPEATS)]
    assert max(read) <= READ_MAX * len(stretch.events), read
