"""People with an account in a tenant, what is mailed to them, and another process."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from bitnexus import database as connections
from commands import tenants
from domain.tenants import PLATFORM_ID
from ledger import lookups
from ledger.keyring import Keyring
from ledger.store import Ledger
from tests.reactions.mailbox import Mailbox
from tests.world import MASTER, World, caller


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


@pytest_asyncio.fixture
async def elsewhere(world: World) -> AsyncIterator[Ledger]:
    """Another process's."""
    keyring, connect = Keyring(MASTER), connections.connector(world.database.app_url, "app")
    async with lookups.running(connect, world.app, world.ledger.codec, keyring) as looks:
        yield Ledger(world.app, world.appender, looks, world.ledger.codec, keyring)
