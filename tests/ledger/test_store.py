"""Load, append, reserve: what commands stand on."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from domain import accounts, products, transactions
from ledger import errors, ids
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
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
    with pytest.raises(errors.NotFound):
        await world.ledger.load(products.Product, ids.new_id(), product.id)


async def test_an_id_of_another_kind_is_not_found(world: World, tenant_id: UUID) -> None:
    product = mug(tenant_id)
    await world.ledger.append(caller(tenant_id), product)
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
    await world.ledger.append(caller(tenant_id), product, claims=[Claim("sku", "MUG", product.id)])
    found = await world.ledger.load_by(products.Product, tenant_id, "sku", ["MUG", "CUP"])
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
