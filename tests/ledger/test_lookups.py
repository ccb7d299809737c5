"""What is looked up together is what the database has, for everybody; what is kept spares reading it again and never asking."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal

import psycopg
import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from commands import accounts as account_commands
from commands import products as product_commands
from domain import accounts, catalogue, products, transactions
from ledger import errors, ids, lookups
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.lookups import Lookups, Wanted
from tests.world import MASTER, World, caller

PATIENCE_S = 30


@pytest_asyncio.fixture
async def looked_up(world: World) -> AsyncIterator[Lookups]:
    connect = connections.connector(world.database.app_url, "app")
    made = Lookups(connect, world.app, Codec(catalogue.AGGREGATES), Keyring(MASTER))
    await made.start()
    yield made
    await made.close()


async def listed(world: World, tenant_id: uuid.UUID, sku: str = "MUG") -> products.Product:
    command = product_commands.ListProduct(sku=sku, name="Mug", price=Decimal(1), currency="EUR")
    return (await product_commands.list_product(command, caller(tenant_id), world.ledger)).aggregate


async def repriced(world: World, product: products.Product, price: int) -> None:
    command = product_commands.Reprice(product_id=product.id, price=Decimal(price))
    await product_commands.reprice(command, caller(product.tenant_id), world.ledger)


async def price(looked_up: Lookups, wanted: Wanted) -> Decimal | None:
    found = (await looked_up.find([wanted])).get(wanted)
    if found is None:
        return None
    assert isinstance(found.aggregate, products.Product)
    return found.aggregate.price


def by_sku(tenant_id: uuid.UUID, sku: str) -> Wanted:
    return Wanted(tenant_id.int, "sku", MASTER.reference(tenant_id, "sku", sku))


def by_id(product: products.Product) -> Wanted:
    return Wanted(product.tenant_id.int, "", product.id.bytes)


async def owner_of(world: World) -> AsyncConnection[TupleRow]:
    return await AsyncConnection.connect(world.database.owner_url, autocommit=True)


async def test_many_who_ask_at_once_are_one_call(world: World, tenant_id: uuid.UUID, looked_up: Lookups) -> None:
    """Of several tenants, by id and by SKU, each wanted by several."""
    other = ids.new_id()
    await world.ledger.open_stream(other)
    made = [await listed(world, tenant, f"S{n}") for tenant in (tenant_id, other) for n in range(5)]
    wanted = [by_id(each) for each in made] + [by_sku(each.tenant_id, each.sku) for each in made]
    found = await asyncio.gather(*(looked_up.find([each]) for each in wanted * 3))
    assert [each[one].aggregate.id for each, one in zip(found, wanted * 3, strict=True)] == [
        each.id for each in made * 6
    ]
    assert looked_up.calls == 1


async def test_few_who_ask_during_a_call_go_together_after_it(
    world: World, tenant_id: uuid.UUID, looked_up: Lookups
) -> None:
    """And many by a second one meanwhile."""
    made = await listed(world, tenant_id, "S")
    async with await owner_of(world) as owner, owner.transaction():
        await owner.execute("LOCK TABLE ledger.events")
        finds = []
        for asked in range(1 + lookups.SECOND_ASKS_MIN):
            finds.append(asyncio.create_task(looked_up.find([by_id(made)])))
            for _ in range(3):  # asked, called
                await asyncio.sleep(0)
            assert looked_up.calls == (1 if asked < lookups.SECOND_ASKS_MIN else 2)
    found = await asyncio.gather(*finds)
    assert [[each.aggregate.id for each in one.values()] for one in found] == [[made.id]] * (
        1 + lookups.SECOND_ASKS_MIN
    )
    assert looked_up.calls == 2


async def test_what_is_kept_is_brought_up_to_date(world: World, tenant_id: uuid.UUID, looked_up: Lookups) -> None:
    """By whichever process it was changed: this cache saw none of the appends."""
    product = await listed(world, tenant_id)
    for expected in (2, 3, 4):
        await repriced(world, product, expected)
        assert await price(looked_up, by_id(product)) == expected
        assert await price(looked_up, by_sku(tenant_id, "MUG")) == expected
    assert looked_up.kept_bytes > 0


async def test_a_database_that_was_restored_to_an_earlier_state_is_believed(
    world: World, tenant_id: uuid.UUID, looked_up: Lookups
) -> None:
    """A failover to a standby that lagged: events that never were would be built upon."""
    product = await listed(world, tenant_id)
    await repriced(world, product, 2)
    assert await price(looked_up, by_id(product)) == 2
    async with await owner_of(world) as owner:
        await owner.execute("DELETE FROM ledger.events WHERE originator_version = 2")
    assert await price(looked_up, by_id(product)) == 1
    assert await price(looked_up, by_sku(tenant_id, "MUG")) == 1


async def test_another_history_of_the_same_length_is_noticed_by_its_hash(
    world: World, tenant_id: uuid.UUID, looked_up: Lookups
) -> None:
    product = await listed(world, tenant_id)
    await repriced(world, product, 2)
    assert await price(looked_up, by_id(product)) == 2
    state = b'{"price":"9"}'
    async with await owner_of(world) as owner:
        await owner.execute(
            "UPDATE ledger.events SET state = %s, hash = sha256(hash) WHERE originator_version = 2", (state,)
        )
    assert await price(looked_up, by_id(product)) == 9


async def test_a_whole_stream_that_is_gone_is_gone(world: World, tenant_id: uuid.UUID, looked_up: Lookups) -> None:
    product = await listed(world, tenant_id)
    assert await price(looked_up, by_id(product)) == 1
    async with await owner_of(world) as owner:
        await owner.execute("DELETE FROM ledger.events")
        assert await price(looked_up, by_id(product)) is None
        await owner.execute("DELETE FROM ledger.reservations")
        assert await price(looked_up, by_sku(tenant_id, "MUG")) is None


async def test_a_reservation_that_found_another_holder_leads_there(
    world: World, tenant_id: uuid.UUID, looked_up: Lookups
) -> None:
    """The cup has more events than the mug, and the mug's are not taken for it."""
    mug, cup = await listed(world, tenant_id, "MUG"), await listed(world, tenant_id, "CUP")
    await repriced(world, cup, 7)
    assert await price(looked_up, by_sku(tenant_id, "MUG")) == 1
    async with await owner_of(world) as owner:
        for kept_first in (False, True):  # the cup is not known yet, then it is
            await owner.execute("UPDATE ledger.reservations SET owner = %s WHERE owner = %s", (cup.id, mug.id))
            assert await price(looked_up, by_sku(tenant_id, "MUG")) == 7
            await owner.execute(
                "UPDATE ledger.reservations SET owner = %s WHERE key = %s", (mug.id, by_sku(tenant_id, "MUG").key)
            )
            assert await price(looked_up, by_sku(tenant_id, "MUG")) == 1, kept_first


async def test_nobody_sees_what_another_asker_does_to_it(
    world: World, tenant_id: uuid.UUID, looked_up: Lookups
) -> None:
    """Commands change what they load before they know whether it will stand; a refund changes dictionaries inside."""
    product = await listed(world, tenant_id)
    line = transactions.LineWanted(product_id=product.id, sku="MUG", quantity=2, unit_price=Decimal(1))
    sale = transactions.record(
        id=ids.new_id(), tenant_id=tenant_id, lines=[line], currency="EUR", occurred_at=product.created_on
    )
    await world.ledger.append(caller(tenant_id), sale)
    wanted = Wanted(tenant_id.int, "", sale.id.bytes)
    for _ in range(2):
        found = (await looked_up.find([wanted]))[wanted].aggregate
        assert isinstance(found, transactions.Transaction)
        assert (found.refunded_quantities, found.pending_events, found.version) == ({}, [], 1)
        found.refund(ids.new_id(), None, reason=None, occurred_at=product.created_on, source=None, external_id=None)
        assert found.refunded_quantities == {1: 2}


async def test_what_is_kept_has_a_bound(
    world: World, tenant_id: uuid.UUID, looked_up: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await listed(world, tenant_id, f"S{n}") for n in range(8)]
    await looked_up.find([by_id(made[0])])
    one = looked_up.kept_bytes
    monkeypatch.setattr(lookups, "HOLDERS_KEPT_MAX", 2)
    connect = connections.connector(world.database.app_url, "app")
    codec, keyring = Codec(catalogue.AGGREGATES), Keyring(MASTER)
    async with lookups.running(connect, world.app, codec, keyring, kept_bytes_max=4 * one) as bounded:
        for _ in range(2):
            for each in made:
                assert await price(bounded, by_id(each)) == 1
                assert await price(bounded, by_sku(tenant_id, each.sku)) == 1
                assert bounded.kept_bytes <= 4 * one
        assert bounded.kept_bytes > 2 * one


async def test_nothing_about_a_person_is_kept(world: World, tenant_id: uuid.UUID, looked_up: Lookups) -> None:
    """Whoever is erased would live on in the cache of another process."""
    command = account_commands.Register(
        email="ann@example.com", name="Ann", password="correct horse", role=accounts.Role.USER
    )
    account = (await account_commands.register(command, caller(tenant_id), world.ledger, world.passwords)).aggregate
    wanted = Wanted(tenant_id.int, "", account.id.bytes)
    found = (await looked_up.find([wanted]))[wanted].aggregate
    assert isinstance(found, accounts.Account)
    assert found.email == "ann@example.com"
    assert looked_up.kept_bytes == 0


async def test_an_event_that_cannot_be_read_is_told_to_those_who_want_it_alone(
    world: World, tenant_id: uuid.UUID, looked_up: Lookups
) -> None:
    """A newer release wrote it: nobody else's sale fails because of that."""
    bad, good = await listed(world, tenant_id, "BAD"), await listed(world, tenant_id, "GOOD")
    async with await owner_of(world) as owner:
        await owner.execute("UPDATE ledger.events SET topic = 'product.painted' WHERE originator_id = %s", (bad.id,))
    found = await asyncio.gather(looked_up.find([by_id(bad)]), looked_up.find([by_id(good)]), return_exceptions=True)
    assert isinstance(found[0], errors.TopicUnknown)
    assert isinstance(found[1], dict)
    assert looked_up.calls == 1


async def test_a_lost_connection_is_made_anew(world: World, tenant_id: uuid.UUID, looked_up: Lookups) -> None:
    product = await listed(world, tenant_id)
    async with await owner_of(world) as owner:
        for _ in range(3):
            await owner.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'bitnexus app'"
            )
            async with asyncio.timeout(PATIENCE_S):
                assert await price(looked_up, by_id(product)) == 1


async def test_after_a_restart_no_query_gets_a_dead_connection(
    world: World, tenant_id: uuid.UUID, looked_up: Lookups
) -> None:
    """Each of the pool's would fail one reader, who did nothing wrong."""
    product = await listed(world, tenant_id)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(world.app.connection())
    async with await owner_of(world) as owner:
        await owner.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'bitnexus app'"
        )
    assert await price(looked_up, by_id(product)) == 1
    assert looked_up._checking is not None
    await looked_up._checking
    for _ in range(5):
        async with world.app.connection() as connection:
            await connection.execute("SELECT 1")


async def test_a_database_that_stays_away_is_told_and_found_again(world: World, tenant_id: uuid.UUID) -> None:
    product = await listed(world, tenant_id)
    away = False

    async def connect() -> AsyncConnection[TupleRow]:
        if away:
            raise psycopg.OperationalError("away")
        return await connections.connect(world.database.app_url, "app")

    looked_up = Lookups(connect, world.app, Codec(catalogue.AGGREGATES), Keyring(MASTER))
    looked_up._lane._recovery_s_max = 0.2  # the bound is the process's own; a test need not wait for it
    await looked_up.start()
    away = True
    async with await owner_of(world) as owner:
        await owner.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'bitnexus app'"
        )
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(errors.DatabaseAway):
            await looked_up.find([by_id(product)])
        away = False
        assert await price(looked_up, by_id(product)) == 1
    await looked_up.close()
