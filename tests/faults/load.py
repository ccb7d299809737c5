"""A process that appends: started by the tests here, killed by them, started again with the same commands.

`python -m tests.faults.load APP_URL TENANT NAME COMMANDS CONCURRENCY`. The commands' ids follow from NAME, so whoever starts
it knows them. Prints "ready" and waits for a line; then prints "NUMBER POSITION" for each command once it is acknowledged, and
at the end "resent COUNT": how often a command had to be sent again because its outcome was unknown.
"""

import asyncio
import sys
from collections.abc import Iterator
from uuid import UUID

from bitnexus import database as connections
from ledger import errors, ids
from ledger.appender import Appender
from ledger.packing import Command, Event
from ledger.waker import Waker

SENDINGS_MAX = 20
"""Of one command: each waits for the database for half a minute."""


def command(tenant: UUID, name: str, number: int) -> Command:
    """Two events of an aggregate of its own; the same for the same name and number."""
    id = ids.derived_id(b"command", name.encode(), b"%d" % number)
    events = [
        Event(originator(id).bytes, version, b"load.done", b'{"number":%d}' % number, b"{}") for version in (1, 2)
    ]
    return Command(tenant, id, b"load", b"%d" % number, events)


def originator(command_id: UUID) -> UUID:
    """The aggregate that the command appends to."""
    return ids.derived_id(b"originator", command_id.bytes)


async def append(to: Appender, wanted: Iterator[Command]) -> int:
    """Send one after the other until each is acknowledged. How many sendings were in vain."""
    resent = 0
    for each in wanted:
        for _ in range(SENDINGS_MAX):
            try:
                appended = await to.submit(each)
            except errors.OutcomeUnknown:
                resent += 1
                continue
            print(each.outcome.decode(), appended.position, flush=True)
            break
        else:
            raise RuntimeError(
                f"{each.command_id} was not acknowledged after {SENDINGS_MAX} sendings. See the server's log."
            )
    return resent


async def main(app_url: str, tenant: UUID, name: str, commands: int, concurrency: int) -> None:
    appender = Appender(connections.connector(app_url, "app"), Waker())
    await appender.start()
    print("ready", flush=True)
    sys.stdin.readline()
    wanted = (command(tenant, name, number) for number in range(commands))
    resent = await asyncio.gather(*(append(appender, wanted) for _ in range(concurrency)))
    await appender.close()
    print("resent", sum(resent), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], UUID(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
