"""The master key, and what is derived from it.

Everything secret that all nodes must agree on is derived from the master key by HKDF-SHA256 (RFC 5869), one label each.
A subject's key is 32 random bytes, wrapped by AES-256-GCM under a derived key, associated data tenant ‖ subject.
"""

import base64
import binascii
import os
from collections.abc import Callable, Sequence
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
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
    """32 random bytes that never reach the database, and the keys that they took the place of.

    Subject keys are wrapped by the newest. All that every node must agree on is derived from the oldest, the root: it is the
    key that the database was begun with, and stays (docs/decisions/0005-the-oldest-master-key-is-the-root.md).
    """

    def __init__(self, material: bytes, older: Sequence["MasterKey"] = ()) -> None:
        """`older`: newest first. Raises MasterKeyInvalid."""
        if len(material) != KEY_BYTES:
            raise MasterKeyInvalid
        self._material = material
        self.id = self._own("id").hex()[:16]
        self._wrapping = AESGCM(self._own("wrap subject keys"))
        self._all = (self, *older)
        self._by_id = {key.id: key for key in self._all}
        self._root = self._all[-1]
        self._reservations = HMAC(self.derive("reservations"), SHA256())
        self._fingerprints = HMAC(self.derive("fingerprints of commands"), SHA256())
        self._refusals = HMAC(self.derive("refusals of commands"), SHA256())

    @classmethod
    def parse(cls, text: str) -> "MasterKey":
        """From base64, several ones with commas between, the newest first. Raises MasterKeyInvalid."""
        try:
            materials = [base64.b64decode(each.strip(), validate=True) for each in text.split(",")]
        except binascii.Error:
            raise MasterKeyInvalid from None
        older = [cls(material) for material in materials[1:]]
        if len({*materials}) < len(materials):
            raise MasterKeyInvalid  # the same key twice: nobody could say which of the two is meant to be the root
        return cls(materials[0], older)

    @staticmethod
    def generate() -> str:
        """A new one, as base64."""
        return base64.b64encode(os.urandom(KEY_BYTES)).decode()

    @property
    def ids(self) -> list[str]:
        """Of all the keys, newest first. An id tells nothing of its key."""
        return [key.id for key in self._all]

    @property
    def root_id(self) -> str:
        """Of the key that the database was begun with."""
        return self._root.id

    def derive(self, label: str) -> bytes:
        """32 bytes for one purpose, which stay the same when a newer key comes."""
        return self._root._own(label)

    def _own(self, label: str) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"bitnexus {label} v1".encode()).derive(self._material)

    def reference(self, tenant_id: UUID, kind: str, key: str) -> bytes:
        """What stands in the database for a unique key: HMAC-SHA256 over tenant, kind and key, 32 bytes."""
        return _digest(self._reservations, tenant_id.bytes + kind.encode() + b"\0" + key.encode())

    def fingerprint(self, asked: bytes) -> bytes:
        """What is kept of a command, by which its repeat is known: 32 bytes. A password may be in it, and could be tried against a
        hash without a key by whoever reads the database."""
        return _digest(self._fingerprints, asked)

    def refusal_key(self, asked: bytes) -> bytes:
        """What the refusal of a command is sealed under: 32 bytes that nobody has who has not what was asked."""
        return _digest(self._refusals, asked)

    def wrap(self, tenant_id: UUID, subject_id: UUID, key: bytes) -> bytes:
        """nonce (12) ‖ ciphertext and tag (48), under the newest key."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, tenant_id.bytes + subject_id.bytes)

    def unwrap(self, tenant_id: UUID, subject_id: UUID, wrapped: bytes, key_id: str) -> bytes:
        """`key_id`: of the key that wrapped it. Raises MasterKeyMissing, cryptography's InvalidTag if the row was tampered with."""
        return self.unwrapper(tenant_id)(subject_id.bytes, wrapped, key_id)

    def unwrapper(self, tenant_id: UUID) -> Callable[[bytes, bytes, str], bytes]:
        """`unwrap` for many keys of one tenant, subjects given as their 16 bytes."""
        tenant, by_id = tenant_id.bytes, self._by_id

        def unwrap(subject: bytes, wrapped: bytes, key_id: str) -> bytes:
            key = by_id.get(key_id)
            if key is None:
                raise errors.MasterKeyMissing(key_id)
            return key._wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], tenant + subject)

        return unwrap


def _digest(keyed: HMAC, data: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) in a third of the time: what the key needs is done once."""
    copy = keyed.copy()
    copy.update(data)
    return copy.finalize()
