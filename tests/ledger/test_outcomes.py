"""What became of a command is stored with its id, a refusal so that only its repeat can read it."""

import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
import psycopg
import pytest
from cryptography.exceptions import InvalidTag

from bitnexus import database as connections
from domain import catalogue, products
from ledger import errors, ids, lookups, outcomes
from ledger.appender import Appender
from ledger.caller import Caller
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.store import Ledger
from ledger.waker import Waker
from tests.ledger.test_store import mug
from tests.world import MASTER, World

SAID = outcomes.Refused("invalid", "The address is not one: 'ann@b.example'. Check it.", {"email": ["Check it."]})
OTHERWISE = outcomes.Refused("not-found", "There is no such thing.", {})


def asking(tenant_id: UUID, asked: bytes = b"request") -> Caller:
    """Whoever sends that under an idempotency key, always the same one."""
    return Caller(
        tenant_id=tenant_id,
        actor_id=None,
        role="admin",
        command_id=ids.derived_id(b"a key"),
        fingerprint=MASTER.fingerprint(asked),
        asked=asked,
    )


@contextlib.asynccontextmanager
async def another_process(world: World) -> AsyncIterator[Ledger]:
    """A ledger with an appender of its own over the same database."""
    url = world.database.app_url
    connect, codec, keyring = connections.connector(url, "app"), Codec(catalogue.AGGREGATES), Keyring(MASTER)
    appender = Appender(connect, Waker(connect))
    await appender.start()
    async with (
        connections.pool(url, "app", 2) as pool,
        lookups.running(connect, pool, codec, keyring) as looks,
    ):
        yield Ledger(pool, appender, looks, codec, keyring)
    await appender.close()


def same(raised: pytest.ExceptionInfo[errors.RefusedBefore], refused: outcomes.Refused = SAID) -> None:
    error = raised.value
    assert (error.kept_as, str(error), error.fields) == (refused.kept_as, refused.detail, refused.fields)


async def test_a_refusal_is_what_every_repeat_gets(world: World, tenant_id: UUID) -> None:
    """Also one that would be done by now, or be refused for another reason."""
    ledger, asks = world.ledger, asking(tenant_id)
    assert not await ledger.is_stored(asks)
    assert await ledger.refuse(products.Product, asks, SAID) is None
    assert await ledger.is_stored(asks)
    with pytest.raises(errors.RefusedBefore) as appended:
        await ledger.append(asks, mug(tenant_id))
    with pytest.raises(errors.RefusedBefore) as recalled:
        await ledger.recall(products.Product, asks)
    with pytest.raises(errors.RefusedBefore) as refused:
        await ledger.refuse(products.Product, asks, OTHERWISE)
    for each in (appended, recalled, refused):
        same(each)
    assert (await ledger.head(tenant_id)).position == 0


@pytest.mark.parametrize("refused_first", [True, False])
async def test_two_processes_give_one_answer_where_one_refuses_and_the_other_does_it(
    world: World, tenant_id: UUID, refused_first: bool
) -> None:
    asks = asking(tenant_id)
    async with another_process(world) as other:
        if refused_first:
            assert await other.refuse(products.Product, asks, SAID) is None
            with pytest.raises(errors.RefusedBefore) as raised:
                await world.ledger.append(asks, mug(tenant_id))
            same(raised)
        else:
            done = await other.append(asks, product := mug(tenant_id))
            told = await world.ledger.refuse(products.Product, asks, SAID)
            assert told is not None
            assert (told.aggregate.id, told.position, told.replayed) == (product.id, done.position, True)
    assert (await world.ledger.head(tenant_id)).position == (0 if refused_first else 1)


async def test_another_request_under_the_key_of_a_refused_one_is_told_so(world: World, tenant_id: UUID) -> None:
    await world.ledger.refuse(products.Product, asking(tenant_id), SAID)
    other = asking(tenant_id, b"another request")
    with pytest.raises(errors.CommandIdReused):
        await world.ledger.append(other, mug(tenant_id))
    with pytest.raises(errors.CommandIdReused):
        await world.ledger.recall(products.Product, other)
    with pytest.raises(errors.CommandIdReused):
        await world.ledger.refuse(products.Product, other, SAID)


async def test_a_stored_refusal_shows_nothing_of_what_was_sent(world: World, tenant_id: UUID) -> None:
    """What is in the database must not outlive the erasure of a person, and whoever has it all, and the master key, has not the
    request. Nor can a row be put in the place of another."""
    asks = asking(tenant_id)
    await world.ledger.refuse(products.Product, asks, SAID)
    with psycopg.connect(world.database.owner_url) as owner:
        ((stored,),) = owner.execute("SELECT outcome FROM ledger.commands WHERE fingerprint <> ''").fetchall()
        (row,) = owner.execute("SELECT k::text FROM ledger.commands k WHERE fingerprint <> ''").fetchone() or ("",)
    assert b"ann" not in stored
    assert b"ann@b".hex() not in row
    with pytest.raises(errors.RefusedBefore):
        outcomes.read(MASTER, asks, stored)
    for change in (
        {"asked": b""},
        {"asked": asks.fingerprint},
        {"tenant_id": ids.new_id()},
        {"command_id": ids.new_id()},
    ):
        with pytest.raises(InvalidTag):
            outcomes.read(MASTER, msgspec.structs.replace(asks, **change), stored)


async def test_a_tenant_without_a_stream_stores_nothing(world: World) -> None:
    with pytest.raises(errors.TenantUnknown):
        await world.ledger.refuse(products.Product, asking(ids.new_id()), SAID)


async def test_what_was_stored_before_refusals_were_is_still_an_answer(world: World, tenant_id: UUID) -> None:
    """The records of the last day are there when a new release takes over."""
    product, asks = mug(tenant_id), asking(tenant_id)
    await world.ledger.append(asks, product)
    with psycopg.connect(world.database.owner_url) as owner:
        ((stored,),) = owner.execute("SELECT outcome FROM ledger.commands WHERE fingerprint <> ''").fetchall()
    assert stored == b'["%b",1]' % str(product.id).encode()
    assert outcomes.read(MASTER, asks, stored) == outcomes.Stands(product.id, 1)
