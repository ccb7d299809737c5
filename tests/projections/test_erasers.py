"""Whatever a view holds of a person goes when the person is erased, in whichever order events and erasure come to it."""

import time
from decimal import Decimal
from typing import Any, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
import psycopg
import pytest

from commands import privacy
from domain import privacy as privacy_events
from domain import transactions
from ledger import codec, ids
from ledger.keyring import Keyring
from projections import catalogue, stream
from projections.view import View
from tests.projections.conftest import PATIENCE_S, Connection, StartProcess, project, rebuilt, rows
from tests.projections.story import BEGIN, Story, tell
from tests.world import MASTER, World, caller

REFERENCE = "17850"  # of every buyer in a story


def is_personal(hint: Any) -> bool:
    metadata = getattr(hint, "__metadata__", ())
    if any(isinstance(each, msgspec.Meta) and (each.extra or {}).get("personal") for each in metadata):
        return True
    return get_origin(hint) is not None and any(is_personal(each) for each in get_args(hint))


def personal_fields(view: View) -> set[str]:
    """Of all events that the view is made of."""
    hints = [get_type_hints(each, include_extras=True) for each in view.topics]
    return {name for each in hints for name, hint in each.items() if is_personal(hint)}


def without_eraser(view: View, columns: set[str]) -> set[str]:
    """Personal fields that are a column of the view and are not in what erases it, or it never hears of an erasure."""
    kept = personal_fields(view) & columns
    if view.erase is None or privacy_events.Erasure.PersonErased not in view.topics:
        return kept
    return {name for name in kept if name not in view.erase}


def columns_of(owner_url: str, view: View) -> set[str]:
    tables = [table.name for table in view.tables]
    assert tables
    query = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'views' AND table_name = ANY (%s)"
    with psycopg.connect(owner_url) as owner:
        return {name for (name,) in owner.execute(query, [tables])}


@pytest.mark.parametrize("view", catalogue.VIEWS, ids=lambda view: view.name)
def test_a_view_with_personal_columns_has_an_eraser(world: World, view: View) -> None:
    assert without_eraser(view, columns_of(world.database.owner_url, view)) == set()


def test_a_view_without_its_eraser_is_found(world: World) -> None:
    """The test above must be able to fail."""
    view = next(view for view in catalogue.VIEWS if view.name == "transactions")
    columns = columns_of(world.database.owner_url, view)
    careless = msgspec.structs.replace(view, erase=None)
    deaf = msgspec.structs.replace(view, topics=tuple(each for each in view.topics if "Erased" not in each.__name__))
    assert without_eraser(careless, columns) == without_eraser(deaf, columns) == {"buyer_ref"}


async def erase(world: World, story: Story) -> None:
    command = privacy.Erase(buyer_ref=REFERENCE)
    receipt = await privacy.erase(command, caller(story.tenant_id), world.ledger, privacy.noted_nowhere)
    story.position = receipt.position


async def held(connection: Connection, tenant_id: UUID, generation: int = 1) -> tuple[int, int]:
    """Rows that say the reference, and rows that say the marker."""
    found = [str(row) for table in (await rows(connection, tenant_id, generation)).values() for row in table]
    return sum(f"'{REFERENCE}'" in row for row in found), sum(codec.ERASED in row for row in found)


async def test_every_view_forgets(world: World, story: Story, start_process: StartProcess, app: Connection) -> None:
    process = await start_process()
    await process.reaches(story)
    async with world.projector.connection() as connection:
        before, _ = await held(connection, story.tenant_id)
        assert before > 0
        await erase(world, story)
        await process.reaches(story)
        assert await held(connection, story.tenant_id) == (0, before)


@pytest.mark.parametrize("limit", [1, 7, 1_000])
async def test_batches_of_any_size_forget(
    world: World, story: Story, projector: Connection, source: stream.Source, limit: int
) -> None:
    """In a large batch the person's events and the erasure come together. Other persons' stay."""
    await erase(world, story)
    await tell(world, story, 20, seed=2)  # the same reference, so somebody else
    for view in catalogue.VIEWS:
        await project(projector, source, view, story, limit)
    found = await rows(projector, story.tenant_id)
    for table in ("transactions", "refunds"):
        assert any(f"'{REFERENCE}'" in str(row) for row in found[table]), table
        assert any(codec.ERASED in str(row) for row in found[table]), table


async def test_an_event_that_comes_after_the_erasure_is_stored_with_the_marker(
    world: World, story: Story, projector: Connection, source: stream.Source
) -> None:
    """Another process may encrypt with the key for two seconds more; a projector whose keyring has it must not store it."""
    subject = await world.ledger.subject(story.tenant_id, "buyer", REFERENCE)
    stale = Keyring(MASTER)
    await stale.find(projector, story.tenant_id, [subject])
    await erase(world, story)
    numbers = (story.tenant_id.int, subject.int)
    key = stale._cached[numbers]
    world.ledger.keyring._cached[numbers] = key
    line = transactions.UnmatchedLineWanted(product_id=None, sku="OLD", quantity=1, unit_price=Decimal(1))
    late = transactions.record_refund(
        id=ids.new_id(),
        tenant_id=story.tenant_id,
        lines=[line],
        currency="GBP",
        occurred_at=BEGIN,
        buyer_ref=REFERENCE,
        buyer_subject_id=subject,
    )
    erased_at, story.position = story.position, (await world.ledger.append(caller(story.tenant_id), late)).position
    assert (await world.ledger.load(transactions.Refund, story.tenant_id, late.id)).buyer_ref == REFERENCE
    for view in catalogue.VIEWS:
        await project(projector, source, view, story, 1_000, end=erased_at)
        stale.looked(time.monotonic() + PATIENCE_S)  # its key must not go stale by itself
        assert stale.at_hand(story.tenant_id, [subject])
        await project(projector, stream.Source(source.codec, stale), view, story, 1_000, begin=erased_at)
        stale._erased.clear()
        stale._cached[numbers] = key
    assert (await held(projector, story.tenant_id))[0] == 0


async def test_a_rebuild_brings_nothing_back(
    world: World, story: Story, projector: Connection, source: stream.Source
) -> None:
    for view in catalogue.VIEWS:
        await project(projector, source, view, story, 100)
    await erase(world, story)
    for view in catalogue.VIEWS:
        compared = await rebuilt(world, source, view, story.tenant_id)
        assert (compared.before, compared.after) == (1, 2)
    clear, marked = await held(projector, story.tenant_id, generation=2)
    assert clear == 0
    assert marked > 0


async def test_what_was_unreadable_is_there_again_after_its_key_was_restored_and_the_view_rebuilt(
    projector: Connection, world: World, story: Story
) -> None:
    """As docs/privacy.md says: the events are whole, only the view was made without the key."""
    view = next(view for view in catalogue.VIEWS if view.name == "transactions")
    source = stream.Source(world.ledger.codec, Keyring(MASTER))  # of a process that has not read the key before
    buyer = await world.ledger.subject(story.tenant_id, "buyer", REFERENCE)
    damage = "UPDATE ledger.subject_keys SET wrapped = overlay(wrapped PLACING %s FROM 20) WHERE subject_id = %s"
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        looked = "SELECT substr(wrapped, 20, 1) FROM ledger.subject_keys WHERE subject_id = %s"
        ((kept,),) = owner.execute(looked, (buyer,)).fetchall()
        owner.execute(damage, (bytes([kept[0] ^ 1]), buyer))
        await project(projector, source, view, story, limit=100)
        assert await references(projector, story, generation=1) == {None, codec.UNREADABLE}
        owner.execute(damage, (kept, buyer))
    compared = await rebuilt(world, source, view, story.tenant_id)
    assert not compared.equal
    assert REFERENCE not in str(compared)
    assert await references(projector, story, generation=2) == {None, REFERENCE}


async def references(connection: Connection, story: Story, generation: int) -> set[str | None]:
    found = await rows(connection, story.tenant_id, generation)
    return {row["buyer_ref"] for (row,) in found["transactions"]}
