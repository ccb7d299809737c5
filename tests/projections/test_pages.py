"""Lists: every row once, in order, however they are cut into pages, and only what the caller may see."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from domain.products import Status
from ledger import ids
from projections import accounts, catalogue, products, reading, refunds, stream, transactions
from tests.projections.conftest import Connection, project
from tests.projections.story import PEOPLE, Story, tell
from tests.world import World

ROWS = 20_000
"""Some 500 blocks, and 150 more of each index."""
BLOCKS_MAX = 60
"""Of 20 rows that may lie in a block each, and of the way to them."""

Ask = Callable[[UUID | None, int], Awaitable[reading.Page[Any]]]


@pytest_asyncio.fixture
async def shown(projector: Connection, source: stream.Source, story: Story) -> Story:
    """The story, in the views."""
    for view in catalogue.VIEWS:
        await project(projector, source, view, story, limit=100)
    return story


async def all_of(ask: Ask, limit: int) -> list[UUID]:
    """The ids of all pages."""
    found: list[UUID] = []
    cursor: UUID | None = None
    while True:
        page = await ask(cursor, limit)
        assert len(page.rows) <= limit
        found += [row.id for row in page.rows]
        cursor = page.next
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 4, 100])
async def test_products_are_listed_once_each_the_oldest_first(app: Connection, shown: Story, limit: int) -> None:
    found = await all_of(lambda after, n: products.page(app, shown.tenant_id, after, n), limit)
    assert found == sorted(product.id for product in shown.listed)


async def test_products_are_filtered_by_status_and_category(app: Connection, shown: Story) -> None:
    retired = await all_of(lambda after, n: products.page(app, shown.tenant_id, after, n, status="retired"), 2)
    assert retired == sorted(product.id for product in shown.listed if product.status == Status.RETIRED)
    kitchen = await all_of(lambda after, n: products.page(app, shown.tenant_id, after, n, category="kitchen"), 2)
    assert kitchen == sorted(product.id for product in shown.listed if product.category == "kitchen")
    assert retired
    assert kitchen


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_sales_are_listed_once_each_the_newest_first(app: Connection, shown: Story, limit: int) -> None:
    found = await all_of(lambda before, n: transactions.page(app, shown.tenant_id, before, n), limit)
    assert found == sorted((sale.id for sale in shown.sales), reverse=True)


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_a_person_sees_what_they_bought_or_brought_and_nothing_else(
    app: Connection, shown: Story, limit: int
) -> None:
    for person in PEOPLE:
        own = [sale for sale in shown.sales if person in (sale.buyer_id, sale.affiliate_id)]
        found = await all_of(lambda b, n: transactions.page(app, shown.tenant_id, b, n, visible_to=person), limit)  # noqa: B023  awaited here
        assert found == sorted((sale.id for sale in own), reverse=True)
        given_back = await all_of(lambda b, n: refunds.page(app, shown.tenant_id, b, n, visible_to=person), limit)  # noqa: B023  awaited here
        assert given_back == sorted((refund for sale in own for refund in sale.refunds), reverse=True)
    assert any(sale.buyer_id == sale.affiliate_id is not None for sale in shown.sales)  # who is both sees it once


@pytest.mark.parametrize("limit", [1, 100])
async def test_refunds_are_listed_once_each_the_newest_first(app: Connection, shown: Story, limit: int) -> None:
    made = [refund for sale in shown.sales for refund in sale.refunds] + [refund.id for refund in shown.unmatched]
    found = await all_of(lambda before, n: refunds.page(app, shown.tenant_id, before, n), limit)
    assert found == sorted(made, reverse=True)


async def test_the_refunds_of_one_sale_are_listed(app: Connection, shown: Story) -> None:
    sale = max(shown.sales, key=lambda sale: len(sale.refunds))
    found = await all_of(lambda before, n: refunds.page_of_transaction(app, shown.tenant_id, sale.id, before, n), 1)
    assert found == sorted(sale.refunds, reverse=True)
    assert len(found) > 1


async def test_a_page_stays_what_it_was_when_newer_rows_come(
    app: Connection, projector: Connection, source: stream.Source, world: World, shown: Story
) -> None:
    """Or who leafs through a busy list would see rows twice."""
    first = await transactions.page(app, shown.tenant_id, None, 5)
    second = await transactions.page(app, shown.tenant_id, first.next, 5)
    await tell(world, shown, 20, seed=3)
    await project(projector, source, transactions.VIEW, shown, limit=100)
    again = await transactions.page(app, shown.tenant_id, first.next, 5)
    assert [row.id for row in again.rows] == [row.id for row in second.rows]
    assert again.position > second.position


async def test_what_another_tenant_has_is_not_found(app: Connection, shown: Story) -> None:
    stranger = ids.new_id()
    assert (await transactions.page(app, stranger, None, 5)) == reading.Page([], None, 0)


@pytest.mark.parametrize("limit", [0, 101])
async def test_a_page_of_no_or_too_many_rows_is_refused(app: Connection, tenant_id: UUID, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        await products.page(app, tenant_id, None, limit)


async def test_sales_are_filtered_by_status_buyer_and_affiliate(app: Connection, shown: Story) -> None:
    """For who sees all, and for who sees the own ones."""
    buyers = {sale.buyer_id for sale in shown.sales if sale.buyer_id is not None}
    affiliates = {sale.affiliate_id for sale in shown.sales if sale.affiliate_id is not None}
    filters: list[dict[str, Any]] = [{"status": status} for status in ("recorded", "partly_refunded", "refunded")]
    filters += [{"buyer_id": buyer} for buyer in buyers] + [{"affiliate_id": affiliate} for affiliate in affiliates]
    filters += [{"status": "recorded", "buyer_id": buyer, "affiliate_id": min(affiliates)} for buyer in buyers]
    some = 0
    for visible_to in (None, *PEOPLE):
        for each in filters:

            async def ask(before: UUID | None, limit: int, each: Any = each, to: Any = visible_to) -> Any:
                return await transactions.page(app, shown.tenant_id, before, limit, visible_to=to, **each)

            expected = [
                sale.id
                for sale in shown.sales
                if all(getattr(sale, name) == value for name, value in each.items())
                and (visible_to is None or visible_to in (sale.buyer_id, sale.affiliate_id))
            ]
            assert await all_of(ask, 3) == sorted(expected, reverse=True)
            some += len(expected)
    assert some > 100


async def test_a_page_of_refunded_sales_is_found_by_its_index(
    app: Connection, shown: Story, projector: Connection
) -> None:
    """Along the primary key it would pass all that were never refunded."""
    await projector.execute("SET enable_seqscan = off")
    await projector.execute("SET enable_sort = off")
    values = {"tenant": shown.tenant_id, "generation": 1, "limit": 20, "before": ids.new_id(), "status": "refunded"}
    async with psycopg.AsyncClientCursor(projector) as cursor:
        await cursor.execute(b"EXPLAIN " + transactions.PAGE.encode(), {**values, "buyer": None, "affiliate": None})
        plan = "\n".join(line for (line,) in await cursor.fetchall())
    assert "transactions_by_status" in plan
    assert "Sort" not in plan


@pytest.mark.parametrize("limit", [1, 4, 100])
async def test_what_was_sold_under_a_reference_is_listed_once_each_without_a_persons_own(
    app: Connection, shown: Story, world: World, limit: int
) -> None:
    """An export has both lists, one after the other."""
    tenant_id = shown.tenant_id
    subject = await world.ledger.subject(tenant_id, "buyer", "17850")
    known = [sale for sale in shown.sales if sale.buyer_subject_id == subject]
    for person in PEOPLE:
        of: dict[str, UUID] = {"subject_id": subject, "but_of": person}
        found = await all_of(lambda b, n: transactions.page_of_subject(app, tenant_id, b, n, **of), limit)  # noqa: B023  awaited here
        expected = [sale.id for sale in known if person not in (sale.buyer_id, sale.affiliate_id)]
        assert found == sorted(expected, reverse=True)
        assert 0 < len(found) < len(known)
    found = await all_of(lambda b, n: refunds.page_of_subject(app, tenant_id, b, n, subject_id=subject), limit)
    assert found == sorted((refund.id for refund in shown.unmatched), reverse=True)


@pytest.mark.parametrize("view", [transactions, refunds], ids=lambda view: view.NAME)
@pytest.mark.parametrize("others", [True, False], ids=["of others", "of the same"])
async def test_a_page_of_a_subject_reads_no_more_than_it_shows(
    view: Any, others: bool, shown: Story, world: World, projector: Connection
) -> None:
    """However much others bought, and the same buyer: else each page of an export would read and sort all of it."""
    subject = await world.ledger.subject(shown.tenant_id, "buyer", "17850")
    key = view.VIEW.tables[0].key[0]
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        owner.execute(
            f"INSERT INTO views.{view.NAME} SELECT (jsonb_populate_record(s.t, jsonb_build_object('{key}', gen_random_uuid(),"
            f" 'buyer_subject_id', CASE WHEN {others} THEN gen_random_uuid() ELSE (s.t).buyer_subject_id END))).*"
            f" FROM (SELECT t FROM views.{view.NAME} t WHERE buyer_subject_id IS NOT NULL AND generation = 1 LIMIT 1) s,"
            f" generate_series(1, {ROWS}) n".encode()
        )
        owner.execute(f"VACUUM ANALYZE views.{view.NAME}".encode())
    values = {"tenant": shown.tenant_id, "generation": 1, "limit": 20, "before": None, "subject": subject}
    async with psycopg.AsyncClientCursor(projector) as cursor:
        explain = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + view.PAGE_OF_SUBJECT.encode()
        await cursor.execute(explain, {**values, "person": ids.new_id()})
        ((((plan,)),),) = await cursor.fetchall()
    read = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    assert read < BLOCKS_MAX, plan


async def test_a_page_of_a_hundred_is_one_question_to_the_database(
    app: Connection, shown: Story, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one for each row a page would take a hundred times as long; with a second one its position could be another moment's."""
    asked: list[object] = []
    execute = psycopg.AsyncCursor.execute

    async def counted(cursor: Any, *arguments: Any, **options: Any) -> Any:
        if cursor.connection is app:
            asked.append(arguments)
        return await execute(cursor, *arguments, **options)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)
    tenant_id, sale = shown.tenant_id, shown.sales[0].id
    lists: list[Ask] = [
        lambda after, n: products.page(app, tenant_id, after, n),
        lambda after, n: transactions.page(app, tenant_id, after, n, status="refunded"),
        lambda after, n: refunds.page(app, tenant_id, after, n),
        lambda after, n: refunds.page_of_transaction(app, tenant_id, sale, after, n),
        lambda after, n: accounts.page(app, tenant_id, after, n),
        lambda after, n: transactions.page_of_subject(app, tenant_id, after, n, subject_id=sale, but_of=sale),
        lambda after, n: refunds.page_of_subject(app, tenant_id, after, n, subject_id=sale),
    ]
    for ask in lists:
        asked.clear()
        await ask(None, 100)
        assert len(asked) == 1


async def test_who_pages_while_others_write_sees_each_old_row_once(
    app: Connection, shown: Story, world: World, projector: Connection, source: stream.Source
) -> None:
    """New sales, refunds that change rows on pages before and after, products that are renamed and retired meanwhile."""
    lists: dict[str, tuple[Ask, list[UUID]]] = {
        "products": (lambda after, n: products.page(app, shown.tenant_id, after, n), [p.id for p in shown.listed]),
        "sales": (lambda before, n: transactions.page(app, shown.tenant_id, before, n), [s.id for s in shown.sales]),
        "of a person": (
            lambda before, n: transactions.page(app, shown.tenant_id, before, n, visible_to=PEOPLE[0]),
            [sale.id for sale in shown.sales if PEOPLE[0] in (sale.buyer_id, sale.affiliate_id)],
        ),
        "refunds": (
            lambda before, n: refunds.page(app, shown.tenant_id, before, n),
            [refund for sale in shown.sales for refund in sale.refunds] + [refund.id for refund in shown.unmatched],
        ),
    }
    seen: dict[str, list[UUID]] = {name: [] for name in lists}
    cursors: dict[str, UUID | None] = dict.fromkeys(lists)
    going = set(lists)
    turn = 0
    while going:
        for name in sorted(going):
            page = await lists[name][0](cursors[name], 4)
            seen[name] += [row.id for row in page.rows]
            cursors[name] = page.next
            if page.next is None:
                going.discard(name)
        turn += 1
        begun = shown.position
        if turn <= 10:
            await tell(world, shown, 6, seed=100 + turn)
            for view in catalogue.VIEWS:
                await project(projector, source, view, shown, limit=100, begin=begun)
    assert turn > 5
    for name, (_, old) in lists.items():
        assert len(seen[name]) == len(set(seen[name])), name
        assert set(old) <= set(seen[name]), name
