"""What was parked is not told; once it is repaired, it is told at the place of the repair."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
import pytest_asyncio

from api.feed import messages
from domain.transactions import Transaction
from projections import cross_tenant, worker
from tests.api.house import House, Served, listening
from tests.api.streams import stream
from tests.bitnexus import commandline
from tests.world import World

POISON = "ALTER TABLE views.transactions ADD CONSTRAINT poison CHECK (amount_minor <> 2700 AND refunded_minor <> 900)"
"""Three mugs at 9.00, and one that comes back."""
CURE = "ALTER TABLE views.transactions DROP CONSTRAINT poison"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RETRY_S_MIN", 0.01)


@pytest_asyncio.fixture
async def address(served: Served) -> AsyncIterator[str]:
    async with listening(served.app, served.parts) as address:
        yield address


class Operator:
    """At the machine, with the command line."""

    def __init__(self, world: World, a: House) -> None:
        self._database = world.database
        self._slug = a.slug
        self._bitnexus = commandline.on(world.database)

    def alters(self, statement: str) -> None:
        with psycopg.connect(self._database.owner_url, autocommit=True) as owner:
            owner.execute(statement.encode())

    async def repairs(self, decision: str, parked_id: UUID) -> Any:
        """What is done, and left: exit 1 if something is."""
        run = await asyncio.to_thread(
            self._bitnexus,
            *("projections", decision, "transactions", "--tenant", self._slug, "--reason", "mended"),
            *("--originator", parked_id, "--json"),
        )
        assert run.code in (0, 1), run.err
        return run.json


@pytest.fixture
def operator(world: World, a: House) -> Operator:
    return Operator(world, a)


async def are_parked(world: World, a: House, *sales: Transaction) -> None:
    async with world.projector.connection() as connection:
        found = await cross_tenant.parked(connection, ["transactions"], [a.id])
    assert {each.originator_id for each in found} == {each.id for each in sales}


async def test_a_sale_that_was_parked_is_told_once_it_is_repaired(
    served: Served, address: str, a: House, world: World, operator: Operator
) -> None:
    """Its buyer looks at a page that nothing else would ever bring up to date."""
    mug = await a.lists("MUG", "9.00")
    operator.alters(POISON)
    async with stream(address, a.user) as user, stream(address, a.affiliate) as affiliate:
        poison = await a.sells(mug, quantity=3, buyer=a.user)
        await a.refunds(poison, 2)  # waits behind it
        fine = await a.sells(mug, quantity=1, buyer=a.user)
        assert (await user.event()).data["id"] == str(fine.id)
        await served.views_reach(a)
        await are_parked(world, a, poison)
        still = await operator.repairs("retry", poison.id)
        assert (still["applied"], still["left"]) == (0, 2)
        operator.alters(CURE)
        repaired = await operator.repairs("retry", poison.id)
        assert (repaired["applied"], repaired["left"]) == (2, 0)
        later = await a.sells(mug, quantity=2, buyer=a.user)
        told = await user.events(2)
        assert [(event.name, event.data["id"]) for event in told] == [
            ("new_transaction", str(poison.id)),
            ("new_transaction", str(later.id)),
        ]
        shown = (await served.get(a.user, f"/transactions/{poison.id}")).json()["data"]
        assert {**told[0].data, "position": ""} == {**shown, "position": ""}
        assert shown["status"] == "partly_refunded"
        at = served.parts.tokens.position(a.id, told[0].id or "")
        (entry,) = await a.ledger.entries(a.id, at - 1, 1)
        assert entry.topic == "view.repaired"
        await a.sells(mug, quantity=1, affiliate=a.affiliate)
        assert (await affiliate.event()).data["affiliate_id"] == str(a.affiliate.id)  # of all that, nothing
    before_repair = served.parts.tokens.token(a.id, at - 1)
    async with stream(address, a.user, before_repair) as resumed:  # who was away while it was repaired
        assert [event.data["id"] for event in await resumed.events(2)] == [str(poison.id), str(later.id)]


async def test_a_refund_that_was_parked_is_told_as_a_refund(
    served: Served, address: str, a: House, world: World, operator: Operator
) -> None:
    """The sale is known already: told as a new one it would be counted twice."""
    sale = await a.sells(await a.lists("MUG", "9.00"), quantity=2, buyer=a.user)
    await served.views_reach(a)
    operator.alters(POISON)
    async with stream(address, a.user) as user:
        await a.refunds(sale, 1)
        await served.views_reach(a)
        await are_parked(world, a, sale)
        operator.alters(CURE)
        await operator.repairs("retry", sale.id)
        told = await user.event()
    assert (told.name, told.data["id"], told.data["refunded"]) == ("transaction_refunded", str(sale.id), "9.00")


async def test_what_was_passed_over_is_told_as_far_as_it_is_shown(
    served: Served, address: str, a: House, world: World, operator: Operator
) -> None:
    mug = await a.lists("MUG", "9.00")
    operator.alters(POISON)
    async with stream(address, a.user) as user:
        poison = await a.sells(mug, quantity=3, buyer=a.user)
        await served.views_reach(a)
        await are_parked(world, a, poison)
        await operator.repairs("skip", poison.id)
        later = await a.sells(mug, quantity=1, buyer=a.user)
        assert (await user.event()).data["id"] == str(later.id)  # there is nothing of the other one to be shown


async def test_a_repair_by_an_older_or_a_newer_release_is_in_no_feeds_way(served: Served, a: House) -> None:
    await a.lists("MUG")
    head = (await a.ledger.head(a.id)).position
    (entry,) = await a.ledger.entries(a.id, head - 1, 1)
    older = b'{"view":"products","parked_id":"%b","decision":"retry","reason":"x","operator":"y"}' % (
        str(entry.originator_id).encode()
    )
    newer = older.replace(b"{", b'{"class_version":99,', 1)
    for state in (older, newer):
        repair = msgspec.structs.replace(entry, topic="view.repaired", state=state)
        assert await messages.of(served.parts, a.id, [repair]) == []
