"""Ids are UUIDv7 (RFC 9562): in time order, so that new rows land side by side in every index."""

import hashlib
from uuid import UUID

from uuid_utils import compat


def new_id() -> UUID:
    """A UUIDv7. It shows its time: what must be unguessable needs 128 random bits instead."""
    return compat.uuid7()


def derived_id(*parts: bytes) -> UUID:
    """The same parts give the same id: a UUIDv8 (RFC 9562, 5.8) of their SHA-256, parts framed by length."""
    framed = b"".join([len(part).to_bytes(4, "big") + part for part in parts])
    value = int.from_bytes(hashlib.sha256(framed).digest()[:16], "big")
    value = value & ~(0xF << 76) | 8 << 76
    return UUID(int=value & ~(0x3 << 62) | 2 << 62)
