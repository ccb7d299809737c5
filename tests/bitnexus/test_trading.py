"""What a demo makes up while it serves."""

import asyncio
import random

import pytest

from bitnexus import trading
from bitnexus.trading import Trade
from commands import tenants
from domain.transactions import Transaction
from tests.api import house
from tests.api.house import PATIENCE_S, House
from tests.world import World


@pytest.fixture
async def shop(world: World) -> House:
    await tenants.ensure_platform(world.ledger)
    made = await house.build(world, "alpha")
    for sku in ("MUG", "CUP", "POT"):
        await made.lists(sku)
    return made


def trade_in(shop: House) -> Trade:
    products, buyers, affiliates = ("MUG", "CUP", "POT"), (shop.user.id, None), (shop.affiliate.id, None)
    return Trade(shop.ledger, shop.id, products, buyers, affiliates, random.Random(1))


async def recorded(shop: House) -> list[Transaction]:
    """All sales, in the order of their recording."""
    head = await shop.ledger.head(shop.id)
    entries = await shop.ledger.entries(shop.id, 0, head.position)
    ids = dict.fromkeys(each.originator_id for each in entries if each.topic == "transaction.recorded")
    return list((await shop.ledger.load_many(Transaction, shop.id, list(ids))).values())


async def test_sales_of_all_kinds_happen_and_refunds_whole_and_in_part(shop: House) -> None:
    """So that whoever looks, whichever account it is, sees each kind within a minute or two."""
    trade = trade_in(shop)
    for _ in range(60):
        await trade.happens()
    sales = await recorded(shop)
    assert {sale.buyer_id for sale in sales} == {shop.user.id, None}
    assert {sale.affiliate_id for sale in sales} == {shop.affiliate.id, None}
    assert {str(sale.status) for sale in sales} == {"recorded", "partly_refunded", "refunded"}


async def test_a_refused_sale_does_not_end_the_trade_and_a_suspended_tenant_does_not_sell(
    shop: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever tries the demo retires products and suspends tenants; neither is worth a word in the log."""
    monkeypatch.setattr(Trade, "pause_s", lambda self, lasted_s: 0.01)
    trade = trade_in(shop)
    trade._products = ("NOTHING", "MUG", "CUP")
    async with trading.running(trade), asyncio.timeout(PATIENCE_S):
        while len(await recorded(shop)) < 5:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
        shop.ledger.revocations.learn(shop.id, shop.id, True)
        await asyncio.sleep(0.1)  # one that was under way ends
        before = await shop.ledger.head(shop.id)
        await asyncio.sleep(0.2)
        assert await shop.ledger.head(shop.id) == before
    assert [each.message for each in caplog.records if each.name == trading.__name__] == []


def test_a_demo_that_nobody_ends_calms_down() -> None:
    """Or the disk of whoever forgot it fills."""
    trade = Trade(None, None, (), (), (), random.Random(1))  # type: ignore[arg-type]  # asked for its pauses alone
    pauses = [trade.pause_s(lasted_s) for lasted_s in (0.0, trading.LIVELY_S)]
    assert 1.0 <= pauses[0] <= 4.0 < 20.0 <= pauses[1]
