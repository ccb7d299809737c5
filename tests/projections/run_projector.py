"""A process of its own that keeps the views up until it is killed; writes a line for each batch of the view `sales`.

python -m tests.projections.run_projector APP_URL BATCH_EVENTS [MOMENT POSITION]

At the first batch of `sales` from that position on it stops itself (SIGSTOP) `before` it moves the view, or `within` the batch,
and writes "stopped" before and "refused" or "went on" after it. Without a moment, leases are short.
"""

import asyncio
import os
import signal
import sys
from uuid import UUID

from bitnexus import database as connections
from domain import catalogue as domain_catalogue
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.waker import Waker
from projections import catalogue, generations, leases, positions, runner, stream
from tests.world import MASTER


def stop_once(moment: str, at: int) -> None:
    """Put a stop into the next batch from there on."""
    move = generations.move
    stopped = False

    async def moving(connection: generations.Connection, step: generations.Step | None) -> list[generations.Generation]:
        nonlocal stopped
        if stopped or step is None or step.view != "sales" or step.after < at:
            return await move(connection, step)
        stopped = True
        moved = await move(connection, step) if moment == "within" else None
        print("stopped", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        if moved is None:
            moved = await move(connection, step)
            print("went on" if moved else "refused", flush=True)
        return moved

    generations.move = moving


async def main(app_url: str, batch_events: int, moment: str = "", at: int = 0) -> None:
    connect = connections.projecting_connector(app_url)
    if moment == "before":  # its transaction, which holds nothing yet, outlives the pause
        connect = connections.connector(app_url, "projector")
    if moment:
        stop_once(moment, at)
    else:
        leases.BEAT_S, leases.LEASE_S, leases.MARGIN_S = 0.2, 1.5, 0.2  # whoever comes after a kill need not wait long
    source = stream.Source(Codec(domain_catalogue.AGGREGATES), Keyring(MASTER))
    reached = positions.Reached(connect)

    def moved(tenant_id: UUID, view: str, position: int) -> None:
        if view == "sales":
            print(position, flush=True)

    reached.subscribe(moved)
    await runner.Runner(catalogue.VIEWS, connect, source, Waker(), reached, batch_events).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    url, events, *stop = sys.argv[1:]
    asyncio.run(main(url, int(events), stop[0], int(stop[1])) if stop else main(url, int(events)))
