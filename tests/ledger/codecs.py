"""Events for the tests of the codec, and how readers get them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.codec import Codec

TENANT, ORIGINATOR, OTHER = (UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + n) for n in (1, 2, 3))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Keys = dict[int, AESGCM]


class EveryKey(Keys):
    """A key for whoever is asked for, made at first use."""

    def __missing__(self, subject: int) -> AESGCM:
        self[subject] = AESGCM(subject.to_bytes(16, "big") * 2)
        return self[subject]

    def get(self, subject: int, default: Any = None) -> Any:
        return self[subject]


def decoded(codec: Codec, topic: str, state: bytes, keys: Mapping[int, AESGCM] | None = None, **at: Any) -> Any:
    """The event as readers get it. `at`: tenant, originator, version, if not the usual ones."""
    tenant, originator = at.get("tenant", TENANT), at.get("originator", ORIGINATOR)
    version = at.get("version", 1)
    parsed = codec.parse(topic, originator, version, state)
    return codec.finish(tenant, originator, version, NOON, parsed, keys if keys is not None else EveryKey())
