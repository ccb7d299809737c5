"""A mailbox for a world."""

import pytest

from tests.reactions.mailbox import Mailbox
from tests.world import World


@pytest.fixture
def mailbox(world: World) -> Mailbox:
    return Mailbox(world)
