"""The layout of a tenant's file, version 1, as docs/tenant-files.md states it: written and read block by block.

Every byte counts: the last 32 are the SHA-256 of all before them, and nothing may follow.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import BinaryIO, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from bitnexus.moving import errors, passphrase
from ledger import chain

MAGIC = b"\x89bitnexus\r\n\x1a\n"  # a transfer that takes it for text breaks it at once
VERSION = 1

BLOCK_BYTES = 256 * 1024
"""Of a block before compression, about: larger ones are hardly smaller compressed."""
BLOCK_BYTES_MAX = BLOCK_BYTES + chain.LEAF_BYTES_MAX + 4
"""What a reader lets a block become: one more frame than it takes to fill it."""
COMPRESSED_BYTES_MAX = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX // 1000 + 64  # zlib's bound, generously
DIGEST_BYTES = 32
KEY_BYTES = 16 + passphrase.WRAPPED_BYTES
TIME_US_MAX = 253_402_300_799_999_999
"""The last microsecond of the year 9999: what every language's dates can hold."""

_VERSION = struct.Struct(">H")
_BLOCK = struct.Struct(">cII")  # kind, bytes compressed, bytes before
_ROW = struct.Struct(">16siq")  # originator, its version, recorded_at in µs since 1970
_POSITION = struct.Struct(">q")

S = TypeVar("S", bound=msgspec.Struct)


class Kind(Enum):
    """Of a block, in the order in which they come: one header, keys, events, one trailer."""

    HEADER = b"H"
    KEYS = b"K"
    EVENTS = b"E"
    TRAILER = b"T"


_ORDER = {kind: number for number, kind in enumerate(Kind)}


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose stream it is, and where it ends. `salt`: of the keys' passphrase, None if no keys travel."""

    tenant_id: UUID
    slug: str
    name: str
    position: int
    hash: str  # hex
    exported_at: datetime
    release: str
    salt: bytes | None


class Trailer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was written before it."""

    keys: int
    events: int
    hash: str  # hex, of the last event


class Row(NamedTuple):
    """An event. `tail` is what follows the position in its leaf; topic, state and metadata are parts of it."""

    originator_id: bytes
    originator_version: int
    recorded_us: int
    topic: bytes
    state: bytes
    metadata: bytes
    hash: bytes
    tail: bytes


def tail(originator_id: UUID, version: int, recorded_at: datetime, topic: str, state: bytes, metadata: bytes) -> bytes:
    """What follows the position in an event's leaf."""
    numbers = _ROW.pack(originator_id.bytes, version, chain.microseconds(recorded_at))
    return numbers + chain.framed(topic.encode()) + chain.framed(state) + chain.framed(metadata)


def leaf_hash(previous: bytes, tenant_id: UUID, position: int, tail: bytes) -> bytes:
    """The hash of the event whose leaf ends with that tail: 32 bytes."""
    return hashlib.sha256(b"".join((b"\x00\x01", previous, tenant_id.bytes, _POSITION.pack(position), tail))).digest()


class Chain:
    """The recomputation of a stream, event by event."""

    def __init__(self, tenant_id: UUID) -> None:
        self.position = 0
        self.hash = chain.genesis(tenant_id)
        self._tenant_id = tenant_id

    def step(self, tail: bytes, stored: bytes) -> str | None:
        """Why the next event does not fit; None if it does, and then it counts."""
        position = self.position + 1
        computed = leaf_hash(self.hash, self._tenant_id, position, tail)
        if computed != stored:
            return f"the event at position {position} says its hash is {stored.hex()} and hashes to {computed.hex()}"
        self.position, self.hash = position, computed
        return None


class Writer:
    """From the magic bytes on; `end` makes it whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._kind = Kind.HEADER
        self._block = bytearray()
        self._keys = self._events = 0
        self._put(MAGIC + _VERSION.pack(VERSION))

    def header(self, header: Header) -> None:
        self._add(Kind.HEADER, msgspec.json.encode(header))

    def key(self, subject: bytes, wrapped: bytes) -> None:
        self._keys += 1
        self._add(Kind.KEYS, subject + wrapped)

    def event(self, tail: bytes, hash: bytes) -> None:
        self._events += 1
        self._add(Kind.EVENTS, chain.framed(tail + hash))

    def end(self, hash: bytes) -> None:
        self._add(Kind.TRAILER, msgspec.json.encode(Trailer(keys=self._keys, events=self._events, hash=hash.hex())))
        self._flush()
        self._file.write(self._digest.digest())

    def _add(self, kind: Kind, data: bytes) -> None:
        if kind is not self._kind or len(self._block) >= BLOCK_BYTES:
            self._flush()
            self._kind = kind
        self._block += data

    def _flush(self) -> None:
        compressed = zlib.compress(self._block)
        self._put(_BLOCK.pack(self._kind.value, len(compressed), len(self._block)) + compressed)
        self._block.clear()

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


class Reader:
    """Reads forward only, a block at a time. Whatever it gives may be believed once `end` has returned."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises NotATenantFile, FormatUnknown, FileDamaged."""
        self._file = file
        self._digest = hashlib.sha256()
        self.offset = 0
        begins = file.read(len(MAGIC))
        if begins != MAGIC:
            raise errors.NotATenantFile(begins)
        self._count(begins)
        (version,) = _VERSION.unpack(self._take(_VERSION.size))
        if version != VERSION:
            raise errors.FormatUnknown(version, VERSION)
        kind, block = self._next()
        if kind is not Kind.HEADER:
            raise self.damaged("the header is missing")
        self.header = self._struct(block, Header)

    def blocks(self) -> Iterator[tuple[Kind, bytes]]:
        """Keys and events, up to the trailer. Raises FileDamaged."""
        last = Kind.HEADER
        while True:
            kind, block = self._next()
            if _ORDER[kind] < _ORDER[last] or kind is Kind.HEADER:
                raise self.damaged("its blocks are out of order")
            if kind is Kind.TRAILER:
                self._trailer = self._struct(block, Trailer)
                return
            last = kind
            yield kind, block

    def end(self) -> Trailer:
        """After the last block: the file is as it was written. Raises FileDamaged."""
        computed = self._digest.digest()
        if self._file.read(DIGEST_BYTES) != computed:
            raise self.damaged("its last 32 bytes are not the SHA-256 of what stands before them")
        self.offset += DIGEST_BYTES
        if self._file.read(1):
            raise self.damaged("something follows its end")
        return self._trailer

    def keys(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Subject (16) and wrapped key. Raises FileDamaged."""
        if len(block) % KEY_BYTES:
            raise self.damaged("its keys are cut off")
        for start in range(0, len(block), KEY_BYTES):
            yield block[start : start + 16], block[start + 16 : start + KEY_BYTES]

    def rows(self, block: bytes) -> Iterator[Row]:
        """Raises FileDamaged."""
        at = 0
        while at < len(block):
            framed, at = self._frame(block, at)
            yield self._row(framed)

    def damaged(self, why: str) -> errors.FileDamaged:
        return errors.FileDamaged(self.offset, why)

    def _row(self, framed: bytes) -> Row:
        tail, stored = framed[:-32], framed[-32:]
        if len(tail) < _ROW.size:
            raise self.damaged("an event is cut off")
        originator_id, version, recorded_us = _ROW.unpack_from(tail)
        topic, at = self._frame(tail, _ROW.size)
        state, at = self._frame(tail, at)
        metadata, at = self._frame(tail, at)
        if at != len(tail) or version < 1 or not 0 <= recorded_us <= TIME_US_MAX:
            raise self.damaged("an event holds what no event can")
        return Row(originator_id, version, recorded_us, topic, state, metadata, stored, tail)

    def _frame(self, data: bytes, at: int) -> tuple[bytes, int]:
        start = at + 4
        end = start + int.from_bytes(data[at:start], "big")
        if end > len(data) or start > len(data):
            raise self.damaged("a length leads past the end")
        return data[start:end], end

    def _next(self) -> tuple[Kind, bytes]:
        letter, compressed, plain = _BLOCK.unpack(self._take(_BLOCK.size))
        try:
            kind = Kind(letter)
        except ValueError:
            raise self.damaged("a block is of no kind that is known") from None
        if compressed > COMPRESSED_BYTES_MAX or plain > BLOCK_BYTES_MAX:
            raise self.damaged("a block is larger than any")
        return kind, self._inflated(self._take(compressed), plain)

    def _inflated(self, data: bytes, plain: int) -> bytes:
        """Never more than `plain` bytes, whatever the data would unfold to."""
        inflating = zlib.decompressobj()
        try:
            block = inflating.decompress(data, plain + 1)
        except zlib.error:
            raise self.damaged("a block cannot be decompressed") from None
        if len(block) != plain or not inflating.eof or inflating.unused_data:
            raise self.damaged("a block has not the length that it says")
        return block

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise self.damaged("it ends too early")
        self._count(data)
        return data

    def _count(self, data: bytes) -> None:
        self._digest.update(data)
        self.offset += len(data)

    def _struct(self, block: bytes, cls: type[S]) -> S:
        try:
            return msgspec.json.decode(block, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self.damaged(f"its {cls.__name__.lower()} cannot be read") from None
