"""Two installations and a tenant to move between them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from decimal import Decimal

import pytest
import pytest_asyncio

from bitnexus.moving import passphrase
from bitnexus.process import Process
from commands import accounts, products, tenants, transactions
from domain.tenants import PLATFORM_ID
from tests.bitnexus.moving.homes import (
    NOW,
    OTHER_MASTER,
    PASSWORD,
    Home,
    Shop,
)
from tests.world import MASTER, Database, caller


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of everything else must not spend their time on it."""
    monkeypatch.setattr(passphrase, "SCRYPT_N", 16)


@pytest.fixture
def home(database: Database) -> Home:
    return Home(database, MASTER)


@pytest.fixture
def away(new_database: Callable[[], AbstractContextManager[Database]]) -> Iterator[Home]:
    """Another installation, with another master key and its platform."""
    with new_database() as database:
        home = Home(database, OTHER_MASTER)

        async def begin() -> None:
            async with home.running() as parts:
                await tenants.ensure_platform(parts.ledger)

        asyncio.run(begin())
        yield home


@pytest_asyncio.fixture
async def parts(home: Home) -> AsyncIterator[Process]:
    async with home.running() as parts:
        yield parts


@pytest_asyncio.fixture
async def shop(parts: Process) -> Shop:
    """Something of everything that reserves, names a person or is a secret."""
    ledger = parts.ledger
    await tenants.ensure_platform(ledger)
    create = tenants.Create(
        slug="shop",
        name="The Shop",
        currency="EUR",
        admin_email="ann@shop.example",
        admin_name="Ann",
        admin_password=PASSWORD,
    )
    made = await tenants.create(create, caller(PLATFORM_ID), ledger, parts.passwords)
    tenant_id = made.aggregate.id
    account_id = (await ledger.find(tenant_id, accounts.EMAIL, ["ann@shop.example"]))["ann@shop.example"]
    for sku in ("MUG", "LAMP"):
        product = products.ListProduct(sku=sku, name=sku.title(), price=Decimal("9.50"))
        await products.list_product(product, caller(tenant_id), ledger)
    mug = transactions.LineOrdered(sku="MUG", quantity=3)
    sale = transactions.Record(
        lines=[mug], sets_prices=False, buyer_ref="17850", source="till", external_id="1", occurred_at=NOW
    )
    recorded = await transactions.record(sale, caller(tenant_id), ledger)
    again = transactions.Record(lines=[mug], sets_prices=False, buyer_ref="17850", occurred_at=NOW)
    await transactions.record(again, caller(tenant_id), ledger)
    refund = transactions.Refund(
        transaction_id=recorded.aggregate.id,
        lines=[transactions.RefundLineOrdered(line_id=1, quantity=1)],
        source="till",
        external_id="2",
        occurred_at=NOW,
    )
    await transactions.refund(refund, caller(tenant_id), ledger)
    unmatched = transactions.RecordRefund(
        lines=[transactions.LineOrdered(sku="GONE", quantity=1, unit_price=Decimal(2))],
        currency="EUR",
        buyer_ref="12345",
        source="till",
        external_id="3",
        occurred_at=NOW,
    )
    await transactions.record_refund(unmatched, caller(tenant_id), ledger)
    buyer_id = await ledger.subject(tenant_id, transactions.BUYER, "17850")
    return Shop(tenant_id, account_id, recorded.aggregate.id, buyer_id)
