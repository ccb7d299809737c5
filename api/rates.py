"""How many requests a caller may send: token buckets, of an address for who is not known, of a user and of its tenant for who is,
and of an account for changes of itself.

A bucket holds `quota` tokens and is full again `window_s` after it was empty; a request takes one. Every RECONCILE_S the processes
bring their buckets into accord (bitnexus/reconciling.py): the database keeps the bucket, and a process that is not alone takes
from it a lease, its share of what is left, which nobody else can spend. Too many pass only where a process has no lease yet,
because it has not seen the caller lately: `Policy.unseen`, which is quota / window_s × 0.2 s. So all processes together let pass at
most limit × processes × 0.2 s too many. Whoever asks for more than that at once, as a page does when it is opened, is not refused
but waits until there is a lease (`later`), some milliseconds. Without the database each process goes on with its own buckets.
docs/security.md has the rule with an example.
"""

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, NamedTuple, cast
from uuid import UUID

from litestar.types import Scope

from api.rights import Who

RECONCILE_S = 0.2
REPORTED_S = 1.0
"""So late is told at the latest what was taken, and given back what was leased; earlier where half of it is gone."""
LEASE_S_MAX = 2.0
"""Who waits longer for a lease goes by the bucket of this process. Longer than the database may take before it counts as away, which
lets everybody go on."""
LEASES_MAX = 3
"""Waited for by one request: of the user, of the tenant, and once more for who was overtaken."""
WAITING_MAX = 1_000
"""Requests at a time: who comes to more of them is refused. They are gone within LEASE_S_MAX each."""
BUCKETS_MAX = 50_000
"""Of each kind: 15 MB. Past it the oldest is forgotten, whose caller then begins with a full one."""
ADDRESS_BITS = 64
"""Of an address of IPv6: what one customer has at the least."""


class Policy(NamedTuple):
    """`quota` requests at once, and as many in each `window_s` in the long run."""

    name: str
    quota: int
    window_s: float

    @property
    def per_s(self) -> float:
        return self.quota / self.window_s

    def unseen(self, share: float) -> float:
        """What a process that has no lease yet lets pass, none for less than 1. `share` of 1: it is alone."""
        return inf if share == 1.0 else min(self.quota * share, self.per_s * RECONCILE_S)

    @property
    def header(self) -> str:
        """As RateLimit-Policy says it (draft-ietf-httpapi-ratelimit-headers-10)."""
        return f'"{self.name}";q={self.quota};w={self.window_s:.0f}'


class Policies(NamedTuple):
    """None: as many as come."""

    address: Policy | None = None
    user: Policy | None = None
    tenant: Policy | None = None
    account: Policy | None = None


class RateLimited(Exception):
    """Nothing was done. `headers` say when to come back."""

    def __init__(self, limit: str, allows: str, retry_after_s: float, headers: dict[str, str] | None = None) -> None:
        after = max(1, int(retry_after_s + 0.999))
        super().__init__(f'The limit "{limit}" is reached: {allows}. Send the request again in {after} s.')
        self.limit = limit
        self.headers = {"Retry-After": str(after), **(headers or {})}


class Bucket:
    """Touched by the event loop's thread only."""

    __slots__ = (
        "allowed",
        "at",
        "key",
        "lease",
        "per_s",
        "policy",
        "quota",
        "reported_at",
        "taken",
        "tenant_id",
        "tokens",
        "wanted",
    )

    def __init__(self, policy: Policy, tenant_id: UUID, key: UUID, share: float, now: float) -> None:
        self.policy = policy
        self.tenant_id = tenant_id
        self.key = key
        self.quota = float(policy.quota)
        self.per_s = policy.per_s
        self.tokens = self.quota  # at `at`, as far as is known here
        self.at = self.reported_at = now
        self.taken = 0  # since it was last reported
        self.lease = 0.0  # what the database has taken out for this process
        self.allowed = policy.unseen(share)  # how many may be taken until the next report
        self.wanted = False  # somebody waits for a lease

    def take(self, now: float) -> bool:
        """Whether there was one, and this process may give it."""
        tokens = self.tokens + (now - self.at) * self.per_s
        self.at = now
        if tokens > self.quota:
            tokens = self.quota
        if tokens < 1.0 or self.taken + 1 > self.allowed:
            self.tokens = tokens
            return False
        self.tokens = tokens - 1.0
        self.taken += 1
        return True

    def give_back(self) -> None:
        """What was just taken."""
        self.tokens += 1.0
        self.taken -= 1

    def is_due(self, now: float) -> bool:
        """To be reported. One that was not used gives its lease back."""
        if self.wanted or now - self.reported_at >= REPORTED_S:
            return True
        return self.taken * 2 >= min(self.allowed, self.quota / 10)

    def report(self) -> "Report":
        """Until it is answered no more is taken than the lease that is kept meanwhile: the rest goes back with the report, and may be
        another's before the answer is here. Whoever takes nothing and waits for nothing needs no lease."""
        holds = self.taken > 0 or self.wanted
        keeps = 0.0
        if self.lease:
            keeps = max(0.0, min(self.lease - self.taken, self.taken))  # as much again as since the last report
            self.allowed = min(self.allowed, self.taken + keeps)
        return Report(self, self.taken, self.wanted, holds, keeps, self.taken - self.lease + keeps)

    def corrected(self, debt_s: float, granted: float, reported: "Report", share: float, now: float) -> None:
        """Full in `debt_s`, all processes say, with what was `reported` of ours and the `granted` lease. What was taken since comes on
        top. A process that gave its lease back is one that has not seen the caller."""
        self.taken -= reported.taken
        self.lease = lease = reported.keeps + granted
        self.tokens = self.quota - debt_s * self.per_s + lease - self.taken
        self.at = self.reported_at = now
        self.allowed = inf if share == 1.0 else lease if reported.holds else self.policy.unseen(share)
        if reported.wanted:
            self.wanted = False

    def is_full(self, now: float) -> bool:
        return not (self.taken or self.wanted) and self.tokens + (now - self.at) * self.per_s >= self.quota

    def empty_for_s(self) -> float:
        return max((1.0 - self.tokens) / self.per_s, RECONCILE_S)


class Report(NamedTuple):
    """Of a bucket, at one moment. `holds`: a lease is asked for, besides what it `keeps`. `owed`: what was taken without one, or, below
    zero, what of it goes back."""

    bucket: Bucket
    taken: int
    wanted: bool
    holds: bool
    keeps: float
    owed: float


class Rates:
    """One a process. Touched by the event loop's thread only."""

    def __init__(self, policies: Policies, secret: bytes, platform_id: UUID) -> None:
        """`secret` makes of an address what is kept of it; 32 bytes, the same on every node."""
        self.policies = policies
        self.share = 1.0  # of what is left: one part in as many as there are processes
        self.requests_per_minute: Callable[[UUID], int | None] = lambda tenant_id: None  # a tenant's own limit
        self._secret = secret
        self._platform_id = platform_id
        self._addresses: dict[str, Bucket] = {}
        self._users: dict[int, Bucket] = {}
        self._tenants: dict[int, Bucket] = {}
        self._accounts: dict[int, Bucket] = {}
        self._moved: set[Bucket] = set()
        self.wanted = asyncio.Event()  # somebody waits for a lease
        self._leases: dict[Bucket, asyncio.Future[None]] = {}
        self._waiting = 0

    def anonymous(self, scope: Scope) -> Bucket | None:
        """Takes one of the address's; or it is the bucket of which there is no lease: see `later`. Raises RateLimited."""
        policy = self.policies.address
        if policy is None:
            return None
        now = monotonic()
        bucket = self._of_client(scope, policy, now)
        scope["state"]["rate"] = bucket
        return None if self._take(bucket, now) else bucket

    def check(self, scope: Scope) -> None:
        """Takes nothing yet: `charge` does if nobody known asks. Raises RateLimited if the address has none left."""
        policy, now = self.policies.address, monotonic()
        if policy is not None:
            bucket = self._of_client(scope, policy, now)
            if bucket.tokens + (now - bucket.at) * bucket.per_s < 1.0:
                raise _refused(bucket)

    async def charge(self, scope: Scope) -> None:
        """As `anonymous`, with `later`. Raises RateLimited."""
        if (unleased := self.anonymous(scope)) is not None:
            await self.later(unleased, partial(self.anonymous, scope))

    def at_once(self, scope: Scope) -> None:
        """As `anonymous`, where nothing can wait. Raises RateLimited, also for want of a lease."""
        if (unleased := self.anonymous(scope)) is not None:
            raise _refused(unleased)

    async def ready(self, scope: Scope) -> None:
        """Before `at_once`, so that it does not fail for want of a lease. Raises RateLimited."""
        if (policy := self.policies.address) is not None:
            bucket = self._of_client(scope, policy, monotonic())
            if bucket.taken + 1 > bucket.allowed:
                await self._leased(bucket)

    def known(self, scope: Scope, who: Who) -> Bucket | None:
        """Takes one of the user's and one of the tenant's, or none: then it is the bucket of which there is no lease, see `later`.

        Raises RateLimited.
        """
        policies = self.policies
        user = None
        now = monotonic()
        if policies.user is not None:
            account = who.account_id.int
            user = self._users.get(account)
            if user is None:
                user = self._add(self._users, account, policies.user, who.tenant_id, who.account_id, now)
            scope["state"]["rate"] = user
            if not self._take(user, now):
                return user
        of_tenant = self.requests_per_minute(who.tenant_id)
        policy = policies.tenant if of_tenant is None else Policy("tenant", of_tenant, 60.0)
        if policy is not None:
            if policy.quota == 0:
                raise RateLimited("tenant", "no requests at all", policy.window_s)
            tenant = self._tenants.get(who.tenant_id.int)
            if tenant is None or tenant.policy != policy:
                tenant = self._add(self._tenants, who.tenant_id.int, policy, who.tenant_id, who.tenant_id, now)
            if not self._take(tenant, now):
                if user is not None:
                    user.give_back()
                return tenant
        return None

    def changing(self, scope: Scope, who: Who) -> Bucket | None:
        """Takes one of the changes of one's own account; otherwise as `known`. Raises RateLimited."""
        policy = self.policies.account
        if policy is None:
            return None
        now = monotonic()
        bucket = self._accounts.get(who.account_id.int)
        if bucket is None:
            bucket = self._add(self._accounts, who.account_id.int, policy, who.tenant_id, who.account_id, now)
        scope["state"]["rate"] = bucket
        return None if self._take(bucket, now) else bucket

    async def later(self, unleased: Bucket, take: Callable[[], Bucket | None]) -> None:
        """What `take`, that is `anonymous`, `known` or `changing`, could not do for want of a lease of `unleased`. Raises RateLimited."""
        for _ in range(LEASES_MAX):
            await self._leased(unleased)
            still = take()
            if still is None:
                return
            unleased = still
        raise _refused(unleased)

    async def pushed(self, who: Who) -> None:
        """As `known`, of a command that came over a socket. Raises RateLimited."""
        take = partial(self.known, cast(Scope, {"state": {}}), who)
        if (unleased := take()) is not None:
            await self.later(unleased, take)

    def pending(self, limit: int) -> list[Bucket]:
        """Those to be reported now, at most `limit`."""
        now = monotonic()
        return list(islice((bucket for bucket in self._moved if bucket.is_due(now)), limit))

    def settle(self, buckets: Iterable[Bucket]) -> None:
        """They have been reported. Whoever waited for a lease may try."""
        self._moved.difference_update(
            bucket for bucket in buckets if not (bucket.taken or bucket.lease or bucket.wanted)
        )
        if self._leases:
            self._try_again(buckets)

    def shared(self, share: float) -> None:
        """There are so many processes now. Whoever has no lease is as if it had not been seen."""
        if share != self.share:
            self.share = share
            for buckets in (self._addresses, self._users, self._tenants, self._accounts):
                for bucket in buckets.values():
                    bucket.allowed = inf if share == 1.0 else max(bucket.lease, bucket.policy.unseen(share))
            if share == 1.0:
                self._try_again(list(self._leases))

    def forget_full(self) -> None:
        """Those that are as if they had never been used."""
        now = monotonic()
        for buckets in cast(list[dict[object, Bucket]], [self._addresses, self._users, self._tenants, self._accounts]):
            for key in [key for key, bucket in buckets.items() if bucket.is_full(now)]:
                del buckets[key]

    def hashed(self, text: str) -> UUID:
        """What is kept of an address: nobody can tell it from that."""
        return UUID(bytes=hmac.digest(self._secret, text.encode(errors="replace"), hashlib.sha256)[:16])

    def _take(self, bucket: Bucket, now: float) -> bool:
        """False: there is one, and this process has no lease of it. Raises RateLimited."""
        if not bucket.take(now):
            if bucket.tokens < 1.0:
                raise _refused(bucket)
            return False
        if bucket.taken == 1:
            self._moved.add(bucket)
        return True

    async def _leased(self, bucket: Bucket) -> None:
        """Comes back when this process was given its share of what is left. Raises RateLimited: too many wait."""
        if self._waiting >= WAITING_MAX:
            raise _refused(bucket)
        self._waiting += 1
        bucket.wanted = True
        self._moved.add(bucket)
        self.wanted.set()
        future = self._leases.get(bucket)
        if future is None:
            future = self._leases[bucket] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(LEASE_S_MAX):
                await asyncio.shield(future)
        except TimeoutError:
            bucket.allowed = inf  # until it is corrected
        finally:
            self._waiting -= 1

    def _try_again(self, buckets: Iterable[Bucket]) -> None:
        for bucket in buckets:
            future = self._leases.pop(bucket, None)
            if future is not None:
                future.set_result(None)

    def _of_client(self, scope: Scope, policy: Policy, now: float) -> Bucket:
        client: Any = scope.get("client")
        address = client[0] if client else ""
        bucket = self._addresses.get(address)
        if bucket is None:
            prefix = network(address)
            bucket = self._addresses.get(prefix)
            if bucket is None:
                bucket = self._add(self._addresses, prefix, policy, self._platform_id, self.hashed(prefix), now)
        return bucket

    def _add(
        self, buckets: dict[Any, Bucket], key: object, policy: Policy, tenant_id: UUID, id: UUID, now: float
    ) -> Bucket:
        if len(buckets) >= BUCKETS_MAX:
            oldest = buckets.pop(next(iter(buckets)))
            self._moved.discard(oldest)
            self._try_again((oldest,))
        buckets[key] = bucket = Bucket(policy, tenant_id, id, self.share, now)
        return bucket


def _refused(bucket: Bucket) -> RateLimited:
    policy = bucket.policy
    headers = {"RateLimit": f'"{policy.name}";r=0;t={policy.window_s:.0f}', "RateLimit-Policy": policy.header}
    allows = f"{policy.quota} requests in {policy.window_s:.0f} s"
    return RateLimited(policy.name, allows, bucket.empty_for_s(), headers)


def network(address: str) -> str:
    """Who has an address of IPv6 has all those that begin alike; one of IPv4 stands for itself."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, ADDRESS_BITS), strict=False))
