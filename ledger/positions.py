"""Positions as outsiders see them: opaque tokens, so that nobody reads a tenant's traffic from their differences.

A token is base64url (no padding) of AES-SIV (RFC 5297) over the position as i64, associated data the tenant: 32 characters.
Deterministic on purpose: the same position gives the same token, so an ETag or an SSE id can be compared.
"""

import base64
import binascii
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from ledger import errors
from ledger.keys import MasterKey

TOKEN_CHARACTERS = 32


class Tokens:
    """Made by every node alike, because the key is derived from the master key."""

    def __init__(self, master: MasterKey) -> None:
        self._cipher = AESSIV(master.derive("position tokens"))

    def token(self, tenant_id: UUID, position: int) -> str:
        """The position as this tenant's callers may see it."""
        return base64.urlsafe_b64encode(self._cipher.encrypt(position.to_bytes(8, "big"), [tenant_id.bytes])).decode()

    def position(self, tenant_id: UUID, token: str) -> int:
        """Raises PositionTokenInvalid, also for another tenant's token."""
        try:
            if len(token) != TOKEN_CHARACTERS or not token.isascii() or "+" in token or "/" in token:
                raise ValueError  # the standard alphabet would be a second spelling
            sealed = base64.b64decode(token, altchars=b"-_", validate=True)
            return int.from_bytes(self._cipher.decrypt(sealed, [tenant_id.bytes]), "big")
        except (ValueError, binascii.Error, InvalidTag):
            raise errors.PositionTokenInvalid(token) from None
