"""Serving the API in one process: uvicorn on a listener that is there already, until a signal.

A stop goes in this order: feeds end, no connection is accepted any more, requests in flight are answered, accepted commands
are finished, batches in flight too, connections to the database are let go.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from uuid import UUID

import uvicorn

from api import rates
from api.socket import wire
from bitnexus import collecting, database, doing, erasures, expiry, process, protocol, reconciling, stopping, web
from bitnexus.counting import Slot
from bitnexus.installation import Installation
from bitnexus.listening import BACKLOG
from bitnexus.process import Beside
from bitnexus.settings import Settings
from bitnexus.telemetry import Telemetry
from commands import tenants
from domain.tenants import PLATFORM_ID
from projections import replica
from projections.replica import Replica
from reactions import outbox

ADDRESSES = "keyed hash of addresses"
"""What of the master key makes of an address, or of an account's name, what is kept of it."""


class Server(uvicorn.Server):
    """uvicorn, with a stop of our own: a signal ends feeds first, and the process then ends with 0, not by the signal."""

    def __init__(self, config: uvicorn.Config, streams_end: asyncio.Event, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._streams_end = streams_end
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handlers stay: what closes after uvicorn is bounded, and must not be cut off by a second signal."""
        stopping.on_signal(self.stop)
        yield

    def stop(self) -> None:
        """Called again it does not wait for requests in flight."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._streams_end.set()


async def serve(
    base: Installation,
    settings: Settings,
    listener: socket.socket,
    ready: Callable[[], None],
    stops: Callable[[Callable[[], None]], None] = lambda stop: None,
    slot: Slot | None = None,
    beside: Beside = contextlib.nullcontext,
    process_id: UUID | None = None,
) -> None:
    """Until SIGTERM or SIGINT, or until what `stops` was given is called. `ready` is called once requests are answered.

    `slot` is where this worker counts, if it is one of several, and `process_id` as what it holds leases. What `beside` gives
    lasts as long as the serving.

    Raises CancelledError if it is stopped before that. Afterwards the process is deaf to both signals.
    """
    task = asyncio.current_task()
    assert task is not None
    stopping.on_signal(task.cancel)
    try:
        await _serve(base, settings, listener, ready, stops, Telemetry(slot), beside, process_id)
    finally:
        stopping.ignore_signals()


async def _serve(
    base: Installation,
    settings: Settings,
    listener: socket.socket,
    ready: Callable[[], None],
    stops: Callable[[Callable[[], None]], None],
    telemetry: Telemetry,
    beside: Beside,
    process_id: UUID | None,
) -> None:
    async with process.running(
        base, projecting=True, hashing=settings.hashing, appends=telemetry.appends, process_id=process_id
    ) as parts:
        await tenants.ensure_platform(parts.ledger)
        await erasures.apply(parts, erasures.of(settings))  # a restored backup may know whom it should not
        streams_end = asyncio.Event()
        limits = rates.Rates(_policies(settings), base.master.derive(ADDRESSES), PLATFORM_ID)
        async with (
            expiry.running(parts.projector),
            reconciling.running(limits, parts.projector),
            outbox.running(parts.projector, doing.doers(parts, settings)),
            _replica(base, settings) as copy,
            telemetry.watching(parts, *(() if copy is None else (copy.source.pool,))),
            beside(parts),
        ):
            app = web.application(parts, settings, telemetry, limits, streams_end, copy)
            server = Server(_config(app, settings), streams_end, ready)
            stops(server.stop)
            collecting.seldom()
            async with protocol.watching(server.server_state.connections):
                await server.serve([listener])


@contextlib.asynccontextmanager
async def _replica(base: Installation, settings: Settings) -> AsyncIterator[Replica | None]:
    """None if there is to be none."""
    if settings.database_replica_url is None:
        yield None
        return
    url = database.replica_url(settings.database_replica_url, base.app_url)
    async with replica.running(
        database.pool(url, "app", replica.CONNECTIONS_MAX, name="replica"),
        database.connector(url, "app"),
        database.connector(url, "projector"),
        database.connector(base.app_url, "app"),
    ) as made:
        yield made


def _policies(settings: Settings) -> rates.Policies:
    def policy(name: str, limit: tuple[int, int] | None) -> rates.Policy | None:
        return None if limit is None else rates.Policy(name, limit[0], float(limit[1]))

    return rates.Policies(
        address=policy("address", settings.rate_address),
        user=policy("user", settings.rate_user),
        tenant=policy("tenant", settings.rate_tenant),
        account=policy("account", settings.rate_account),
    )


def _config(app: object, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI application, of Litestar's types
        loop="uvloop",
        http=protocol.Http,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.proxies_believed,
        backlog=BACKLOG,
        timeout_graceful_shutdown=stopping.REQUESTS_S_MAX,
        workers=1,
        **wire.OPTIONS,
    )
