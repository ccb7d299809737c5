"""The master key, and what is derived from it.

Everything secret that all nodes must agree on is derived from the master key by HKDF-SHA256 (RFC 5869), one label each.
A subject's key is 32 random bytes, wrapped by AES-256-GCM under a derived key, associated data tenant ‖ subject.
"""

import base64
import binascii
import hashlib
import hmac
import os
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger import errors

KEY_BYTES = 32
NONCE_BYTES = 12


class MasterKeyInvalid(errors.LedgerError):
    """Not the base64 of 32 bytes."""

    def __init__(self) -> None:
        super().__init__(
            "The master key is not 32 bytes in base64 (its value is not shown). Make one with: "
            "python3 -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"
        )


class MasterKey:
    """32 random bytes that never reach the database."""

    def __init__(self, material: bytes) -> None:
        if len(material) != KEY_BYTES:
            raise MasterKeyInvalid
        self._material = material
        self.id = self.derive("id").hex()[:16]
        self._wrapping = AESGCM(self.derive("wrap subject keys"))
        self._reservations = self.derive("reservations")

    @classmethod
    def parse(cls, text: str) -> "MasterKey":
        """From base64. Raises MasterKeyInvalid."""
        try:
            return cls(base64.b64decode(text.strip(), validate=True))
        except binascii.Error:
            raise MasterKeyInvalid from None

    @staticmethod
    def generate() -> str:
        """A new one, as base64."""
        return base64.b64encode(os.urandom(KEY_BYTES)).decode()

    def derive(self, label: str) -> bytes:
        """32 bytes for one purpose."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"bitnexus {label} v1".encode()).derive(self._material)

    def reference(self, tenant_id: UUID, kind: str, key: str) -> bytes:
        """What stands in the database for a unique key: HMAC-SHA256 over tenant, kind and key, 32 bytes."""
        return hmac.digest(self._reservations, tenant_id.bytes + kind.encode() + b"\0" + key.encode(), hashlib.sha256)

    def wrap(self, tenant_id: UUID, subject_id: UUID, key: bytes) -> bytes:
        """nonce (12) ‖ ciphertext and tag (48)."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, tenant_id.bytes + subject_id.bytes)

    def unwrap(self, tenant_id: UUID, subject_id: UUID, wrapped: bytes) -> bytes:
        """Raises cryptography's InvalidTag if the row was tampered with."""
        return self._wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], tenant_id.bytes + subject_id.bytes)
