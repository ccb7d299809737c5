"""Columns of rows as PostgreSQL arrays in binary, for `INSERT … SELECT … FROM unnest(…)`.

One array a column, one statement a batch. None is NULL; the flag for it is always set where None may be, as the server
does not rely on it. Packed by hand for the same reason as in `ledger.arrays`, whose format this is.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

from ledger import arrays

_NULL = b"\xff\xff\xff\xff"
_INT8 = struct.Struct(">iq")
_LENGTH = struct.Struct(">i")
_JSONB = struct.Struct(">iB")
_JSONB_VERSION = 1
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL counts from here
_ENCODER = msgspec.json.Encoder()


class Uuids(arrays.PackedArray):
    """uuid[]."""

    __slots__ = ()
    element_oid = 2950

    @classmethod
    def of(cls, items: Sequence[UUID | None]) -> "Uuids":
        body = b"".join([_NULL if item is None else b"\0\0\0\x10" + item.bytes for item in items])
        return cls(len(items), body, has_nulls=True)


class Int8s(arrays.PackedArray):
    """bigint[]."""

    __slots__ = ()
    element_oid = 20

    @classmethod
    def of(cls, items: Iterable[int]) -> "Int8s":
        pack = _INT8.pack
        packed = [pack(8, item) for item in items]
        return cls(len(packed), b"".join(packed))


class Texts(arrays.PackedArray):
    """text[]."""

    __slots__ = ()
    element_oid = 25

    @classmethod
    def of(cls, items: Sequence[str | None]) -> "Texts":
        pack = _LENGTH.pack
        parts: list[bytes] = []
        for item in items:
            if item is None:
                parts.append(_NULL)
            else:
                encoded = item.encode()
                parts += (pack(len(encoded)), encoded)
        return cls(len(items), b"".join(parts), has_nulls=True)


class Times(arrays.PackedArray):
    """timestamptz[], of aware datetimes."""

    __slots__ = ()
    element_oid = 1184

    @classmethod
    def of(cls, items: Iterable[datetime]) -> "Times":
        pack, epoch = _INT8.pack, _EPOCH
        packed = []
        for item in items:
            since = item - epoch
            packed.append(pack(8, since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds))
        return cls(len(packed), b"".join(packed))


class Jsons(arrays.PackedArray):
    """json[]: kept as it is written."""

    __slots__ = ()
    element_oid = 114

    @classmethod
    def of(cls, items: Iterable[object]) -> "Jsons":
        pack, encode = _LENGTH.pack, _ENCODER.encode
        encoded = [encode(item) for item in items]
        return cls(len(encoded), b"".join([part for each in encoded for part in (pack(len(each)), each)]))


class Jsonbs(arrays.PackedArray):
    """jsonb[]."""

    __slots__ = ()
    element_oid = 3802

    @classmethod
    def of(cls, items: Iterable[object]) -> "Jsonbs":
        pack, encode = _JSONB.pack, _ENCODER.encode
        encoded = [encode(item) for item in items]
        body = b"".join([part for each in encoded for part in (pack(len(each) + 1, _JSONB_VERSION), each)])
        return cls(len(encoded), body)


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: arrays.PackedArray) -> Buffer:
        return obj.data


def _dumper(array_oid: int) -> type[_PackedDumper]:
    return type(f"_Dumper{array_oid}", (_PackedDumper,), {"oid": array_oid})


_DUMPERS: dict[type[arrays.PackedArray], type[_PackedDumper]] = {
    Uuids: _dumper(2951),
    Int8s: _dumper(1016),
    Texts: _dumper(1009),
    Times: _dumper(1185),
    Jsons: _dumper(199),
    Jsonbs: _dumper(3807),
}


def register(adapters: AdaptersMap) -> None:
    """Let a connection take these columns as parameters."""
    for column, dumper in _DUMPERS.items():
        adapters.register_dumper(column, dumper)
