"""A process of its own that keeps the views up until it is killed; writes a line for each batch of the view `sales`.

python -m tests.projections.run_projector APP_URL BATCH_EVENTS
"""

import asyncio
import sys
from uuid import UUID

from bitnexus import database as connections
from domain import catalogue as domain_catalogue
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.waker import Waker
from projections import catalogue, leases, positions, runner, stream
from tests.world import MASTER


async def main(app_url: str, batch_events: int) -> None:
    connect = connections.projecting_connector(app_url)
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
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
