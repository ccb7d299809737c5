"""Rows by id: each asker gets the row as it is, and what was kept of it is confirmed only while it is the same."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from bitnexus import database as connections
from commands import privacy
from ledger import ids
from projections import catalogue, products, refunds, rows, stream, switching, transactions
from tests.projections.conftest import Connection, project, rebuilt
from tests.projections.story import Story, tell
from tests.world import World, caller

WAITING = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'views.transactions'::regclass"


@pytest_asyncio.fixture
async def shown(projector: Connection, source: stream.Source, story: Story) -> Story:
    """The story, in the views."""
    for view in catalogue.VIEWS:
        await project(projector, source, view, story, limit=100)
    return story


@pytest_asyncio.fixture
async def found(world: World) -> AsyncIterator[rows.Rows]:
    made = rows.Rows(connections.connector(world.database.app_url, "app"))
    await made.start()
    yield made
    await made.close()


async def test_a_row_comes_with_its_aggregates_version(found: rows.Rows, shown: Story) -> None:
    """The ETag of a resource: with another one If-Match would refuse a change that is decided on what is shown."""
    for product in shown.listed:
        row = (await found.find("products", shown.tenant_id, product.id)).row
        assert row is not None
        assert row.version == product.version
        assert products.row(*row.columns).name == product.name
    for sale in shown.sales:
        row = (await found.find("transactions", shown.tenant_id, sale.id)).row
        assert row is not None
        assert row.version == sale.version
        for number, refund in enumerate(sale.refunds.values(), start=2):
            made = (await found.find("refunds", shown.tenant_id, refund.id)).row
            assert made is not None
            assert made.version == number
            assert refunds.row(*made.columns).transaction_id == sale.id
    assert max(sale.version for sale in shown.sales) > 1


async def test_rows_of_a_release_without_versions_have_them_all_the_same(
    found: rows.Rows, shown: Story, projector: Connection
) -> None:
    """What an older process wrote into the column's row meanwhile is not believed either."""
    await projector.execute("UPDATE views.positions SET version = 1")
    await projector.execute("UPDATE views.transactions SET version = 99")
    await projector.execute("UPDATE views.products SET version = NULL")
    for view, aggregates in (("transactions", shown.sales), ("products", shown.listed)):
        for each in aggregates[:20]:
            row = (await found.find(view, shown.tenant_id, each.id)).row
            assert row is not None
            assert row.version == each.version


async def test_many_who_ask_at_once_get_each_their_own(
    found: rows.Rows, shown: Story, world: World, projector: Connection, source: stream.Source
) -> None:
    """Of two tenants, of what there is and what there is not, in one call."""
    other = await tell(world, Story(ids.new_id()), 40, seed=7)
    await project(projector, source, transactions.VIEW, other, limit=100)
    stranger, unknown = ids.new_id(), ids.new_id()
    asked: list[tuple[UUID, UUID, UUID | None]] = []
    for mine, theirs in zip(shown.sales, other.sales, strict=False):
        asked += [(shown.tenant_id, mine.id, mine.id), (other.tenant_id, theirs.id, theirs.id)]
        asked += [(shown.tenant_id, theirs.id, None), (other.tenant_id, mine.id, None), (stranger, mine.id, None)]
    asked.append((shown.tenant_id, unknown, None))
    answers = await asyncio.gather(*(found.find("transactions", tenant, id) for tenant, id, _ in asked))
    assert [None if answer.row is None else answer.row.columns[0] for answer in answers] == [id for _, _, id in asked]
    positions = {shown.tenant_id: shown.position, other.tenant_id: other.position, stranger: 0}
    assert [answer.position for answer in answers] == [positions[tenant] for tenant, _, _ in asked]


async def test_a_row_is_the_same_until_anything_of_it_changes(
    found: rows.Rows, shown: Story, world: World, projector: Connection, source: stream.Source
) -> None:
    """By an event, by an erasure, which leaves its position as it is, and by another generation."""
    sale = next(sale for sale in shown.sales if sale.buyer_ref is not None)

    async def row(known: rows.Stamp) -> rows.Row:
        answer = (await found.find("transactions", shown.tenant_id, sale.id, known)).row
        assert answer is not None
        assert (answer.columns[1] is None) == answer.same  # the long columns
        return answer

    first = await row(rows.NO_STAMP)
    assert not first.same
    await tell(world, shown, 5, seed=9)  # others' events
    assert (await row(first.stamp)).same

    command = privacy.Erase(buyer_ref=sale.buyer_ref)
    shown.position = (
        await privacy.erase(command, caller(shown.tenant_id), world.ledger, privacy.noted_nowhere)
    ).position
    await project(projector, source, transactions.VIEW, shown, limit=100)
    erased = await row(first.stamp)
    assert not erased.same
    assert erased.columns[transactions.BUYER_REF] == "[erased]"
    assert erased.columns[-1] == first.columns[-1]
    assert (await row(erased.stamp)).same

    await rebuilt(world, source, transactions.VIEW, shown.tenant_id)
    switched = await row(erased.stamp)
    assert (switched.same, switched.stamp.generation) == (False, 2)
    await switching.switch(projector, transactions.VIEW, shown.tenant_id, back=True)
    back = await row(switched.stamp)
    assert (back.same, back.stamp.generation) == (False, 1)


async def test_what_was_known_before_the_connection_was_lost_is_read_anew(
    found: rows.Rows, shown: Story, world: World
) -> None:
    """A crash takes projectors' last commits and gives the ids of their transactions again: an old price could be shown for ever,
    as that of the row which was written under the same id."""
    sale = shown.sales[0]
    first = (await found.find("transactions", shown.tenant_id, sale.id)).row
    assert first is not None
    assert await same(found, shown.tenant_id, sale.id, first.stamp)
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        cut(owner)
        assert not await same(found, shown.tenant_id, sale.id, first.stamp)
        (page_row, *_) = (await found.newest(shown.tenant_id, None, 1)).rows
        assert page_row[:3] != first.stamp
        # and one that is under way: the lane sends it again as it was
        again = (await found.find("transactions", shown.tenant_id, sale.id)).row
        assert again is not None
        with owner.transaction():
            owner.execute("LOCK TABLE views.transactions")
            asking = asyncio.create_task(same(found, shown.tenant_id, sale.id, again.stamp))
            while not owner.execute(WAITING).fetchall():  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
            cut(owner)
        assert not await asking


async def same(found: rows.Rows, tenant_id: UUID, id: UUID, known: rows.Stamp) -> bool:
    row = (await found.find("transactions", tenant_id, id, known)).row
    assert row is not None
    assert (row.columns[1] is None) == row.same  # the long columns
    return row.same


def cut(owner: "psycopg.Connection[tuple[object, ...]]") -> None:
    owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def test_who_asks_is_answered_after_the_database_ended_the_connection(
    found: rows.Rows, shown: Story, world: World
) -> None:
    """A restart of the database must not need one of the process."""
    sale = shown.sales[0]
    assert (await found.find("transactions", shown.tenant_id, sale.id)).row is not None
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        cut(owner)
    assert (await found.find("transactions", shown.tenant_id, sale.id)).row is not None


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_a_page_is_the_same_by_either_way(found: rows.Rows, shown: Story, app: Connection, limit: int) -> None:
    person = next(sale.buyer_id for sale in shown.sales if sale.buyer_id is not None)
    for visible_to in (None, person):
        before = None
        while True:
            page = await found.newest(shown.tenant_id, before, limit, visible_to=visible_to)
            other = await transactions.page(app, shown.tenant_id, before, limit, visible_to=visible_to)
            assert [transactions.row(*row.columns) for row in page.rows] == other.rows
            assert (page.next, page.position, page.parked) == (other.next, other.position, other.parked)
            before = page.next
            if before is None:
                break
