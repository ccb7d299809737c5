"""Access tokens: JWT signed with Ed25519 (EdDSA), good for 15 minutes; the public key as a JWK set.

The algorithm is fixed by the key, never by the token. Verified tokens are remembered by their SHA-256, bounded; a
remembered token saves the check of its signature only, its expiry is looked at each time.
"""

import base64
import hashlib
import json
import time
from collections import OrderedDict
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api import rights
from ledger import ids

ALGORITHM = "EdDSA"
ISSUER = AUDIENCE = "bitnexus"
LIFETIME_S = 15 * 60
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


class AccessTokens:
    """Signs and verifies with one key. Touched by the event loop's thread only."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key()
        x = _base64url(self._public.public_bytes(Encoding.Raw, PublicFormat.Raw))
        # RFC 7638: the required members in order of their names, without blanks
        thumbprint = hashlib.sha256(
            json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":")).encode()
        )
        self.key_id = _base64url(thumbprint.digest())
        self.key_set = {
            "keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.key_id, "alg": ALGORITHM, "use": "sig"}]
        }
        self._remembered: OrderedDict[bytes, rights.Who] = OrderedDict()  # least recently used first

    def issue(self, *, tenant_id: UUID, account_id: UUID, role: str, session_id: UUID) -> str:
        """Good from now on for LIFETIME_S."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(account_id),
            "tenant_id": str(tenant_id),
            "role": role,
            "sid": str(session_id),
            "iat": now,
            "exp": now + LIFETIME_S,
            "jti": str(ids.new_id()),
        }
        return jwt.encode(claims, self._private, algorithm=ALGORITHM, headers={"kid": self.key_id})

    def authenticate(self, authorization: str | None) -> rights.Who:
        """From the header Authorization. Raises TokenMissing, TokenInvalid, TokenExpired."""
        if authorization is None:
            raise TokenMissing
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenMissing
        return self.verify(token)

    def verify(self, token: str) -> rights.Who:
        """Raises TokenInvalid, TokenExpired."""
        if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
            raise TokenInvalid
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
        return who

    def _checked(self, token: str) -> rights.Who:
        try:
            if jwt.get_unverified_header(token).get("kid") != self.key_id:
                raise TokenInvalid
            claims: dict[str, Any] = jwt.decode(
                token,
                self._public,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=0,
                # not iat: a node whose clock is a second behind must not refuse what another one has just issued
                options={"require": _REQUIRED, "verify_iat": False},
            )
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


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
