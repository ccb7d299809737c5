"""What became of a command is remembered for a day, and not for longer."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from bitnexus import expiry
from commands import tenants
from domain.tenants import PLATFORM_ID
from ledger import errors, ids
from ledger.packing import Command
from tests.world import Database, World, caller

DAY = timedelta(hours=24)


@pytest.fixture
def owner(database: Database) -> Iterator[Connection[TupleRow]]:
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        yield connection


def record(owner: Connection[TupleRow], tenant_id: UUID, age: timedelta, count: int = 1) -> list[UUID]:
    """Records of commands of that age, by the database's clock."""
    made = [
        ids.new_id() if n % 2 else ids.derived_id(b"key", n.to_bytes(4, "big"), ids.new_id().bytes)
        for n in range(count)
    ]
    owner.execute(
        "INSERT INTO ledger.commands SELECT %s, x.id, '', '[]', 1, clock_timestamp() - %s::interval FROM unnest(%s::uuid[]) x (id)",
        (tenant_id, age, made),
    )
    return made


def kept(owner: Connection[TupleRow]) -> set[UUID]:
    return {id for (id,) in owner.execute("SELECT command_id FROM ledger.commands")}


def an_hour_passes(owner: Connection[TupleRow]) -> None:
    owner.execute("UPDATE ledger.expiry SET begun_at = begun_at - interval '1 hour'")


async def walk(world: World, blocks: int) -> tuple[int, int]:
    """One walk to its end: what was deleted, in how many batches."""
    deleted = batches = 0
    more = True
    async with world.projector.connection() as connection:
        while more:
            gone, more = await expiry.batch(connection, blocks)
            deleted, batches = deleted + gone, batches + 1
    return deleted, batches


async def test_what_is_a_day_old_goes_and_nothing_younger(world: World, owner: Connection[TupleRow]) -> None:
    """Of every tenant, and of ids that say nothing of their time."""
    old, young = [], []
    for tenant_id in (ids.new_id(), ids.new_id()):
        old += record(owner, tenant_id, DAY + timedelta(seconds=1), 300)
        young += record(owner, tenant_id, DAY - timedelta(minutes=5), 300)
        old += record(owner, tenant_id, timedelta(days=300), 300)
        young += record(owner, tenant_id, timedelta(0), 10)
    assert kept(owner) == {*old, *young}
    deleted, batches = await walk(world, blocks=3)
    assert kept(owner) == set(young)
    assert deleted == len(old)
    assert batches > 3


async def test_a_walk_begins_an_hour_after_the_last_one_began(world: World, owner: Connection[TupleRow]) -> None:
    tenant_id = ids.new_id()
    record(owner, tenant_id, DAY, 3)
    assert await walk(world, blocks=100) == (3, 1)
    record(owner, tenant_id, DAY, 5)
    assert await walk(world, blocks=100) == (0, 1)
    an_hour_passes(owner)
    assert await walk(world, blocks=100) == (5, 1)


async def test_one_process_at_a_time_goes_on_where_another_stopped(world: World, owner: Connection[TupleRow]) -> None:
    """Nobody waits for somebody else's batch, and no block is looked at twice."""
    record(owner, ids.new_id(), DAY, 600)
    async with world.projector.connection() as one, world.projector.connection() as other:
        async with one.transaction():
            first = await expiry.batch(one, blocks=2)
            async with asyncio.timeout(5):
                assert await expiry.batch(other, blocks=2) == (0, False)
        second = await expiry.batch(other, blocks=2)
        assert first.deleted > 0
        assert second.deleted > 0
        assert (first.more, len(kept(owner))) == (True, 600 - first.deleted - second.deleted)
    assert (await walk(world, blocks=2))[0] == 600 - first.deleted - second.deleted


async def test_nobody_can_ask_for_more_than_that(database: Database, owner: Connection[TupleRow]) -> None:
    """A process that was taken over must not be able to make commands forgotten that can still be repeated."""
    (made,) = record(owner, ids.new_id(), timedelta(hours=23))
    for role in ("app", "platform"):
        async with await connections.connect(database.app_url, role) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await expiry.batch(connection)
    async with await connections.connect(database.app_url, "projector") as connection:
        for statement in ("DELETE FROM ledger.commands", "UPDATE ledger.expiry SET block = 0"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)
        for blocks in (0, -1, 10_001, None):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                await expiry.batch(connection, blocks)  # type: ignore[arg-type]  # None on purpose
        await expiry.batch(connection)
    assert kept(owner) == {made}


async def test_a_serving_process_deletes_and_outlives_an_outage(
    world: World, owner: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "BETWEEN_LOOKS_S", 0.01)
    owner.execute("ALTER TABLE ledger.expiry RENAME TO gone")
    record(owner, ids.new_id(), DAY, 3)
    async with expiry.running(world.projector):
        await asyncio.sleep(0.1)
        assert len(kept(owner)) == 3
        owner.execute("ALTER TABLE ledger.gone RENAME TO expiry")
        async with asyncio.timeout(20):
            while kept(owner):  # noqa: ASYNC110  another process's work, so to say
                await asyncio.sleep(0.01)


async def test_a_repeat_is_answered_for_a_day_and_decided_afresh_later(
    world: World, tenant_id: UUID, owner: Connection[TupleRow]
) -> None:
    command = Command(tenant_id, ids.derived_id(b"a key"), b"asked", b"outcome", [])
    await world.appender.submit(command)
    owner.execute("UPDATE ledger.commands SET recorded_at = recorded_at - interval '23 hours 59 minutes'")
    await walk(world, blocks=100)
    assert (await world.appender.submit(command)).outcome == b"outcome"
    other = Command(tenant_id, command.command_id, b"something else", b"another", [])
    with pytest.raises(errors.CommandIdReused):
        await world.appender.submit(other)
    owner.execute("UPDATE ledger.commands SET recorded_at = recorded_at - interval '1 minute'")
    an_hour_passes(owner)
    await walk(world, blocks=100)
    assert (await world.appender.submit(other)).outcome is None


async def test_a_process_starts_when_its_first_commands_are_forgotten(
    world: World, owner: Connection[TupleRow]
) -> None:
    """The platform's tenant is made at every start by a command whose id never changes."""
    await tenants.ensure_platform(world.ledger)
    create = tenants.Create(
        slug="shop",
        name="Shop",
        currency="EUR",
        admin_email="a@b.example",
        admin_name="A",
        admin_password="correct horse",
    )
    shop = (await tenants.create(create, caller(PLATFORM_ID), world.ledger, world.passwords)).aggregate
    heads = [(await world.ledger.head(each)).hash for each in (PLATFORM_ID, shop.id)]
    owner.execute("UPDATE ledger.commands SET recorded_at = recorded_at - interval '24 hours'")
    assert (await walk(world, blocks=100))[0] == 4
    await tenants.ensure_platform(world.ledger)
    with pytest.raises(tenants.SlugTaken):
        await tenants.create(create, caller(PLATFORM_ID), world.ledger, world.passwords)
    assert [(await world.ledger.head(each)).hash for each in (PLATFORM_ID, shop.id)] == heads


async def test_a_tenant_that_was_begun_is_finished_a_day_later_too(world: World, owner: Connection[TupleRow]) -> None:
    """The process was killed between the tenant's first event and its admin."""
    await tenants.ensure_platform(world.ledger)
    create = tenants.Create(
        slug="shop",
        name="Shop",
        currency="EUR",
        admin_email="a@b.example",
        admin_name="A",
        admin_password="correct horse",
    )

    async def killed(*_: object) -> bytes:
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.passwords, "hash", killed)
        with pytest.raises(asyncio.CancelledError):
            await tenants.create(create, caller(PLATFORM_ID), world.ledger, world.passwords)
    owner.execute("DELETE FROM ledger.commands")
    made = await tenants.create(create, caller(PLATFORM_ID), world.ledger, world.passwords)
    assert (await world.ledger.head(made.aggregate.id)).position == 2
