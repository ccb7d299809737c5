"""What is joined and left leaves nothing: not in a connection, not in the feed, not anywhere else."""

import gc
import sys
from uuid import UUID

from api.feed import feed as feeds
from api.rights import Who
from api.socket import encodings
from api.socket.client import Client
from api.socket.protocol import frames
from tests.api.house import House, Served

TOPICS = 100_000
WARM_UP = 2_000
BLOCKS_MAX = 2_000
"""Of memory, more than before: a fiftieth of what one kept object a topic would be."""


class Line:
    """Counts what it is told."""

    silent_s = 0.0
    waits = False

    def __init__(self) -> None:
        self.told = 0

    def tell(self, frame: frames.Frame) -> bool:
        self.told += 1
        return True

    def write(self, data: bytes) -> bool:
        return True

    def hang_up(self, code: int, reason: str) -> None:
        raise AssertionError(f"closed with {code}: {reason}")

    async def drained(self) -> None:
        """At once."""


async def test_a_hundred_thousand_topics_joined_and_left_leave_nothing(served: Served, a: House) -> None:
    """A page that is open for weeks, or one that means ill."""
    state, line = served.app.state, Line()
    live: feeds.Feed = state.feed
    who = state.authenticate(f"Bearer {a.admin.token}")
    assert isinstance(who, Who)
    client = Client(state.channels, who, frames.VERSION_2, line, encodings.ON_WIRE[frames.VERSION_2])

    async def go(count: int, begin: int) -> None:
        for n in range(begin, begin + count):
            topic = f"transaction:{UUID(int=n)}"
            await client.receive(f'["{n}","{n}","{topic}","phx_join",{{}}]')
            await client.receive(f'["{n}","{n}","{topic}","phx_leave",{{}}]')

    await client.receive(f'["j","j","tenant:{a.id}","phx_join",{{}}]')  # so that the tenant's tail stays
    await go(WARM_UP, 0)
    gc.collect()
    before = sys.getallocatedblocks()
    await go(TOPICS, WARM_UP)
    gc.collect()
    assert sys.getallocatedblocks() - before < BLOCKS_MAX
    assert line.told == 1 + 3 * (WARM_UP + TOPICS)  # each joined, and left with a reply and a close
    assert (live.listeners, live.topics, live.tails) == (1, 1, 1)
    assert (client._connection.topics, list(client._members)) == ([f"tenant:{a.id}"],) * 2
    client.lost()
    assert (live.listeners, live.topics, live.tails) == (0, 0, 0)
