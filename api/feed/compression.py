"""What a stream is written as: as it is, or as gzip where the client asks for it.

Each chunk is flushed: a message is never held back. All that one stream's compressor keeps is about 32 KiB (a window of 4 KiB
instead of 32, which JSON of one shape hardly notices), and a process has COMPRESSED_MAX of them; who comes later gets it plain.
"""

import zlib
from typing import Protocol

COMPRESSED_MAX = 1_000
"""32 MiB."""
LEVEL = 6
WINDOW_BITS = 12
MEMORY_LEVEL = 5
GZIP = 16
"""Added to the window's bits it asks zlib for gzip's header and trailer."""


class Writer(Protocol):
    """From the stream's text to its bytes, in order."""

    @property
    def name(self) -> bytes | None:
        """The coding, as Content-Encoding has it; None: there is none."""

    def chunk(self, text: bytes) -> bytes:
        """The client can read all of it at once."""

    def end(self) -> bytes:
        """What closes the coding. Nothing follows."""


class Plain:
    name = None

    def chunk(self, text: bytes) -> bytes:
        return text

    def end(self) -> bytes:
        return b""


class Gzip:
    name = b"gzip"

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP + WINDOW_BITS, MEMORY_LEVEL)

    def chunk(self, text: bytes) -> bytes:
        return self._compressor.compress(text) + self._compressor.flush(zlib.Z_SYNC_FLUSH) if text else b""

    def end(self) -> bytes:
        return self._compressor.flush(zlib.Z_FINISH)


def takes_gzip(accept_encoding: str | None) -> bool:
    """Whether the header asks for gzip, by name or by `*` (RFC 9110, 12.5.3). What cannot be read asks for nothing."""
    wanted: dict[str, bool] = {}
    for part in (accept_encoding or "").split(","):
        coding, _, parameter = part.partition(";")
        quality = parameter.replace(" ", "").lower().removeprefix("q=")
        try:
            wanted[coding.strip().lower()] = not quality or float(quality) > 0.0
        except ValueError:
            wanted[coding.strip().lower()] = False
    return wanted.get("gzip", wanted.get("x-gzip", wanted.get("*", False)))
