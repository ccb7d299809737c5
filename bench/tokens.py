"""What a request pays for its access token: checked before (cached), and new. CPU time of this process, without a database.

Cached is what nearly every request pays: hash, expiry, session and tenant. It is taken with REVOKED sessions that have ended, and
with as many tokens in turn as many callers would send. New is the signature besides (PyJWT, Ed25519); `jwt_alone` is PyJWT's
own share of it. The three are taken in turn in every round; each figure is the median of the rounds.

    scripts/bench tokens [--rounds 21] [--checks 20000]
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence

import jwt

from api import tokens
from bench import server
from ledger import ids, token_keys
from ledger.keys import MasterKey
from ledger.revocations import Revocations
from ledger.token_keys import TokenKeys

TARGET_CACHED_US = 5.0
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench tokens", description="The cost of checking an access token.")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--checks", type=int, default=20_000, help="a round")
    arguments = parser.parse_args()
    made, some = _made()
    headers = [f"Bearer {token}" for token in some]
    public = made._keys.all[0].private.public_key()
    cached, new, alone = [], [], []
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
    found = {"cached": statistics.median(cached), "new": statistics.median(new), "jwt_alone": statistics.median(alone)}
    document = {
        "benchmark": "tokens",
        **server.machine(),
        "rounds": arguments.rounds,
        "tokens": TOKENS,
        "revoked_sessions": REVOKED,
        "cpu_us": {name: round(us, 2) for name, us in found.items()},
        "target": {"cached_us": TARGET_CACHED_US, "met": found["cached"] < TARGET_CACHED_US},
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
