"""The keys that access tokens are signed with: in the database, wrapped, the same for every node, and changed while all of them run.

A new key is published for PUBLISHED_S before it signs, so that every node and everybody who keeps the published keys has it by
then; the one before it verifies OVERLAP_S longer, so that its last token expires first. Which key signs is a question of the
clock, so nodes change over within the difference of their clocks.
"""

import base64
import hashlib
import json
import os
import time
from typing import LiteralString, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import errors
from ledger.keys import NONCE_BYTES, MasterKey

LABEL = "wrap token keys"
SEED_BYTES = 32
PUBLISHED_S = 600
"""Twice as long as others may keep the published keys (api/health.py), and much longer than a node needs to hear of it."""
OVERLAP_S = 1_200
"""A token's 15 minutes, and five for clocks that differ."""
KEYS_MAX = 16
"""Each rotation leaves one for half an hour. More than that were made by nobody who meant well, and every look reads them."""

# Cross-tenant in that it is about the installation. Seconds since 1970: an infinite time is none of Python's datetimes.
READ: LiteralString = """
SELECT id, wrapped, extract(epoch FROM signs_from)::float8, extract(epoch FROM verifies_until)::float8
FROM ledger.token_keys WHERE verifies_until > clock_timestamp() ORDER BY signs_from DESC, id LIMIT %s
"""
BEGIN: LiteralString = "SELECT ledger.begin_token_keys(%s, %s)"
ROTATE: LiteralString = "SELECT ledger.rotate_token_keys(%s, %s, %s, %s)"

Connection = AsyncConnection[TupleRow]


class TokenKeyUnusable(errors.LedgerError):
    """No key can be unwrapped: the rows were changed, or written under another root."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(
            f"No key for access tokens can be unwrapped: {', '.join(ids)}. Restore the rows of ledger.token_keys from a backup, "
            "or delete them: the next process that starts makes a new key, and everybody refreshes."
        )


class TokenKey(NamedTuple):
    """`id` is the JWK thumbprint of the public key (RFC 7638), and a token's `kid`. Times in seconds since 1970."""

    id: str
    private: Ed25519PrivateKey
    x: str  # the public key, base64url
    signs_from: float
    verifies_until: float


class NewKey(NamedTuple):
    """As it goes into the database."""

    id: str
    wrapped: bytes


def of_seed(seed: bytes, signs_from: float = 0.0, verifies_until: float = float("inf")) -> TokenKey:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    x = _base64url(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    # RFC 7638: the required members in order of their names, without blanks
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"))
    return TokenKey(_base64url(hashlib.sha256(members.encode()).digest()), private, x, signs_from, verifies_until)


def new(master: MasterKey) -> NewKey:
    """A key that nobody has had."""
    seed, nonce = os.urandom(SEED_BYTES), os.urandom(NONCE_BYTES)
    id = of_seed(seed).id
    return NewKey(id, nonce + AESGCM(master.derive(LABEL)).encrypt(nonce, seed, id.encode()))


class TokenKeys:
    """What this process knows of them; `look` keeps it fresh. Touched by the event loop's thread only."""

    def __init__(self, master: MasterKey) -> None:
        self._master = master
        self._cipher = AESGCM(master.derive(LABEL))
        self._rows: list[TupleRow] = []
        self.all: tuple[TokenKey, ...] = ()
        """Those that verify, in the order in which they sign. Another tuple whenever something changed."""

    def signing(self) -> TokenKey:
        """The newest whose time to sign has come."""
        now = time.time()
        return next((key for key in reversed(self.all) if key.signs_from <= now), self.all[0])

    async def look(self, connection: Connection) -> None:
        """The keys are those of the database. The first key is made if there is none. Raises TokenKeyUnusable, psycopg.Error."""
        rows = await self._read(connection)
        if not rows:
            await connection.execute(BEGIN, new(self._master))
            rows = await self._read(connection)
        if rows == self._rows and self.all:
            return
        found = tuple(key for row in reversed(rows) if (key := self._unwrapped(row)) is not None)
        if not found:
            raise TokenKeyUnusable([id for id, *_ in rows])
        self._rows, self.all = rows, found

    def lost(self) -> None:
        """What was known stays good: a key that is to end soon says so itself."""

    async def _read(self, connection: Connection) -> list[TupleRow]:
        return await (await connection.execute(READ, (KEYS_MAX,), prepare=True)).fetchall()

    def _unwrapped(self, row: TupleRow) -> TokenKey | None:
        """None if it was not made under this installation's master key."""
        id, wrapped, signs_from, verifies_until = row
        try:
            seed = self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], id.encode())
        except (InvalidTag, ValueError):
            return None
        return of_seed(seed, signs_from, verifies_until)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
