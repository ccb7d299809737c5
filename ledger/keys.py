"""The master key, what is derived from it, and the subject keys that personal data are encrypted with.

Everything secret that all nodes must agree on is derived from the master key by HKDF-SHA256 (RFC 5869), one label each.
A subject's key is 32 random bytes, wrapped by AES-256-GCM under a derived key, associated data tenant ‖ subject.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import LiteralString
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import errors, tenancy

KEY_BYTES = 32
NONCE_BYTES = 12
KEYS_CACHED_MAX = 50_000
"""Subject keys held in memory: about 1 KiB each with its cipher, so 50 MiB at the most."""


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


Keys = Mapping[UUID, AESGCM]
"""Subject keys of one tenant; a subject that is absent has been erased."""

OPEN_KEYS = "SELECT o_subject, o_wrapped, o_master_key_id FROM ledger.open_subject_keys(%s, %s, %s, %s)"
READ_KEYS: LiteralString = """
SELECT subject_id, wrapped, master_key_id FROM ledger.subject_keys WHERE tenant_id = %(tenant)s AND subject_id = ANY (%(subjects)s)
"""


class Keyring:
    """Subject keys, cached. Touched by the event loop's thread only."""

    def __init__(self, master: MasterKey) -> None:
        self.master = master
        self._cached: OrderedDict[tuple[UUID, UUID], AESGCM] = OrderedDict()  # least recently used first

    def at_hand(self, tenant_id: UUID, subjects: Iterable[UUID]) -> Keys | None:
        """The keys of these subjects if all of them are cached, else None."""
        keys, missing = self._known(tenant_id, subjects)
        return None if missing else keys

    async def make(self, connection: AsyncConnection[TupleRow], tenant_id: UUID, subjects: Iterable[UUID]) -> Keys:
        """The keys of these subjects; a subject without one gets it. `connection` is the app role's, in autocommit."""
        keys, missing = self._known(tenant_id, subjects)
        if missing:
            wrapped = [self.master.wrap(tenant_id, subject, os.urandom(KEY_BYTES)) for subject in missing]
            cursor = await connection.execute(OPEN_KEYS, (tenant_id, missing, wrapped, self.master.id))
            self._learn(tenant_id, keys, await cursor.fetchall())
        return keys

    async def find_as_tenant(
        self, connection: AsyncConnection[TupleRow], tenant_id: UUID, subjects: Iterable[UUID]
    ) -> Keys:
        """The same on a connection of the app role, which sees a tenant only when it is set."""
        keys, missing = self._known(tenant_id, subjects)
        if missing:
            (rows,) = await tenancy.query(connection, tenant_id, {"subjects": missing}, READ_KEYS)
            self._learn(tenant_id, keys, rows)
        return keys

    async def find(self, connection: AsyncConnection[TupleRow], tenant_id: UUID, subjects: Iterable[UUID]) -> Keys:
        """The keys that there are. `connection` sees every tenant: a projector's."""
        keys, missing = self._known(tenant_id, subjects)
        if missing:
            cursor = await connection.execute(READ_KEYS, {"tenant": tenant_id, "subjects": missing})
            self._learn(tenant_id, keys, await cursor.fetchall())
        return keys

    def _known(self, tenant_id: UUID, subjects: Iterable[UUID]) -> tuple[dict[UUID, AESGCM], list[UUID]]:
        keys: dict[UUID, AESGCM] = {}
        missing: list[UUID] = []
        for subject in dict.fromkeys(subjects):
            cached = self._cached.get((tenant_id, subject))
            if cached is None:
                missing.append(subject)
            else:
                keys[subject] = cached
                self._cached.move_to_end((tenant_id, subject))
        return keys, missing

    def _learn(self, tenant_id: UUID, keys: dict[UUID, AESGCM], rows: Sequence[TupleRow]) -> None:
        for subject, wrapped, master_key_id in rows:
            if master_key_id != self.master.id:
                raise errors.MasterKeyMissing(master_key_id)
            cipher = AESGCM(self.master.unwrap(tenant_id, subject, wrapped))
            keys[subject] = self._cached[tenant_id, subject] = cipher
        while len(self._cached) > KEYS_CACHED_MAX:
            self._cached.popitem(last=False)
