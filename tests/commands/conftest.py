"""People with an account in a tenant, and what is mailed to them."""

from uuid import UUID

import pytest
import pytest_asyncio

from commands import tenants
from domain.tenants import PLATFORM_ID
from tests.reactions.mailbox import Mailbox
from tests.world import World, caller


@pytest.fixture
def mailbox(world: World) -> Mailbox:
    return Mailbox(world)


@pytest_asyncio.fixture
async def shop(world: World) -> UUID:
    """A tenant with an admin, as one is made."""
    await tenants.ensure_platform(world.ledger)
    create = tenants.Create(
        slug="shop",
        name="The Shop",
        currency="EUR",
        admin_email="admin@shop.test",
        admin_name="Ada",
        admin_password="correct horse battery",
    )
    return (await tenants.create(create, caller(PLATFORM_ID), world.ledger, world.passwords)).aggregate.id
