"""Where workers count together: files that each maps into its memory, and that whoever is scraped reads and sums.

A worker has the number of its place, and the files of that number; who takes the place of a killed one goes on with what it
had counted, so nothing falls and nothing is counted twice. They lie on a file system in memory: on a disk, a page that is
being written back makes whoever counts wait for the disk. Their room is taken beforehand: to run out of it later, amidst a
request, would end the process (SIGBUS).
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

MEMORY = Path("/dev/shm")  # nosec B108  # in it a folder of its own, with 0700
GAUGES = "gauge_livesum"
BYTES = {"counter": 192 * 1024, "histogram": 512 * 1024, GAUGES: 16 * 1024}
"""Of a worker's files, by the kind in their names: some 250 bytes a series of a counter and a gauge, 4 KiB one of a histogram.
prometheus_client makes them larger should that be too little, which 100 routes do not need."""


class NowhereToCount(Exception):
    def __init__(self, where: Path, error: OSError) -> None:
        super().__init__(
            f"The workers have no room to count together: {where}: {error.strerror or error}. Make room there, point TMPDIR "
            "elsewhere, or start with --workers 1."
        )


class Slot(msgspec.Struct, frozen=True):
    """A worker's place: who dies is followed by another one in the same."""

    folder: Path
    number: int

    def forget_gauges(self) -> None:
        """After a worker has ended: what it had is no more. What it counted stays, and so does the room of the file."""
        with self._file(GAUGES).open("r+b") as file:
            file.write(bytes(4))  # prometheus_client's count of bytes that are used

    def _make(self) -> None:
        for kind, size in BYTES.items():
            with self._file(kind).open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)

    def _file(self, kind: str) -> Path:
        return self.folder / f"{kind}_{self.number}.db"


@contextmanager
def folder(workers: int) -> Iterator[Path]:
    """For so many workers; deleted at the end. Raises NowhereToCount."""
    needed = 2 * workers * sum(BYTES.values())
    in_memory = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= needed
    where = MEMORY if in_memory else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix="bitnexus-counts-", dir=where, ignore_cleanup_errors=True) as name:
        try:
            for number in range(workers):
                Slot(Path(name), number)._make()
        except OSError as error:
            raise NowhereToCount(where, error) from None
        yield Path(name)
