"""What a request pays for its access token: checked before (cached), and new. CPU time of this process, without a database.

Cached is what nearly every request pays: hash, expiry, session and tenant. It is taken with REVOKED sessions that have ended, and
with as many tokens in turn as many callers would send. New is the signature besides (PyJWT, Ed25519); `jwt_alone` is PyJWT's
own share of it. The guard is what a route runs: the cached check, whether the role has the route's right, and who it is left for the
handler; limits of rates are off. All are taken in turn in every round; each figure is the median of the rounds.

    scripts/bench tokens [--rounds 21] [--checks 20000]
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import jwt

from api import rights, tokens
from api.rates import Policies, Rates
from bench import server
from ledger import ids, token_keys
from ledger.keys import MasterKey
from ledger.revocations import Revocations
from ledger.token_keys import TokenKeys

TARGET_CACHED_US = TARGET_RIGHTS_US = 5.0
TOKENS = 1_000
REVOKED = 50_000
NEW_PER_ROUND_MAX = 500
"""Each costs a tenth of a millisecond."""


def _made() -> tuple[tokens.AccessTokens, list[str]]:
    keys = TokenKeys(MasterKey(bytes(32)))
    keys.all = (token_keys.of_seed(bytes(range(32))),)
    known = Revocations()
    known._known_at = math.inf
    tenant_id = ids.new_id()
    for _ in range(REVOKED):
        known.learn(tenant_id, ids.new_id(), True)
    made = tokens.AccessTokens(keys, known, "bitnexus", "bitnexus")
    return made, [
        made.issue(tenant_id=tenant_id, account_id=ids.new_id(), role="user", session_id=ids.new_id())
        for _ in range(TOKENS)
    ]


def _us(check: Callable[[str], object], some: Sequence[str], checks: int) -> float:
    """CPU time of one check, in microseconds."""
    many = [some[n % len(some)] for n in range(checks)]
    begun = time.process_time()
    for each in many:
        check(each)
    return (time.process_time() - begun) / checks * 1e6


def _guarded(made: tokens.AccessTokens) -> Callable[[str], object]:
    """Runs a route's guard for the header of a request."""
    platform_id = ids.new_id()
    state = {
        "authenticate": lambda given, _: made.authenticate(given),
        "rates": Rates(Policies(), bytes(32), platform_id),
    }
    app, guard = SimpleNamespace(state=state), rights.Guard("transactions:read")

    def check(header: str) -> None:
        scope: Any = {"litestar_app": app, "headers": [(b"authorization", header.encode())], "state": {}}
        with suppress(StopIteration):
            guard(cast(Any, SimpleNamespace(scope=scope)), cast(Any, None)).__await__().send(None)

    return check


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench tokens", description="The cost of checking an access token.")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--checks", type=int, default=20_000, help="a round")
    arguments = parser.parse_args()
    made, some = _made()
    headers = [f"Bearer {token}" for token in some]
    public = made._keys.all[0].private.public_key()
    guarded = _guarded(made)
    cached, new, alone, guard = [], [], [], []
    for _ in range(arguments.rounds):
        made._remembered.clear()
        fresh = min(NEW_PER_ROUND_MAX, len(headers))
        new.append(_us(made.authenticate, headers[:fresh], fresh))
        alone.append(
            _us(lambda token: jwt.decode(token, public, ["EdDSA"], audience="bitnexus", issuer="bitnexus"), some, fresh)
        )
        for header in headers:
            made.authenticate(header)
        cached.append(_us(made.authenticate, headers, arguments.checks))
        guard.append(_us(guarded, headers, arguments.checks))
    all_found = {"cached": cached, "guard": guard, "new": new, "jwt_alone": alone}
    found = {name: statistics.median(each) for name, each in all_found.items()}
    rights_us = found["guard"] - found["cached"]
    document = {
        "benchmark": "tokens",
        **server.machine(),
        "rounds": arguments.rounds,
        "tokens": TOKENS,
        "revoked_sessions": REVOKED,
        "cpu_us": {name: round(us, 2) for name, us in found.items()},
        "rights_us": round(rights_us, 2),
        "targets": {"cached_us": TARGET_CACHED_US, "rights_us": TARGET_RIGHTS_US},
        "met": found["cached"] < TARGET_CACHED_US and rights_us < TARGET_RIGHTS_US,
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
