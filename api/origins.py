"""CORS: which pages of other origins may use the API. Those of a tenant's own host names may, with that tenant's tokens; and those
that the installation names, with anybody's."""

import time
from collections import OrderedDict
from typing import NamedTuple
from uuid import UUID

import psycopg
import psycopg_pool

from commands import tenant_settings
from ledger.store import Ledger

REMEMBERED_S = 30.0
REMEMBERED_MAX = 10_000
ORIGIN_BYTES_MAX = 300
"""A host name has 253 at the most."""
MAX_AGE_S = 7_200
"""How long a browser remembers the answer to a preflight; longer they do not."""

_ALLOWED_HEADERS = b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Position, Last-Event-ID"
_EXPOSED_HEADERS = b"X-Position, ETag, Location, Retry-After, RateLimit"
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_VARY = (b"vary", b"Origin")

Headers = list[tuple[bytes, bytes]]


class Origin(NamedTuple):
    """`tenant_id` None: anybody's tokens."""

    allowed: bool
    tenant_id: UUID | None


_REFUSED = Origin(False, None)


class Origins:
    """One an application. Touched by the event loop's thread only."""

    def __init__(self, ledger: Ledger, always: frozenset[str]) -> None:
        self._ledger = ledger
        self._always = always
        self._remembered: OrderedDict[bytes, tuple[float, Origin]] = OrderedDict()  # oldest first

    def at_hand(self, given: bytes) -> Origin | None:
        """None if the database has to be asked."""
        known = self._remembered.get(given)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if len(given) > ORIGIN_BYTES_MAX or not given.isascii():
            return _REFUSED
        return Origin(True, None) if given.decode() in self._always else None

    async def of(self, given: bytes) -> Origin:
        """Refused where the database does not say."""
        known = self.at_hand(given)
        if known is not None:
            return known
        now = time.monotonic()
        try:
            found = await self._tenants(given.decode())
        except (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed):
            return _REFUSED
        self._remembered.pop(given, None)
        self._remembered[given] = now + REMEMBERED_S, found
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return found

    async def _tenants(self, origin: str) -> Origin:
        scheme, _, host = origin.partition("://")
        tenant_id = await tenant_settings.of_host(host, self._ledger) if scheme == "https" else None
        return _REFUSED if tenant_id is None else Origin(True, tenant_id)


def preflight(given: bytes, origin: Origin) -> Headers:
    """The answer's. Whatever was asked for, what is allowed is always the same."""
    if not origin.allowed:
        return [_VARY]
    return [
        (b"access-control-allow-origin", given),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", b"%d" % MAX_AGE_S),
        _VARY,
    ]


def exposed(given: bytes, origin: Origin, tenant_id: UUID | None) -> Headers:
    """Of an answer to a caller of this tenant, None: to nobody in particular."""
    if not origin.allowed or (origin.tenant_id is not None and tenant_id not in (None, origin.tenant_id)):
        return [_VARY]
    return [(b"access-control-allow-origin", given), (b"access-control-expose-headers", _EXPOSED_HEADERS), _VARY]
