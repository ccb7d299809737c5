"""The hash chain: leaf version 1 and what links it. The database computes the same in `ledger.append`.

hash = SHA-256(0x00 ‖ leaf), the leaf hash of RFC 6962, 2.1, with the leaf as ARCHITECTURE and ledger/README.md state it.
"""

import hashlib
import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

LEAF_BYTES_MAX = 65_535
"""A leaf that is larger is refused before anything is written (tlog tiles count an entry's length in 16 bits)."""
LEAF_BYTES_FIXED = 97
"""1 + 32 + 16 + 8 + 16 + 4 + 8 and three lengths of 4."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NUMBERS = struct.Struct(">q16siq")


def genesis(tenant_id: UUID) -> bytes:
    """What the first event of a tenant links to: 32 bytes."""
    return hashlib.sha256(b"bitnexus ledger v1\0" + tenant_id.bytes).digest()


def microseconds(instant: datetime) -> int:
    """Since 1970-01-01T00:00:00Z, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def framed(data: bytes) -> bytes:
    """u32 length (big-endian), then the bytes."""
    return len(data).to_bytes(4, "big") + data


def leaf_hash(
    previous: bytes,
    tenant_id: UUID,
    position: int,
    originator_id: UUID,
    originator_version: int,
    recorded_at: datetime,
    topic: str,
    state: bytes,
    metadata: bytes,
) -> bytes:
    """The hash of one event: 32 bytes."""
    numbers = _NUMBERS.pack(position, originator_id.bytes, originator_version, microseconds(recorded_at))
    tail = framed(topic.encode()) + framed(state) + framed(metadata)
    return hashlib.sha256(b"\x00\x01" + previous + tenant_id.bytes + numbers + tail).digest()
