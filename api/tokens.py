"""Access tokens: JWT signed with Ed25519 (EdDSA), good for 15 minutes; the public keys as a JWK set.

The algorithm is fixed by the key, never by the token. Verified tokens are remembered by their SHA-256, bounded; a remembered
token saves the check of its signature only: its expiry, its session and its tenant are looked at each time.

Of clocks: a token expires to the second, whoever's clock it is, because it was our own that set the time, and 15 minutes bear
the seconds by which our nodes may differ. One from further in the future than CLOCKS_APART_S_MAX is refused: the node that
made it, or the one that reads it, has a clock that somebody has to look at.
"""

import hashlib
import time
from collections import OrderedDict
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from api import rights
from ledger import ids
from ledger.revocations import Revocations
from ledger.token_keys import TokenKey, TokenKeys

ALGORITHM = "EdDSA"
LIFETIME_S = 15 * 60
CLOCKS_APART_S_MAX = 60
TOKEN_CHARACTERS_MAX = 2_048
"""Ours have about 550; nothing longer is worth a look."""
REMEMBERED_MAX = 10_000
"""About 10 MiB: the callers of a quarter of an hour on one process."""

_REQUIRED = ["iss", "aud", "sub", "tenant_id", "role", "sid", "iat", "exp", "jti"]


class TokenInvalid(rights.Unauthenticated):
    """Says nothing of why: whoever made the token knows."""

    def __init__(self) -> None:
        super().__init__("The access token is not valid: it was not issued here, or not like this. Log in again.")


class TokenExpired(rights.Unauthenticated):
    def __init__(self) -> None:
        super().__init__(f"The access token is older than {LIFETIME_S} s. Get a new one at /api/v1/auth/refresh.")


class TokenMissing(rights.Unauthenticated):
    def __init__(self) -> None:
        super().__init__("There is no access token. Send one as: Authorization: Bearer TOKEN.")


class SessionEnded(rights.Unauthenticated):
    def __init__(self) -> None:
        super().__init__("The session of the access token has ended. Log in again.")


class TenantSuspended(rights.Unauthenticated):
    def __init__(self) -> None:
        super().__init__("The tenant of the access token is suspended. Ask whoever runs it.")


class RevocationsUnknown(Exception):
    """Whether the session has ended cannot be said at present: the database was not reached."""

    def __init__(self) -> None:
        super().__init__("Whether the session still counts cannot be checked at present. Try again in a second.")


class AccessTokens:
    """Signs and verifies. Touched by the event loop's thread only."""

    def __init__(self, keys: TokenKeys, revocations: Revocations, issuer: str, audience: str) -> None:
        self._keys = keys
        self._revocations = revocations
        self._issuer = issuer
        self._audience = audience
        self._known: tuple[TokenKey, ...] = ()  # of which the next two are made
        self._public: dict[str, tuple[TokenKey, Ed25519PublicKey]] = {}  # by key id
        self._remembered: OrderedDict[bytes, rights.Who] = OrderedDict()  # least recently used first

    def issue(self, *, tenant_id: UUID, account_id: UUID, role: str, session_id: UUID) -> str:
        """Good from now on for LIFETIME_S."""
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(account_id),
            "tenant_id": str(tenant_id),
            "role": role,
            "sid": str(session_id),
            "iat": now,
            "exp": now + LIFETIME_S,
            "jti": str(ids.new_id()),
        }
        key = self._keys.signing()
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.id})

    def key_set(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as a JWK set (RFC 7517, 8037): those that sign, will sign, or have signed what has not expired."""
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "x": key.x, "kid": key.id, "alg": ALGORITHM, "use": "sig"}
                for key in self._keys.all
                if key.verifies_until > time.time()
            ]
        }

    def authenticate(self, authorization: str | None) -> rights.Who:
        """From the header Authorization. Raises TokenMissing and what `verify` raises."""
        if authorization is None:
            raise TokenMissing
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenMissing
        return self.verify(token)

    def verify(self, token: str) -> rights.Who:
        """Raises TokenInvalid, TokenExpired, SessionEnded, TenantSuspended, RevocationsUnknown."""
        if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
            raise TokenInvalid
        if self._known is not self._keys.all:
            self._learn()
        digest = hashlib.sha256(token.encode()).digest()
        who = self._remembered.get(digest)
        if who is None:
            who = self._checked(token)
            self._remembered[digest] = who
            if len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(digest)
        if who.expires_at <= time.time():
            self._remembered.pop(digest, None)
            raise TokenExpired
        self.check_counts(who)
        return who

    def check_counts(self, who: rights.Who) -> None:
        """Raises SessionEnded, TenantSuspended, RevocationsUnknown."""
        revocations = self._revocations
        if not revocations.is_known():
            raise RevocationsUnknown
        if revocations.is_revoked(who.session_id):
            raise SessionEnded
        if revocations.is_suspended(who.tenant_id):
            raise TenantSuspended

    def _learn(self) -> None:
        """The keys are others: what one of them verified that is no longer among them counts no more."""
        self._known = self._keys.all
        self._public = {key.id: (key, key.private.public_key()) for key in self._known}
        self._remembered.clear()

    def _checked(self, token: str) -> rights.Who:
        now = time.time()
        try:
            key, public = self._public[jwt.get_unverified_header(token)["kid"]]
            if key.verifies_until <= now:
                raise TokenInvalid
            claims: dict[str, Any] = jwt.decode(
                token,
                public,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=0,
                options={"require": _REQUIRED, "verify_iat": False},  # which bears no difference of clocks: below
            )
            if int(claims["iat"]) > now + CLOCKS_APART_S_MAX:
                raise TokenInvalid
            return rights.Who(
                tenant_id=UUID(claims["tenant_id"]),
                account_id=UUID(claims["sub"]),
                role=claims["role"],
                session_id=UUID(claims["sid"]),
                expires_at=int(claims["exp"]),
                rights=rights.RIGHTS[claims["role"]],
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError, AttributeError):
            raise TokenInvalid from None
