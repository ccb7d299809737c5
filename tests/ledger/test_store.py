"""Load, append, reserve: what commands stand on."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from domain import accounts, products, transactions
from ledger import errors, ids
from ledger.caller import Caller
from ledger.codec import ERASED
from ledger.store import Claim, Secret
from tests.world import World, caller


def mug(tenant_id: UUID, sku: str = "MUG") -> products.Product:
    return products.list_product(
        id=ids.new_id(), tenant_id=tenant_id, sku=sku, name="Mug", price=Decimal("9.00"), currency="EUR"
    )


async def test_an_appended_aggregate_is_loaded_as_it_was_decided(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    product.reprice(Decimal("9.50"))
    receipt = await world.ledger.append(caller(tenant_id), product)
    loaded = await world.ledger.load(products.Product, tenant_id, product.id)
    assert (receipt.position, receipt.replayed) == (2, False)
    assert (loaded.price, loaded.name, loaded.version) == (Decimal("9.50"), "Mug", 2)
    assert (loaded.created_on, loaded.modified_on) == (receipt.recorded_at, receipt.recorded_at)
    assert receipt.aggregate.created_on == receipt.recorded_at


async def test_an_earlier_version_is_as_it_was_then(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
    product.rename("Cup")
    await world.ledger.append(caller(tenant_id), product)
    assert (await world.ledger.load(products.Product, tenant_id, product.id, version=1)).name == "Mug"


async def test_another_tenants_aggregate_is_not_found(world: World, tenant_id: UUID) -> None:
    """Not even after the process has read it for the tenant whose it is."""
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
    assert (await world.ledger.load(products.Product, tenant_id, product.id)).id == product.id
    with pytest.raises(errors.NotFound):
        await world.ledger.load(products.Product, ids.new_id(), product.id)


async def test_an_id_of_another_kind_is_not_found(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
    assert (await world.ledger.load(products.Product, tenant_id, product.id)).id == product.id
    with pytest.raises(errors.NotFound):
        await world.ledger.load(accounts.Account, tenant_id, product.id)


async def test_who_decides_on_an_old_version_is_refused_and_writes_nothing(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
    one = await world.ledger.load(products.Product, tenant_id, product.id)
    two = await world.ledger.load(products.Product, tenant_id, product.id)
    one.reprice(Decimal("10.00"))
    two.reprice(Decimal("11.00"))
    await world.ledger.append(caller(tenant_id), one)
    with pytest.raises(errors.VersionConflict):
        await world.ledger.append(caller(tenant_id), two)
    assert (await world.ledger.load(products.Product, tenant_id, product.id)).price == Decimal("10.00")
    assert (await world.ledger.head(tenant_id)).position == 2


async def test_a_reservation_is_taken_once_found_and_given_back(world: World, tenant_id: UUID) -> None:
    first, second = mug(tenant_id), mug(tenant_id)
    claim = Claim("sku", "MUG", first.id)
    await world.ledger.append(caller(tenant_id), first, claims=[claim])
    with pytest.raises(errors.ReservationTaken) as refused:
        await world.ledger.append(caller(tenant_id), second, claims=[Claim("sku", "MUG", second.id)])
    assert (refused.value.kind, refused.value.owner) == ("sku", first.id)
    assert await world.ledger.find(tenant_id, "sku", ["MUG", "CUP"]) == {"MUG": first.id}
    first.retire()
    await world.ledger.append(caller(tenant_id), first, releases=[claim])
    await world.ledger.append(caller(tenant_id), second, claims=[Claim("sku", "MUG", second.id)])
    assert await world.ledger.find(tenant_id, "sku", ["MUG"]) == {"MUG": second.id}


async def test_holders_are_loaded_by_their_reservations(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    claims = [Claim(kind, "MUG", product.id) for kind in ("sku", "label")]
    await world.ledger.append(caller(tenant_id), product, claims=claims)
    for kind in ("sku", "label"):
        found = await world.ledger.load_by(products.Product, tenant_id, kind, ["MUG", "CUP"])
        assert {key: each.id for key, each in found.items()} == {"MUG": product.id}


async def test_a_repeated_command_is_answered_with_its_first_outcome(world: World, tenant_id: UUID) -> None:
    command_id = ids.new_id()
    first = await world.ledger.append(caller(tenant_id, command_id, b"a"), mug(tenant_id))
    again = await world.ledger.append(caller(tenant_id, command_id, b"a"), mug(tenant_id))
    assert (again.replayed, again.aggregate.id, again.position) == (True, first.aggregate.id, first.position)
    assert (await world.ledger.head(tenant_id)).position == 1


async def test_a_command_id_used_for_something_else_is_refused(world: World, tenant_id: UUID) -> None:
    command_id = ids.new_id()
    await world.ledger.append(caller(tenant_id, command_id, b"a"), mug(tenant_id))
    with pytest.raises(errors.CommandIdReused):
        await world.ledger.append(caller(tenant_id, command_id, b"b"), mug(tenant_id))


async def test_a_command_that_decides_nothing_is_remembered_all_the_same(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
    product.reprice(product.price)
    command_id = ids.new_id()
    first = await world.ledger.append(caller(tenant_id, command_id), product)
    again = await world.ledger.append(caller(tenant_id, command_id), product)
    assert (first.position, first.replayed, again.replayed) == (1, False, True)


async def test_a_tenant_without_a_stream_is_refused(world: World) -> None:
    unknown = ids.new_id()
    with pytest.raises(errors.TenantUnknown):
        await world.ledger.append(caller(unknown), mug(unknown))


async def test_secrets_are_written_replaced_and_deleted_with_the_command(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product, secrets=[Secret(product.id, "password", b"one")])
    assert await world.ledger.secret(tenant_id, product.id, "password") == b"one"
    await world.ledger.append(caller(tenant_id), product, secrets=[Secret(product.id, "password", b"two")])
    assert await world.ledger.secret(tenant_id, product.id, "password") == b"two"
    await world.ledger.append(caller(tenant_id), product, secrets=[Secret(product.id, "password", None)])
    assert await world.ledger.secret(tenant_id, product.id, "password") is None


async def test_personal_data_are_ciphertext_in_the_stream_and_clear_to_readers(world: World, tenant_id: UUID) -> None:
    account = accounts.register(
        id=ids.new_id(), tenant_id=tenant_id, email="ann@example.com", name="Ann Archer", role="user"
    )
    await world.ledger.append(caller(tenant_id), account)
    (entry,) = await world.ledger.entries(tenant_id, 0, 10)
    assert b"ann@" not in entry.state
    assert b"Archer" not in entry.state
    loaded = await world.ledger.load(accounts.Account, tenant_id, account.id)
    assert (loaded.email, loaded.name) == ("ann@example.com", "Ann Archer")


async def test_a_buyers_reference_has_one_subject(world: World, tenant_id: UUID) -> None:
    subject = await world.ledger.subject(tenant_id, "buyer", "17850")
    assert await world.ledger.subjects(tenant_id, "buyer", ["17850"]) == {"17850": subject}
    product_id = ids.new_id()
    sale = transactions.record(
        id=ids.new_id(),
        tenant_id=tenant_id,
        lines=[transactions.LineWanted(product_id=product_id, sku="MUG", quantity=2, unit_price=Decimal("9"))],
        currency="EUR",
        occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
        buyer_subject_id=subject,
        buyer_ref="17850",
    )
    await world.ledger.append(caller(tenant_id), sale)
    (entry,) = await world.ledger.entries(tenant_id, 0, 10)
    assert b"17850" not in entry.state
    assert (await world.ledger.load(transactions.Transaction, tenant_id, sale.id)).buyer_ref == "17850"


async def test_a_buyer_who_is_erased_while_a_sale_asks_gets_a_new_subject(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sale must not fail for it, nor be recorded under who was erased."""
    old = await world.ledger.subject(tenant_id, "buyer", "17850")
    make = world.ledger.keyring.make

    async def erased_meanwhile(*asked: Any) -> Any:
        monkeypatch.setattr(world.ledger.keyring, "make", make)
        await world.ledger.append(caller(tenant_id), mug(tenant_id), erases=[old])
        return await make(*asked)

    monkeypatch.setattr(world.ledger.keyring, "make", erased_meanwhile)
    new = await world.ledger.subject(tenant_id, "buyer", "17850")
    assert new != old
    assert await world.ledger.known_subject(tenant_id, "buyer", "17850") == new


async def test_a_version_that_there_is_not_yet_is_not_found(world: World, tenant_id: UUID) -> None:
    """Whoever asks for version 2 must not be shown version 1 as if it were it."""
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
    with pytest.raises(errors.NotFound):
        await world.ledger.load(products.Product, tenant_id, product.id, version=2)


async def test_what_was_decided_and_not_appended_is_seen_by_nobody(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
    for _ in range(2):
        loaded = await world.ledger.load(products.Product, tenant_id, product.id)
        assert (loaded.price, loaded.version, loaded.metadata) == (Decimal("9.00"), 1, {})
        loaded.reprice(Decimal("1.00"))
        loaded.metadata["till"] = 3
    found = await world.ledger.load_many(products.Product, tenant_id, [product.id])
    assert found[product.id].price == Decimal("9.00")


async def test_several_aggregates_are_appended_together_or_not_at_all(world: World, tenant_id: UUID) -> None:
    one, two = mug(tenant_id, "ONE"), mug(tenant_id, "TWO")
    receipt = await world.ledger.append(caller(tenant_id), one, two)
    assert (receipt.aggregate.id, receipt.position) == (one.id, 2)
    assert set(await world.ledger.load_many(products.Product, tenant_id, [one.id, two.id])) == {one.id, two.id}
    stale = await world.ledger.load(products.Product, tenant_id, two.id)
    two.rename("Cup")
    await world.ledger.append(caller(tenant_id), two)
    one.rename("Cup")
    stale.rename("Beaker")
    with pytest.raises(errors.VersionConflict):
        await world.ledger.append(caller(tenant_id), one, stale)
    assert (await world.ledger.load(products.Product, tenant_id, one.id)).name == "Mug"


async def test_a_receipts_times_are_the_recorded_ones(world: World, tenant_id: UUID) -> None:
    """An answer is rendered from it, and must not differ from what is read later."""
    product = mug(tenant_id)
    first = await world.ledger.append(caller(tenant_id), product)
    assert first.aggregate.modified_on == first.recorded_at
    product.rename("Cup")
    second = await world.ledger.append(caller(tenant_id), product)
    assert (product.created_on, product.modified_on) == (first.recorded_at, second.recorded_at)
    third = await world.ledger.append(caller(tenant_id), product)
    assert (third.aggregate.modified_on, third.position) == (second.recorded_at, 2)


async def test_a_repeat_is_answered_as_it_was_then(world: World, tenant_id: UUID) -> None:
    product, asks = mug(tenant_id), caller(tenant_id)
    first = await world.ledger.append(asks, product)
    product.rename("Cup")
    await world.ledger.append(caller(tenant_id), product)
    again = await world.ledger.append(asks, mug(tenant_id))
    recalled = await world.ledger.recall(products.Product, asks)
    assert recalled is not None
    for each in (again, recalled):
        assert (each.aggregate.id, each.aggregate.name, each.aggregate.version) == (product.id, "Mug", 1)
        assert (each.replayed, each.position, each.recorded_at) == (True, first.position, first.recorded_at)
    assert await world.ledger.recall(products.Product, caller(tenant_id)) is None


async def test_who_asked_stands_beside_every_event_under_its_hash(world: World, tenant_id: UUID) -> None:
    """And 128 random bits, without which an event could be guessed from its hash."""
    asks = Caller(
        tenant_id=tenant_id,
        actor_id=ids.new_id(),
        role="admin",
        command_id=ids.new_id(),
        correlation_id=ids.new_id(),
        causation_id=ids.new_id(),
        request_id="r-1",
    )
    product = mug(tenant_id)
    product.rename("Cup")
    await world.ledger.append(asks, product)
    stored = [msgspec.json.decode(entry.metadata) for entry in await world.ledger.entries(tenant_id, 0, 10)]
    one, two = (each.pop("event_id") for each in stored)
    assert one != two
    assert [len(bytes.fromhex(each)) for each in (one, two)] == [16, 16]
    told = {"actor_id", "command_id", "correlation_id", "causation_id"}
    assert stored == [{"role": "admin", "request_id": "r-1", **{name: str(getattr(asks, name)) for name in told}}] * 2


async def test_holders_of_another_kind_are_left_out(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product, claims=[Claim("sku", "MUG", product.id)])
    assert await world.ledger.load_by(accounts.Account, tenant_id, "sku", ["MUG"]) == {}
    assert await world.ledger.load_by(products.Product, tenant_id, "external", ["MUG"]) == {}
    assert await world.ledger.load_many(accounts.Account, tenant_id, [product.id]) == {}


async def test_keys_secrets_and_references_of_one_tenant_are_nothing_to_another(world: World, tenant_id: UUID) -> None:
    other = ids.new_id()
    await world.ledger.open_stream(other)
    product = mug(tenant_id)
    claim, secret = Claim("sku", "MUG", product.id), Secret(product.id, "password", b"one")
    await world.ledger.append(caller(tenant_id), product, claims=[claim], secrets=[secret])
    subject = await world.ledger.subject(tenant_id, "buyer", "17850")
    assert await world.ledger.find(other, "sku", ["MUG"]) == {}
    assert await world.ledger.load_by(products.Product, other, "sku", ["MUG"]) == {}
    assert await world.ledger.load_many(products.Product, other, [product.id]) == {}
    assert await world.ledger.secret(other, product.id, "password") is None
    assert await world.ledger.secret_kinds(other, product.id) == []
    assert await world.ledger.known_subject(other, "buyer", "17850") is None
    assert await world.ledger.subject(other, "buyer", "17850") != subject
    theirs = mug(other)
    await world.ledger.append(caller(other), theirs, claims=[Claim("sku", "MUG", theirs.id)])
    assert await world.ledger.find(tenant_id, "sku", ["MUG"]) == {"MUG": product.id}


async def test_who_was_erased_is_not_read_from_anything_that_is_held(world: World, tenant_id: UUID) -> None:
    """Read before, so that a process may hold keys and aggregates of the person."""
    account = accounts.register(id=ids.new_id(), tenant_id=tenant_id, email="a@b.example", name="Ann", role="user")
    await world.ledger.append(caller(tenant_id), account)
    assert (await world.ledger.load(accounts.Account, tenant_id, account.id)).name == "Ann"
    await world.ledger.append(caller(tenant_id), mug(tenant_id), erases=[account.id])
    for version in (None, 1):
        assert (await world.ledger.load(accounts.Account, tenant_id, account.id, version)).name == ERASED
