"""What the feed tells of events whose rows are not, or not yet, as the event made them."""

import dataclasses

import pytest

from api.feed import messages
from bitnexus import database as connections
from projections import positions
from tests.api.house import House, Served
from tests.world import World


async def test_views_of_an_earlier_moment_are_waited_for_and_not_told(served: Served, a: House, world: World) -> None:
    """After a crash of the database: else a listener would never hear of what they do not show yet."""
    reached = positions.Reached(connections.connector(world.database.app_url, "projector"))
    parts = dataclasses.replace(served.parts, reached=reached)
    await a.lists("MUG")
    await served.views_reach(a)
    async with world.projector.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM views.positions WHERE tenant_id = %s FOR UPDATE", (a.id,))
        before = (await a.ledger.head(a.id)).position
        await a.lists("CUP")
        entries = await a.ledger.entries(a.id, before, 10)
        reached.moved(a.id, "products", entries[-1].position)
        with pytest.raises(positions.ViewBehind):
            await messages.of(parts, a.id, entries)
        assert reached.at(a.id, "products") == 0
    assert [message.name for message in await messages.of(parts, a.id, entries)] == ["product_listed"]
    await reached.close()


async def test_a_refund_that_its_view_has_parked_is_not_told_with_the_sale_as_it_was(
    served: Served, a: House, world: World
) -> None:
    sale = await a.sells(await a.lists(), buyer=a.user)
    before = (await a.ledger.head(a.id)).position
    await a.refunds(sale, 1)
    await served.views_reach(a)
    entries = await a.ledger.entries(a.id, before, 10)
    assert "transaction_refunded" in [each.name for each in await messages.of(served.parts, a.id, entries)]
    async with world.projector.connection() as connection:
        await connection.execute("UPDATE views.transactions SET position = %s WHERE tenant_id = %s", (before, a.id))
    assert "transaction_refunded" not in [each.name for each in await messages.of(served.parts, a.id, entries)]
