"""Bytes of a person outside the events, under the key of their subject: gone with it when the person is erased.

nonce (12) ‖ AES-256-GCM ciphertext, associated data "sealed" ‖ tenant (16) ‖ subject (16) ‖ purpose. No event's field has such
associated data, so neither can be put in the place of the other.
"""

import os
from uuid import UUID

from cryptography.exceptions import InvalidTag

from ledger.keyring import Keys
from ledger.keys import NONCE_BYTES


def seal(keys: Keys, tenant_id: UUID, subject_id: UUID, purpose: str, clear: bytes) -> bytes:
    """`keys` has the subject's. Raises SubjectKeyUnusable."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + keys[subject_id.int].encrypt(nonce, clear, _about(tenant_id, subject_id, purpose))


def unseal(keys: Keys, tenant_id: UUID, subject_id: UUID, purpose: str, sealed: bytes) -> bytes | None:
    """None: the person was erased, or it was sealed for something else or changed since."""
    key = keys.get(subject_id.int)
    if key is None:
        return None
    try:
        return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _about(tenant_id, subject_id, purpose))
    except (InvalidTag, ValueError):
        return None


def _about(tenant_id: UUID, subject_id: UUID, purpose: str) -> bytes:
    return b"sealed" + tenant_id.bytes + subject_id.bytes + purpose.encode()
