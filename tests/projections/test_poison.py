"""An event that a projector cannot digest: it stops one aggregate of one view, or one view of one tenant, and is never lost."""

import asyncio
import errno
from uuid import UUID

import msgspec
import psycopg
import pytest

from domain import products as domain_products
from domain.products import Product
from ledger import errors as ledger_errors
from ledger import ids
from projections import (
    catalogue,
    columns,
    cross_tenant,
    failures,
    generations,
    parking,
    products,
    reading,
    repairing,
    sales,
    stream,
    worker,
)
from projections.view import Batch, Cursor, View
from tests.projections.conftest import (
    PATIENCE_S,
    Connection,
    Process,
    StartProcess,
    assert_replay_gives_the_same,
    rebuilt,
    rows,
    shown_of,
)
from tests.projections.story import Story, tell
from tests.world import World, caller


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RETRY_S_MIN", 0.01)


class Poisoned:
    """The products' projector, which cannot digest the events of some products from a version on."""

    def __init__(self) -> None:
        self.poison: dict[UUID, int] = {}
        self.error: Exception = ValueError("secret@example.com is no price")
        self.tried = 0
        self.later_ones_too = True

    async def __call__(self, batch: Batch, cursor: Cursor) -> None:
        for recorded in batch.events:
            event = recorded.event
            first = self.poison.get(event.originator_id, 10**9)
            if event.originator_version == first or (event.originator_version > first and self.later_ones_too):
                self.tried += 1
                raise self.error
        await products.project(batch, cursor)


@pytest.fixture
def poisoned() -> Poisoned:
    return Poisoned()


def parks(poisoned: Poisoned) -> View:
    return msgspec.structs.replace(products.VIEW, project=poisoned, on_failure=failures.park_after(2))


def stops(poisoned: Poisoned, policy: failures.Policy | None = None) -> View:
    on_failure = policy or failures.stop_after(2)
    return msgspec.structs.replace(products.VIEW, project=poisoned, on_failure=on_failure, commutes=False)


async def renamed(world: World, story: Story, product: domain_products.Product, name: str) -> int:
    """The position of the event."""
    stored = await world.ledger.load(Product, story.tenant_id, product.id)
    stored.rename(name)
    story.position = (await world.ledger.append(caller(story.tenant_id), stored)).position
    return story.position


def listed_for_good(story: Story) -> domain_products.Product:
    return next(each for each in story.listed if each.status == domain_products.Status.LISTED)


async def unnoted(parked_from: int | None) -> None:
    """Nothing is written down."""


async def parked(connection: Connection, story: Story) -> list[cross_tenant.Parked]:
    return await cross_tenant.parked(connection, ["products"], [story.tenant_id])


async def test_one_aggregate_waits_in_order_and_all_others_go_on(
    start_process: StartProcess,
    world: World,
    story: Story,
    projector: Connection,
    source: stream.Source,
    app: Connection,
    poisoned: Poisoned,
) -> None:
    product = listed_for_good(story)
    poisoned.poison[product.id] = 1
    view = parks(poisoned)
    process = await start_process([view, sales.VIEW])
    await process.reaches(story, [view, sales.VIEW])
    first = await renamed(world, story, product, "later")  # it only waits behind the first one
    await tell(world, story, 20, seed=2)
    await process.reaches(story, [view, sales.VIEW])
    (found,) = await parked(projector, story)
    stored = await world.ledger.load(Product, story.tenant_id, product.id)
    assert (found.originator_id, found.topic, found.attempts) == (product.id, "product.listed", 2)
    assert found.events == stored.version
    assert found.error is not None
    assert found.error.startswith("ValueError in __call__")
    assert "secret" not in found.error
    page = await products.page(app, story.tenant_id, None, 100)
    assert (page.position, page.parked) == (story.position, 1)
    assert product.id not in {row.id for row in page.rows}
    assert len(page.rows) == len(story.listed) - 1
    assert await reading.first_parked(app, "products", story.tenant_id, product.id) == found.position < first
    assert await reading.first_parked(app, "products", story.tenant_id, story.listed[-1].id) is None

    poisoned.poison.clear()
    repaired = await repairing.parked(projector, source, view, story.tenant_id, product.id, skip=False, noted=unnoted)
    assert (repaired.applied, repaired.left, repaired.error) == (stored.version, 0, None)
    assert await parked(projector, story) == []
    assert (await shown_of(products, app, story.tenant_id, product.id)).name == stored.name
    assert await reading.first_parked(app, "products", story.tenant_id, product.id) is None
    await assert_replay_gives_the_same(world, source, story.tenant_id, [products.VIEW])
    await renamed(world, story, product, "afterwards")
    await process.reaches(story, [view])
    assert (await shown_of(products, app, story.tenant_id, product.id)).name == "afterwards"


async def test_a_retry_goes_as_far_as_it_can_and_a_skip_passes_over_one_event(
    start_process: StartProcess,
    world: World,
    story: Story,
    projector: Connection,
    source: stream.Source,
    app: Connection,
    poisoned: Poisoned,
) -> None:
    product = listed_for_good(story)
    poisoned.poison[product.id] = 1
    view = parks(poisoned)
    process = await start_process([view])
    for name in ("one", "two"):
        await renamed(world, story, product, name)
    await process.reaches(story, [view])
    stored = await world.ledger.load(Product, story.tenant_id, product.id)
    poisoned.poison[product.id] = stored.version - 1  # the first ones can be digested now, and the last one out of turn
    poisoned.later_ones_too = False
    repaired = await repairing.parked(projector, source, view, story.tenant_id, product.id, skip=False, noted=unnoted)
    assert (repaired.applied, repaired.left) == (stored.version - 2, 2)
    assert repaired.error is not None
    (found,) = await parked(projector, story)
    assert (found.events, found.attempts, found.topic) == (2, 1, "product.renamed")
    poisoned.poison[product.id] = stored.version + 1
    repaired = await repairing.parked(projector, source, view, story.tenant_id, product.id, skip=True, noted=unnoted)
    assert (repaired.applied, repaired.skipped, repaired.left) == (1, 1, 0)
    assert (await shown_of(products, app, story.tenant_id, product.id)).name == "two"
    assert (await generations.all_of(projector, "products", story.tenant_id))[0].parked == 0
    with pytest.raises(repairing.NothingParked):
        await repairing.parked(projector, source, view, story.tenant_id, product.id, skip=False, noted=unnoted)


async def stopped(connection: Connection, view: View, story: Story) -> generations.Generation:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await generations.all_of(connection, view.name, story.tenant_id)
            if found and found[0].stopped:
                return found[0]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("policy", [failures.stop_after(2), failures.park_after(2)], ids=["stop", "park"])
async def test_a_view_that_must_not_park_stops_for_that_tenant_alone_and_says_so(
    start_process: StartProcess,
    world: World,
    story: Story,
    projector: Connection,
    source: stream.Source,
    poisoned: Poisoned,
    caplog: pytest.LogCaptureFixture,
    policy: failures.Policy,
) -> None:
    """Whatever its policy says: what it shows would be wrong."""
    other = await tell(world, Story(ids.new_id()), 20, seed=2)
    product = story.listed[1]
    poisoned.poison[product.id] = 1
    view = stops(poisoned, policy)
    process = await start_process([view, sales.VIEW])
    await process.reaches(other, [view])
    await process.reaches(story, [sales.VIEW])
    found = await stopped(projector, view, story)
    assert (found.position, found.parked) == (1, 0)  # right before the second product
    assert f"of tenant {story.tenant_id} has stopped after position 1" in caplog.text
    tried = poisoned.tried
    await tell(world, story, 10, seed=3)
    await process.reaches(story, [sales.VIEW])
    assert poisoned.tried == tried  # it is left alone
    poisoned.poison.clear()
    await repairing.stopped(projector, source, view, story.tenant_id, skip=False, noted=unnoted)
    await process.reaches(story, [view])
    await assert_replay_gives_the_same(world, source, story.tenant_id, [products.VIEW])


async def test_a_stopped_view_that_was_rebuilt_goes_on(
    start_process: StartProcess,
    world: World,
    story: Story,
    projector: Connection,
    source: stream.Source,
    poisoned: Poisoned,
) -> None:
    """The code was corrected: both generations are fed again, so that one can switch back."""
    poisoned.poison[story.listed[1].id] = 1
    view = stops(poisoned)
    process = await start_process([view])
    await stopped(projector, view, story)
    poisoned.poison.clear()
    await rebuilt(world, source, view, story.tenant_id)
    await process.reaches(story, [view])
    found = await generations.all_of(projector, view.name, story.tenant_id)
    assert [(each.state, each.stopped, each.position) for each in found] == [
        ("ready", False, story.position),
        ("active", False, story.position),
    ]


async def test_a_stopped_view_can_pass_over_the_event(
    start_process: StartProcess,
    world: World,
    story: Story,
    projector: Connection,
    source: stream.Source,
    app: Connection,
    poisoned: Poisoned,
) -> None:
    product = story.listed[1]
    poisoned.poison[product.id] = 1
    view = stops(poisoned)
    process = await start_process([view])
    await stopped(projector, view, story)
    poisoned.poison[product.id] = 2
    assert (await repairing.stopped(projector, source, view, story.tenant_id, skip=True, noted=unnoted)).skipped == 1
    poisoned.poison.clear()
    await process.reaches(story, [view])
    page = await products.page(app, story.tenant_id, None, 100)
    assert {row.id for row in page.rows} == {each.id for each in story.listed} - {product.id}


async def test_too_many_parked_aggregates_stop_the_view(
    start_process: StartProcess,
    world: World,
    story: Story,
    projector: Connection,
    poisoned: Poisoned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then it is the projector that is wrong, and its view would be empty."""
    monkeypatch.setattr(parking, "ORIGINATORS_MAX", 2)
    poisoned.poison = {product.id: 1 for product in story.listed}
    view = parks(poisoned)
    await start_process([view])
    found = await stopped(projector, view, story)
    assert (found.parked, found.position) == (2, 2)


async def test_an_outage_is_never_an_events_fault(
    start_process: StartProcess, world: World, story: Story, projector: Connection, poisoned: Poisoned
) -> None:
    """A full disk would park every aggregate there is."""
    poisoned.poison = {product.id: 1 for product in story.listed}
    poisoned.error = psycopg.errors.DiskFull("No space left on device")
    view = msgspec.structs.replace(products.VIEW, project=poisoned, on_failure=failures.park_after(1))
    process = await start_process([view])
    async with asyncio.timeout(PATIENCE_S):
        while poisoned.tried < 5:  # noqa: ASYNC110  counted by the projector
            await asyncio.sleep(0.01)
    assert await parked(projector, story) == []
    poisoned.poison.clear()
    await process.reaches(story, [view])
    assert await parked(projector, story) == []


class Coded(psycopg.Error):
    def __init__(self, state: str) -> None:
        super().__init__("no")
        self.sqlstate = state


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (Coded("53100"), True),  # disk full
        (Coded("53300"), True),  # too many connections
        (Coded("40P01"), True),  # deadlock
        (Coded("55P03"), True),  # lock not available
        (Coded("57014"), True),  # cancelled
        (Coded("57P01"), True),  # shut down
        (Coded("08006"), True),
        (Coded("25P03"), True),  # idle in transaction
        (Coded("25006"), True),  # read-only
        (Coded("58030"), True),  # I/O
        (Coded("42P01"), True),  # no such table
        (Coded("XX000"), True),
        (psycopg.OperationalError("the connection is lost"), True),
        (OSError(errno.ENOSPC, "full"), True),
        (MemoryError(), True),
        (TimeoutError(), True),
        (ledger_errors.MasterKeyMissing("k"), True),
        (Coded("22P02"), False),  # a value that is no number
        (Coded("23514"), False),  # a check
        (Coded("54000"), False),  # an index row that is too large
        (ValueError("no"), False),
        (KeyError("no"), False),
        (ledger_errors.EventUnreadable("t", ids.new_id(), 1, "no"), False),
    ],
)
def test_what_is_an_outage(error: Exception, outage: bool) -> None:
    assert failures.is_outage(error) is outage


async def test_an_event_that_cannot_be_read_is_in_nobody_elses_way(
    start_process: StartProcess, world: World, story: Story, projector: Connection
) -> None:
    """Its topic is one view's; the others read the same stretch."""
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        owner.execute("UPDATE ledger.events SET state = '{' WHERE position = 2")
    view = msgspec.structs.replace(products.VIEW, on_failure=failures.park_after(1))
    process = await start_process([view, *catalogue.VIEWS[1:]])
    await process.reaches(story)
    (found,) = await parked(projector, story)
    assert (found.originator_id, found.position) == (story.listed[1].id, 2)
    assert found.error is not None
    assert found.error.startswith("EventUnreadable")
    assert any((await rows(projector, story.tenant_id))["transactions"])


def given_up_or_tried_more_often_than_an_event_is(process: Process) -> bool:
    failing = process.run.state()[0].failures
    return any(each.attempts > failures.ATTEMPTS or each.retry_at is None for each in failing)


async def test_a_missing_table_is_waited_for_and_said_to_everybody(
    start_process: StartProcess, world: World, story: Story, projector: Connection
) -> None:
    """A release without its migration: nothing is parked, nothing stops for good, and an operator sees why."""
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE views.products RENAME TO elsewhere")
        process = await start_process()
        await process.reaches(story, [view for view in catalogue.VIEWS if view.name != "products"])
        async with asyncio.timeout(PATIENCE_S):
            while not given_up_or_tried_more_often_than_an_event_is(process):  # noqa: ASYNC110  another task's doing
                await asyncio.sleep(0.02)
        (lag,) = await cross_tenant.lag(projector, ["products"])
        assert (lag.failure, lag.stopped, lag.parked) == ("UndefinedTable (SQLSTATE 42P01)", False, 0)
        owner.execute("ALTER TABLE views.elsewhere RENAME TO products")
    await process.reaches(story)
    assert (await cross_tenant.lag(projector, ["products"]))[0].failure is None


async def test_what_is_parked_is_parked_in_a_new_generation_too(
    start_process: StartProcess,
    world: World,
    story: Story,
    projector: Connection,
    source: stream.Source,
    poisoned: Poisoned,
) -> None:
    product = listed_for_good(story)
    poisoned.poison[product.id] = 1
    view = msgspec.structs.replace(parks(poisoned), on_failure=failures.park_after(1))
    process = await start_process([view])
    await process.reaches(story, [view])
    compared = await rebuilt(world, source, view, story.tenant_id)
    assert compared.equal
    await renamed(world, story, product, "later")
    await process.reaches(story, [view])
    found = await generations.all_of(projector, view.name, story.tenant_id)
    assert [(each.state, each.parked) for each in found] == [("ready", 1), ("active", 1)]
    poisoned.poison.clear()
    columns.register(projector.adapters)
    await repairing.parked(projector, source, view, story.tenant_id, product.id, skip=False, noted=unnoted)
    found = await generations.all_of(projector, view.name, story.tenant_id)
    assert [(each.state, each.parked) for each in found] == [("ready", 0), ("active", 0)]
