"""A tenant's life in a few dozen events, and what it must add up to, computed without the views."""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from eventsourcing.domain import Aggregate

from domain import accounts, products, tenants, transactions
from ledger import ids, packing
from tests.world import World, caller

BEGIN = datetime(2010, 12, 1, 20, tzinfo=UTC)
EAST = timezone(timedelta(hours=9))  # a day there is not a day in UTC
PEOPLE = tuple(ids.new_id() for _ in range(3))

ACCOUNT_EVERY = 8
"""After every so many commands one is about an account."""

Sums = dict[tuple[date, str], tuple[int, int, int]]


@dataclass
class Story:
    """What was appended. `position` is the head's."""

    tenant_id: UUID
    position: int = 0
    people: list[accounts.Account] = field(default_factory=list)
    tenant: tenants.Tenant | None = None
    listed: list[products.Product] = field(default_factory=list)
    sales: list[transactions.Transaction] = field(default_factory=list)
    unmatched: list[transactions.Refund] = field(default_factory=list)

    def sums(self) -> Sums:
        """Count, gross and refunded by day and currency, one by one."""
        found: defaultdict[tuple[date, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for sale in self.sales:
            sold = found[sale.occurred_at.astimezone(UTC).date(), sale.currency]
            sold[0] += 1
            sold[1] += sale.amount_minor
            for made in sale.refunds.values():
                found[made.occurred_at.astimezone(UTC).date(), sale.currency][2] += made.amount_minor
        for refund in self.unmatched:
            found[refund.occurred_at.astimezone(UTC).date(), refund.currency][2] += refund.amount_minor
        return {key: (count, gross, refunded) for key, (count, gross, refunded) in found.items()}


async def tell(world: World, story: Story, events: int, seed: int = 1) -> Story:
    """Append at least `events` more events, one command each, a mixture of all kinds."""
    await world.ledger.open_stream(story.tenant_id)
    subject = await world.ledger.subject(story.tenant_id, "buyer", "17850")
    chance = random.Random(seed)
    for aggregate in _events(story, events, chance, subject):
        receipt = await world.ledger.append(caller(story.tenant_id), aggregate)
        story.position = receipt.position
    return story


async def append_unknown_topic(world: World, story: Story) -> None:
    """An event of a newer release."""
    event = packing.Event(ids.new_id().bytes, 1, b"weather.changed", b'{"to":"rain"}', b"{}")
    appended = await world.appender.submit(packing.Command(story.tenant_id, ids.new_id(), b"", b"[]", [event]))
    story.position = appended.position


def _events(story: Story, count: int, chance: random.Random, subject: UUID) -> Iterator[Aggregate]:
    for _ in range(3):
        yield _product(story)
    yield _tenant(story)
    for n in range(count - 3):
        at = BEGIN + timedelta(hours=3 * n)
        kind = chance.choice(["product", "change", "sale", "sale", "sale", "refund", "unmatched"])
        if n % ACCOUNT_EVERY == 0:
            yield _account(story, n // ACCOUNT_EVERY)
        left = [sale for sale in story.sales if sale.status != transactions.Status.REFUNDED]
        if kind == "product":
            yield _product(story)
        elif kind == "change" and (changed := _change(story, chance)) is not None:
            yield changed
        elif kind == "refund" and left:
            yield _refund(chance.choice(left), at, chance)
        elif kind == "unmatched":
            yield _unmatched(story, at, subject)
        else:
            yield _sale(story, at, chance, subject)


def _tenant(story: Story) -> Aggregate:
    """The organisation, then something that it decides, and so on."""
    tenant = story.tenant
    if tenant is None:
        tenant = story.tenant = tenants.create(
            id=story.tenant_id, slug=f"s-{story.tenant_id}", name="Story", currency="GBP"
        )
    else:
        tenant.brand(tenants.Branding(f"Story, {len(story.sales)} sales"))
        tenant.configure("EUR", ["wishes"])
        tenant.suspend("told")
    return tenant


def _account(story: Story, turn: int) -> Aggregate:
    """A new account, then something that happens to it, and so on."""
    if turn % 2 == 0 or not story.people:
        account = accounts.register(
            id=ids.new_id(), tenant_id=story.tenant_id, email=f"{ids.new_id()}@story.test", name="Ann", role="user"
        )
        story.people.append(account)
        return account
    account = story.people[-1]
    account.rename(f"Ann {turn}")
    if turn % 3 == 0:
        account.change_role("affiliate")
    if turn % 5 == 0:
        account.deactivate()
    return account


def _product(story: Story) -> Aggregate:
    product = products.list_product(
        id=ids.new_id(),
        tenant_id=story.tenant_id,
        sku=f"SKU-{len(story.listed)}",
        name="Mug",
        price=Decimal("2.55"),
        currency="GBP",
        category="kitchen" if len(story.listed) % 2 else None,
        metadata={"b": 1, "a": [1.5, None]},
    )
    story.listed.append(product)
    return product


def _change(story: Story, chance: random.Random) -> Aggregate | None:
    left = [product for product in story.listed if product.status == products.Status.LISTED]
    if not left:
        return None
    product = chance.choice(left)
    match chance.randrange(4):
        case 0:
            product.retire()
        case 1:
            product.rename(f"Mug of {chance.randrange(10**6)}")
        case _:
            product.reprice(Decimal(chance.randrange(1, 10**6)) / 100)
    return product


def _sale(story: Story, at: datetime, chance: random.Random, subject: UUID) -> Aggregate:
    known = chance.random() < 0.5
    sale = transactions.record(
        id=ids.new_id(),
        tenant_id=story.tenant_id,
        lines=[
            transactions.LineWanted(
                product_id=product.id, sku=product.sku, quantity=chance.randint(1, 9), unit_price=product.price
            )
            for product in chance.sample(story.listed, 3)
        ],
        currency=chance.choice(["GBP", "JPY"]),
        occurred_at=at.astimezone(EAST),
        buyer_id=chance.choice([*PEOPLE, None]),
        affiliate_id=chance.choice([*PEOPLE, None]),
        buyer_ref="17850" if known else None,
        buyer_subject_id=subject if known else None,
        source="till",
        external_id=str(len(story.sales)),
    )
    story.sales.append(sale)
    return sale


def _refund(sale: transactions.Transaction, at: datetime, chance: random.Random) -> Aggregate:
    line = chance.choice([line for line in sale.lines if sale.left(line.id)])
    wanted = None if chance.random() < 0.3 else [(line.id, chance.randint(1, sale.left(line.id)))]
    sale.refund(ids.new_id(), wanted, reason="broken", occurred_at=at)
    return sale


def _unmatched(story: Story, at: datetime, subject: UUID) -> Aggregate:
    refund = transactions.record_refund(
        id=ids.new_id(),
        tenant_id=story.tenant_id,
        lines=[
            transactions.UnmatchedLineWanted(product_id=None, sku="OLD", quantity=2, unit_price=Decimal("1.25")),
        ],
        currency="GBP",
        occurred_at=at,
        buyer_ref="17850",
        buyer_subject_id=subject,
    )
    story.unmatched.append(refund)
    return refund
