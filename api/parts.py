"""What the HTTP side stands on. The process makes it; nothing in this package reads the environment."""

import asyncio
import dataclasses
import functools
import os
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import CollectorRegistry

from api import telemetry
from api.kept import Kept
from api.rates import Policies, Rates
from commands.passwords import Passwords
from commands.privacy import Noted
from domain import accounts, tenants
from ledger.positions import Tokens
from ledger.store import Ledger, Pool
from ledger.token_keys import TokenKeys
from ledger.waker import Waker
from projections.positions import Reached
from projections.replica import Replica, Source
from projections.rows import Rows
from projections.travel import Travels


def _unread() -> telemetry.Http:
    return telemetry.Http(CollectorRegistry())


def _unlimited() -> Rates:
    return Rates(Policies(), b"", tenants.PLATFORM_ID)


async def _nothing() -> bytes:
    return b""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """One a process. Whoever makes it starts and closes what is in it, after the application has been shut down."""

    ledger: Ledger
    passwords: Passwords
    pool: Pool  # of the app role, in autocommit
    projector: Pool  # of the projector's role, which sees all tenants: for asking for rebuilds alone
    platform: Pool  # of the platform's role, which sees no person's data of any tenant
    reached: Reached  # how far the views are
    travels: Travels  # views as they stood
    rows: Rows  # of views, by id
    waker: Waker
    tokens: Tokens  # positions for outsiders
    token_keys: TokenKeys  # what access tokens are signed with
    default_tenant: str | None  # the slug of whoever names no tenant
    noted: Noted  # writes who is erased to the list outside the database
    version: str
    stopping: asyncio.Event  # set before the server waits for its connections: streams end then
    token_issuer: str = "bitnexus"
    token_audience: str = "bitnexus"
    session_limits: accounts.SessionLimits = accounts.SESSION_LIMITS
    session_key: bytes = dataclasses.field(
        default_factory=lambda: os.urandom(32)
    )  # seals tokens of long polls' sessions
    sockets_per_session: int = 200  # in each process
    socket_origins: Sequence[str] = ()  # pages of these may open sockets, beside those of the host itself
    not_ready: Callable[[], Sequence[str]] = lambda: ()  # why this process should get no requests yet; empty: it may
    http: telemetry.Http = dataclasses.field(default_factory=_unread)
    scrape: Callable[[], Awaitable[bytes]] = _nothing  # all metrics, as Prometheus reads them
    rates: Rates = dataclasses.field(default_factory=_unlimited)
    cors_origins: frozenset[str] = frozenset()  # whose pages may use the API beside those of tenants' own hosts
    metrics_token: str | None = None  # what a scraper has to know; None: it has to be on this machine
    replica: Replica | None = None  # that queries read while it keeps up
    kept: Kept = dataclasses.field(default_factory=Kept)  # what was rendered of rows

    @functools.cached_property
    def primary(self) -> Source:
        """What queries read otherwise."""
        return Source(self.pool, self.rows, self.reached)
