"""API keys of service accounts: `Authorization: Bearer bnx_…`.

A key that was looked up is believed in for a second; then it is looked up again, by one request for all that come meanwhile. So a
revoked key counts no more in any process after LOOKED_UP_EVERY_S and the time of one look-up, and a busy one costs a query a second.
Revocations (`ledger.revocations`, by the key's id) say it sooner, and end the streams that it began.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from litestar.types import Scope

from api import rights, roles
from api.rates import Rates
from api.rights import Who
from commands import service_accounts
from ledger import errors
from ledger.store import Ledger, Pool

ROLE = "service"
"""What stands in the metadata of the events of a service account. No role of accounts: its rights are its scopes."""
LOOKED_UP_EVERY_S = 1.0
LISTENS_S_MAX = 15 * 60
"""How long a stream that a key began lasts before the key is asked for again, as for an access token."""
REMEMBERED_MAX = 10_000
"""Keys: about 10 MiB."""
AT = "Bearer "


class KeyUnauthorized(rights.Unauthenticated):
    """Says nothing of the key."""

    def __init__(self) -> None:
        super().__init__(
            "The API key is not valid: it was revoked, or never issued. Ask an admin of your tenant for one."
        )


class _Known(NamedTuple):
    who: Who
    until: float  # time.monotonic()


class ApiKeys:
    """One an application. Touched by the event loop's thread only."""

    def __init__(self, ledger: Ledger, pool: Pool, check_counts: Callable[[Who], None], rates: Rates) -> None:
        self._ledger = ledger
        self._pool = pool  # the app role's
        self._check_counts = check_counts  # whether key and tenant still count, as far as is known without a look-up
        self._rates = rates
        self._known: OrderedDict[bytes, _Known] = OrderedDict()  # least recently looked up first
        self._looking: dict[bytes, asyncio.Task[Who]] = {}

    def authenticate(self, key: str, scope: Scope | None = None) -> Who | Awaitable[Who]:
        """Who it is, at once where that is known. The look-up of a key that was never seen counts for the address in `scope`, if
        there is one: anybody can make up keys.

        Raises KeyUnauthorized, RateLimited and what `check_counts` raises, also when awaited, and then what psycopg raises.
        """
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        known = self._known.get(digest)
        if known is not None and known.until > time.monotonic():
            self._check_counts(known.who)
            return known.who
        if known is None and scope is not None:
            return self._counted(digest, key, scope)
        return self._looked(digest, key)

    async def _counted(self, digest: bytes, key: str, scope: Scope) -> Who:
        take = partial(self._rates.anonymous, scope)
        if (unleased := take()) is not None:
            await self._rates.later(unleased, take)
        return await self._looked(digest, key)

    def _looked(self, digest: bytes, key: str) -> Awaitable[Who]:
        looking = self._looking.get(digest)
        if looking is None:
            looking = asyncio.create_task(self._look_up(digest, key), name="api-key")
            self._looking[digest] = looking
            looking.add_done_callback(lambda task: self._looked_up(digest, task))
        return asyncio.shield(looking)  # whoever goes away takes nobody else's look-up along

    def _looked_up(self, digest: bytes, task: "asyncio.Task[Who]") -> None:
        del self._looking[digest]
        if not task.cancelled():
            task.exception()  # if nobody waits any more, nobody has to hear of it

    async def _look_up(self, digest: bytes, key: str) -> Who:
        asked_at = time.monotonic()
        try:
            found = await service_accounts.of_key(key, self._ledger, self._pool)
        except (service_accounts.KeyInvalid, errors.NotFound):
            self._known.pop(digest, None)
            raise KeyUnauthorized from None
        who = Who(
            tenant_id=found.tenant_id,
            account_id=found.account.id,
            role=ROLE,
            session_id=found.key_id,
            expires_at=int(time.time()) + LISTENS_S_MAX,
            rights=frozenset(found.account.scopes) & roles.SCOPES,  # fewer by now, perhaps, than when it was made
        )
        self._check_counts(who)
        self._known[digest] = _Known(who, asked_at + LOOKED_UP_EVERY_S)
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return who


def key_of(authorization: str | None) -> str | None:
    """The API key in the header, None if something else is there."""
    if authorization is None or authorization[len(AT) : len(AT) + 4] != service_accounts.PREFIX:
        return None
    return authorization[len(AT) :] if authorization[: len(AT)].lower() == AT.lower() else None
