"""A sale is decided upon the products that the process has at hand. Another process changes them: nobody is sold, or refused, what was."""

import asyncio
import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from commands import products, repeats, transactions
from domain import products as domain_products
from domain import transactions as domain_transactions
from ledger import errors, ids, lookups, packing
from ledger.appender import Appended
from ledger.lookups import Wanted
from ledger.optimistic import Optimistic
from ledger.packing import Command, Event, Read
from ledger.store import Ledger
from tests.commands.test_transactions import list_mug, sale
from tests.world import World, caller


@pytest_asyncio.fixture
async def mug(world: World, tenant_id: UUID) -> UUID:
    """Listed for 9.00, sold once: at hand."""
    product_id = await list_mug(world, tenant_id)
    await sell(world, tenant_id)
    return product_id


Calls = Callable[[], list[str]]


@pytest.fixture
def calls(world: World, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the database is asked for by look-ups, and appends of which kind, since the last time."""
    said: list[str] = []
    call, send = lookups.Lookups._call, packing.call

    def look(self: lookups.Lookups) -> None:
        said.append("look_up")
        call(self)

    def packed(commands: list[Command]) -> tuple[str, list[bytes]]:
        statement, parameters = send(commands)
        said.append(statement)
        return statement, parameters

    monkeypatch.setattr(lookups.Lookups, "_call", look)
    monkeypatch.setattr(packing, "call", packed)

    def since() -> list[str]:
        found = said.copy()
        said.clear()
        return found

    return since


async def sell(world: World, tenant_id: UUID, **changes: object) -> domain_transactions.Transaction:
    return (await transactions.record(sale(**changes), caller(tenant_id), world.ledger)).aggregate


async def reprice(product_id: UUID, tenant_id: UUID, ledger: Ledger, price: str) -> None:
    await products.reprice(products.Reprice(product_id=product_id, price=Decimal(price)), caller(tenant_id), ledger)


def price(sold: domain_transactions.Transaction) -> Decimal:
    return sold.lines[0].unit_price


async def test_what_is_at_hand_is_not_asked_for(world: World, tenant_id: UUID, mug: UUID, calls: Calls) -> None:
    by_id = [transactions.LineOrdered(product_id=mug, quantity=1)]
    assert price(await sell(world, tenant_id)) == price(await sell(world, tenant_id, lines=by_id)) == Decimal("9.00")
    assert calls() == ["append_validating", "append_validating"]


async def test_a_sale_after_a_change_elsewhere_has_the_new_price(
    world: World, tenant_id: UUID, mug: UUID, elsewhere: Ledger, calls: Calls
) -> None:
    """It costs an append and a look-up, once."""
    await reprice(mug, tenant_id, elsewhere, "8.00")
    calls()
    assert price(await sell(world, tenant_id)) == Decimal("8.00")
    assert calls() == ["append_validating", "look_up", "append_validating"]
    assert price(await sell(world, tenant_id)) == Decimal("8.00")
    assert calls() == ["append_validating"]


async def test_a_change_of_ones_own_is_looked_up_at_once(
    world: World, tenant_id: UUID, mug: UUID, calls: Calls
) -> None:
    await reprice(mug, tenant_id, world.ledger, "8.00")
    calls()
    assert price(await sell(world, tenant_id)) == Decimal("8.00")
    assert calls() == ["look_up", "append_validating"]


async def test_what_was_retired_elsewhere_is_not_sold(
    world: World, tenant_id: UUID, mug: UUID, elsewhere: Ledger
) -> None:
    before = await world.ledger.head(tenant_id)
    await products.retire(products.Retire(product_id=mug), caller(tenant_id), elsewhere)
    with pytest.raises(transactions.ProductNotSold):
        await sell(world, tenant_id)
    assert (await world.ledger.head(tenant_id)).position == before.position + 1


async def test_nobody_is_refused_by_what_was(world: World, tenant_id: UUID, mug: UUID, elsewhere: Ledger) -> None:
    """Who may not set prices names the new one."""
    await reprice(mug, tenant_id, elsewhere, "8.00")
    lines = [transactions.LineOrdered(sku="MUG", quantity=1, unit_price=Decimal("8.00"))]
    assert price(await sell(world, tenant_id, lines=lines)) == Decimal("8.00")


async def test_who_is_refused_by_what_is_has_that_stored(
    world: World, tenant_id: UUID, mug: UUID, elsewhere: Ledger
) -> None:
    """And the second sending the same words."""
    lines = [transactions.LineOrdered(sku="MUG", quantity=1, unit_price=Decimal("8.00"))]
    by = caller(tenant_id, fingerprint=b"the same request".ljust(32))
    with pytest.raises(transactions.PriceNotTheCatalogues):
        await transactions.record(sale(lines=lines), by, world.ledger)
    await reprice(mug, tenant_id, elsewhere, "8.00")
    with pytest.raises(errors.RefusedBefore, match="is 9"):
        await transactions.record(sale(lines=lines), by, world.ledger)


async def test_who_is_refused_by_the_append_is_not_decided_again(
    world: World, tenant_id: UUID, mug: UUID, calls: Calls
) -> None:
    """What was read stood."""
    await sell(world, tenant_id, source="shop", external_id="1")
    calls()
    with pytest.raises(transactions.ExternalIdTaken):
        await sell(world, tenant_id, source="shop", external_id="1")
    assert calls() == ["append_validating"]


async def test_a_repeat_after_a_change_elsewhere_is_the_first_sale(
    world: World, tenant_id: UUID, mug: UUID, elsewhere: Ledger
) -> None:
    by = caller(tenant_id)
    first = await transactions.record(sale(), by, world.ledger)
    await reprice(mug, tenant_id, elsewhere, "8.00")
    second = await transactions.record(sale(), by, world.ledger)
    assert (second.replayed, second.aggregate.id, second.position) == (True, first.aggregate.id, first.position)
    await products.retire(products.Retire(product_id=mug), caller(tenant_id), elsewhere)
    assert (await transactions.record(sale(), by, world.ledger)).replayed


def reading(world: World, tenant_id: UUID, id: UUID, now: bool = True) -> Command:
    """It appends nothing, and was decided upon what is at hand, or what is not there."""
    known = world.lookups.at_hand([Wanted(tenant_id.int, "", id.bytes)]) or {}
    ((hash,),) = [[each.hash] for each in known.values()]
    return Command(
        tenant_id, ids.new_id(), b"", b"[]", [], reads=[Read(b"", b"", id.bytes, hash if now else bytes(32))]
    )


async def test_others_of_the_same_flush_are_appended(world: World, tenant_id: UUID, mug: UUID, calls: Calls) -> None:
    """One that reads the same as it is, one that reads nothing, and one of another tenant."""
    other = ids.new_id()
    await world.ledger.open_stream(other)
    nothing = [Command(each, ids.new_id(), b"", b"[]", []) for each in (tenant_id, other)]
    outdated, standing = (reading(world, tenant_id, mug, now=now) for now in (False, True))
    calls()
    sent = [world.appender.submit(each) for each in (nothing[0], outdated, standing, nothing[1])]
    found = await asyncio.gather(*sent, return_exceptions=True)
    assert [type(each) for each in found] == [Appended, errors.ReadOutdated, Appended, Appended]
    assert calls() == ["append_validating", "append_validating"]
    assert [
        await world.ledger.recall(domain_products.Product, caller(tenant_id, each.command_id)) for each in (outdated,)
    ] == [None]


async def test_each_sale_has_the_price_that_stands_before_it_in_the_stream(
    world: World, tenant_id: UUID, mug: UUID, elsewhere: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amid changes, as often as it takes: a look-up before the append would let some have the price before the last one."""
    monkeypatch.setattr(repeats, "DECIDED_MAX", 1_000)
    sold_out = asyncio.Event()

    async def change() -> None:
        for number in itertools.count(1):
            await reprice(mug, tenant_id, elsewhere, f"{number}.00")
            await asyncio.sleep(0.005)
            if sold_out.is_set():
                return

    async def sales() -> None:
        for _ in range(30):
            await sell(world, tenant_id)

    changing = asyncio.create_task(change())
    await asyncio.gather(*(sales() for _ in range(5)))
    sold_out.set()
    await changing
    stands, prices = Decimal("9.00"), list[Decimal]()
    for event in await events(world, tenant_id, 2):
        if isinstance(event, domain_products.Product.Repriced):
            stands = event.price
        else:
            assert event.lines[0].unit_price == stands
            prices.append(stands)
    assert (len(prices), len(set(prices)) > 3) == (150, True)  # amid them indeed


async def test_changes_without_end_refuse_no_sale(
    world: World, tenant_id: UUID, mug: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One before each append."""
    submit, changes = world.appender.submit, itertools.count(1)

    def change_first(command: Command) -> "asyncio.Future[Appended]":
        if command.events and command.events[0].topic == b"transaction.recorded":
            version = 1 + next(changes)
            event = Event(mug.bytes, version, b"product.repriced", b'{"price":"8.00"}', b"{}")
            submit(Command(tenant_id, ids.new_id(), b"", b"[]", [event]))
        return submit(command)

    monkeypatch.setattr(world.appender, "submit", change_first)
    await sell(world, tenant_id)
    assert next(changes) == 1 + repeats.DECIDED_MAX


async def events(world: World, tenant_id: UUID, after: int) -> list[Any]:
    codec = world.ledger.codec
    found = []
    for entry in await world.ledger.entries(tenant_id, after, 5_000):
        id, version = entry.originator_id, entry.originator_version
        parsed = codec.parse(entry.topic, id, version, entry.state)
        found.append(codec.finish(tenant_id, id, version, entry.recorded_at, parsed, {}))
    return found


async def test_one_who_ends_sessions_meanwhile_goes_by_another_call(
    world: World, tenant_id: UUID, mug: UUID, calls: Calls
) -> None:
    """None of the three is left out, in the order in which they came."""
    revoking = Command(tenant_id, ids.new_id(), b"", b"[]", [], revocations=[(ids.new_id().bytes, True)])
    read = [reading(world, tenant_id, mug) for _ in range(2)]
    calls()
    await asyncio.gather(*(world.appender.submit(each) for each in (read[0], revoking, read[1])))
    assert calls() == ["append_validating", "append_revoking", "append_validating"]


async def test_who_reads_cannot_erase_or_revoke_with_it(world: World, tenant_id: UUID, mug: UUID) -> None:
    """No statement does both; what is queued goes in one."""
    for other in ({"revocations": [(ids.new_id().bytes, True)]}, {"erasures": [ids.new_id().bytes]}):
        with pytest.raises(ValueError, match="one or the other"):
            world.appender.submit(reading(world, tenant_id, mug)._replace(**other))


async def test_what_is_appended_to_is_not_read(world: World, tenant_id: UUID, mug: UUID) -> None:
    """Its version says as much."""
    at_hand = Optimistic(world.ledger, asks=False)
    product = await at_hand.load(domain_products.Product, tenant_id, mug)
    assert at_hand.guessed
    product.reprice(Decimal("7.00"))
    await at_hand.append(caller(tenant_id), product)
    assert price(await sell(world, tenant_id)) == Decimal("7.00")


async def test_what_a_database_had_that_was_replaced_is_not_sold(
    world: World, tenant_id: UUID, mug: UUID, calls: Calls
) -> None:
    """The hash says so: what is at hand has the same version."""
    kept = world.lookups._kept
    kept[(tenant_id.int, mug.bytes)] = kept[(tenant_id.int, mug.bytes)]._replace(hash=bytes(32))
    calls()
    assert price(await sell(world, tenant_id)) == Decimal("9.00")
    assert calls() == [
        "append_validating",
        "look_up",
        "look_up",
        "append_validating",
    ]  # the first look-up finds it, too
