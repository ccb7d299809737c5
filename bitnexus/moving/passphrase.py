"""Keys of persons on their way: wrapped under a key that is made of a passphrase by scrypt (RFC 7914)."""

import hashlib
import os
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bitnexus.moving import errors
from ledger.keys import KEY_BYTES, NONCE_BYTES

SALT_BYTES = 16
LENGTH_MIN = 12
"""A file may be tried for years, so longer than a password."""
# 128 MiB and about 0.4 s a guess. Fixed by the format's version: a file cannot ask for less, or for all our memory.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**17, 8, 1
SCRYPT_MEMORY_MAX = 2**28
WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + 16

_PURPOSE = b"bitnexus tenant file v1"


def new_salt() -> bytes:
    return os.urandom(SALT_BYTES)


def checked(passphrase: str) -> str:
    """Raises PassphraseTooShort."""
    if len(passphrase) < LENGTH_MIN:
        raise errors.PassphraseTooShort(len(passphrase), LENGTH_MIN)
    return passphrase


class Wrapping:
    """Wraps and unwraps the keys of one tenant's file."""

    def __init__(self, passphrase: str, salt: bytes, tenant_id: UUID) -> None:
        derived = hashlib.scrypt(
            passphrase.encode(),
            salt=salt,
            n=SCRYPT_N,
            r=SCRYPT_R,
            p=SCRYPT_P,
            maxmem=SCRYPT_MEMORY_MAX,
            dklen=KEY_BYTES,
        )
        self._cipher = AESGCM(derived)
        self._about = _PURPOSE + tenant_id.bytes

    def wrap(self, subject: bytes, key: bytes) -> bytes:
        """nonce (12) ‖ ciphertext and tag (48)."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, self._about + subject)

    def unwrap(self, subject: bytes, wrapped: bytes) -> bytes:
        """Raises PassphraseWrong, also if subject or bytes were changed."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], self._about + subject)
        except InvalidTag:
            raise errors.PassphraseWrong from None
