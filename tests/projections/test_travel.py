"""A view as it stood: made aside, so that nobody notices, and of nobody who was erased. That it is right is in test_kit."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec
import psycopg
import pytest

from commands import privacy
from ledger import codec, ids, replay
from projections import catalogue, comparison, failures, products, stream, transactions, travel
from projections.view import Batch, Cursor, View
from tests.projections.conftest import PATIENCE_S, Connection, project, rows, shown
from tests.projections.story import Story, tell
from tests.world import World, caller

LOCKS = """
SELECT DISTINCT relation::regclass::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE pid = ANY (%s) AND c.relnamespace = 'views'::regnamespace
"""
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bitnexus past'"


def travelling(connection: psycopg.Connection) -> list[int]:
    """Sessions that make a view of the past."""
    return [pid for (pid,) in connection.execute(SESSIONS)]


async def test_what_is_read_is_neither_changed_nor_held_nor_grown(
    projector: Connection, source: stream.Source, world: World, story: Story, travels: travel.Travels
) -> None:
    """Whoever looks back must not slow down who sells."""
    for view in catalogue.VIEWS:
        await project(projector, source, view, story, limit=100)
    before = await rows(projector, story.tenant_id)
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        sizes = (
            "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relnamespace = 'views'::regnamespace ORDER BY 1"
        )
        grown = owner.execute(sizes).fetchall()
        for view in catalogue.VIEWS:
            async with travels.to(view, story.tenant_id, story.position) as past:
                assert any((await shown(past, view)).values())
                sessions = travelling(owner)
                assert sessions
                assert owner.execute(LOCKS, (sessions,)).fetchall() == []
        assert owner.execute(sizes).fetchall() == grown
    assert await rows(projector, story.tenant_id) == before


async def test_a_projector_that_names_its_table_otherwise_cannot_write_into_what_is_read(
    projector: Connection, source: stream.Source, story: Story, travels: travel.Travels
) -> None:
    async def careless(batch: Batch, cursor: Cursor) -> None:
        await cursor.execute("""UPDATE "views"."products" SET name = 'damaged'""")

    await project(projector, source, products.VIEW, story, limit=100)
    before = await rows(projector, story.tenant_id)
    view = msgspec.structs.replace(products.VIEW, project=careless)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with travels.to(view, story.tenant_id, story.position):
            pytest.fail("it was let through")
    assert await rows(projector, story.tenant_id) == before


async def test_no_other_tenant_can_be_looked_at(world: World, story: Story, travels: travel.Travels) -> None:
    """Not even by a projector that forgets to name its tenant."""
    seen: set[UUID] = set()
    await tell(world, Story(ids.new_id()), 10, seed=2)

    async def careless(batch: Batch, cursor: Cursor) -> None:
        await cursor.execute("SELECT DISTINCT tenant_id FROM ledger.events")
        seen.update(tenant_id for (tenant_id,) in await cursor.fetchall())

    async with travels.to(msgspec.structs.replace(products.VIEW, project=careless), story.tenant_id, story.position):
        assert seen == {story.tenant_id}


async def forget_buyer(world: World, story: Story) -> None:
    erase = privacy.Erase(buyer_ref="17850")
    await privacy.erase(erase, caller(story.tenant_id), world.ledger, privacy.noted_nowhere)


async def buyers(travels: travel.Travels, view: View, story: Story) -> set[str | None]:
    async with travels.to(view, story.tenant_id, story.position) as past:
        (found,) = (await shown(past, view)).values()
        return {row["buyer_ref"] for row in found}


async def test_who_was_erased_since_stays_erased(world: World, story: Story, travels: travel.Travels) -> None:
    """The position lies before the erasure, and yet nobody is brought back."""
    assert "17850" in await buyers(travels, transactions.VIEW, story)
    await forget_buyer(world, story)
    assert await buyers(travels, transactions.VIEW, story) == {None, codec.ERASED}


async def test_who_is_erased_while_it_is_made_is_erased_in_it(
    world: World, story: Story, travels: travel.Travels
) -> None:
    """The events that name them have been read by then."""

    async def and_meanwhile(batch: Batch, cursor: Cursor) -> None:
        await transactions.project(batch, cursor)
        await forget_buyer(world, story)

    view = msgspec.structs.replace(transactions.VIEW, project=and_meanwhile)
    assert await buyers(travels, view, story) == {None, codec.ERASED}


class Held:
    """A projector that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.view = msgspec.structs.replace(products.VIEW, project=self._project)

    async def _project(self, batch: Batch, cursor: Cursor) -> None:
        await products.project(batch, cursor)
        self.entered.set()
        await self.let_go.wait()


async def make(travels: travel.Travels, view: View, tenant_id: UUID, position: int) -> int:
    async with travels.to(view, tenant_id, position) as past:
        return await past.count(view.tables[0])


async def test_only_so_many_are_made_at_one_time_and_of_a_tenant_one(
    world: World, story: Story, travels: travel.Travels
) -> None:
    """Each costs half a core; whoever comes too many is told at once, and one tenant leaves room for the others."""
    held = Held()
    others = [await tell(world, Story(ids.new_id()), 5, seed=seed) for seed in range(travel.RUNNING_MAX)]
    running = [asyncio.create_task(make(travels, held.view, story.tenant_id, story.position))]
    await asyncio.wait_for(held.entered.wait(), PATIENCE_S)
    with pytest.raises(travel.Crowded):
        await make(travels, products.VIEW, story.tenant_id, 1)
    for other in others[:-1]:
        held.entered.clear()
        running.append(asyncio.create_task(make(travels, held.view, other.tenant_id, other.position)))
        await asyncio.wait_for(held.entered.wait(), PATIENCE_S)
    with pytest.raises(travel.Crowded, match=f"in this process: {travel.RUNNING_MAX},"):
        await make(travels, products.VIEW, others[-1].tenant_id, 1)
    held.let_go.set()
    assert (await asyncio.gather(*running))[0] == len(story.listed)
    assert await make(travels, products.VIEW, others[-1].tenant_id, 1) == 1


async def test_a_cancelled_one_leaves_nothing_and_its_place_is_free(
    world: World, story: Story, travels: travel.Travels
) -> None:
    held = Held()
    task = asyncio.create_task(make(travels, held.view, story.tenant_id, story.position))
    await asyncio.wait_for(held.entered.wait(), PATIENCE_S)
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        assert travelling(owner)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not travelling(owner))
        left = owner.execute("SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'")
        assert left.fetchall() == []
    assert await make(travels, products.VIEW, story.tenant_id, story.position) == len(story.listed)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not what():  # noqa: ASYNC110  another process's doing
            await asyncio.sleep(0.01)


async def test_an_event_in_the_way_is_named_without_what_it_says(
    world: World, story: Story, travels: travel.Travels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(batch: Batch, cursor: Cursor) -> None:
        if batch.events[-1].position > 20:
            raise ValueError("secret@example.com is no price")

    monkeypatch.setattr(travel, "BATCH_EVENTS", 10)
    view = msgspec.structs.replace(products.VIEW, project=fails, on_failure=failures.park_after(1))
    assert await make(travels, view, story.tenant_id, 20) == 0
    with pytest.raises(
        travel.Undigested, match=r"cannot digest an event from \d1 to \d0: ValueError in fails, line"
    ) as told:
        await make(travels, view, story.tenant_id, story.position)
    assert "secret" not in str(told.value)


async def test_a_view_without_its_table_has_no_past(story: Story, travels: travel.Travels) -> None:
    table = msgspec.structs.replace(products.VIEW.tables[0], name="nowhere")
    with pytest.raises(comparison.TableMissing, match=r"views\.nowhere"):
        await make(travels, msgspec.structs.replace(products.VIEW, tables=(table,)), story.tenant_id, 1)


async def test_a_position_that_there_is_not_ends_it(story: Story, travels: travel.Travels) -> None:
    """Or it would look for the next event for ever."""
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(replay.PositionBeyond):
            await make(travels, products.VIEW, story.tenant_id, story.position + 1)
