"""Takes a PostgreSQL's room away and gives it back: by a limit on the size of its files, or on a file system that is small.

The limit needs no privilege and works everywhere, but the system says "file too large" (EFBIG), as a quota does. Only the file
system says "no space left" (ENOSPC), for which PostgreSQL has an error of its own.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import sql

from bitnexus.embedded import Embedded, cluster

WAL_SEGMENT_BYTES = 16 * 1024 * 1024
"""No file of the log is larger: a limit above that hits tables only."""
LEFT_BYTES = 256 * 1024
"""Room that is left when it gets scarce: about 300 commands, so that it ends amidst a load."""
FILLER_BYTES = 64 * 1024

SWELL_ROWS = WAL_SEGMENT_BYTES // 8192 * 4


class Table(NamedTuple):
    """One that is to run out of room. `swell` inserts as many rows of 2 kB as it is told, of which four fill a page, in a
    transaction that is rolled back: the table's file stays as large, and no row is there. It is compressed by nobody."""

    name: LiteralString
    swell: LiteralString


EVENTS = Table(
    "ledger.events",
    """
    INSERT INTO ledger.events (tenant_id, position, originator_id, originator_version, topic, recorded_at, state, metadata, hash)
    SELECT gen_random_uuid(), n, gen_random_uuid(), 1, 'nothing', now(), convert_to(repeat('x', 1880), 'UTF8'), '', sha256('')
    FROM generate_series(1, %s) AS n
    """,
)
PRODUCTS = Table(
    "views.products",
    """
    INSERT INTO views.products (tenant_id, product_id, sku, name, price, currency, metadata, status, inserted_at, updated_at, position)
    SELECT gen_random_uuid(), gen_random_uuid(), 'nothing', repeat('x', 1900), 0, 'EUR', '{}', 'listed', now(), now(), n
    FROM generate_series(1, %s) AS n
    """,
)


class FileLimit:
    """No file of `embedded`'s server grows past a size from `take` or `limit` on, until `give` or until the server starts anew."""

    def __init__(self, embedded: Embedded, table: Table = EVENTS) -> None:
        self._embedded = embedded
        self._table = table
        with psycopg.connect(embedded.owner_url) as owner:
            # Else it finds that room in the table after a minute, or room that is left in its pages at once.
            keep_swollen = sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = false, fillfactor = 100)")
            owner.execute(keep_swollen.format(sql.SQL(table.name)))
        with psycopg.connect(embedded.owner_url) as owner:
            owner.execute(table.swell, [SWELL_ROWS])
            owner.rollback()

    def take(self, left_bytes: int = LEFT_BYTES) -> None:
        """The table gets so much more, the write-ahead log all that it wants."""
        with psycopg.connect(self._embedded.owner_url) as owner:
            row = owner.execute("SELECT pg_relation_size(%s)", (self._table.name,)).fetchone()
        assert row is not None
        assert row[0] >= WAL_SEGMENT_BYTES
        self.limit(row[0] + left_bytes)

    def give(self) -> None:
        self.limit(resource.RLIM_INFINITY)

    def limit(self, file_bytes_max: int, application: str | None = None) -> None:
        """`application`: only the backends of that name, and every process that starts from now on.

        The first process comes before the others, so that none that starts meanwhile goes without.
        """
        postmaster = cluster.pid(self._embedded.data_dir)
        assert postmaster is not None
        owner = (self._embedded.data_dir / "pg").stat()
        chosen = None if application is None else self._backends(application)
        with _really(owner.st_uid, owner.st_gid):
            _limit(postmaster, file_bytes_max)
            for pid in _children(postmaster) if chosen is None else chosen:
                try:
                    _limit(pid, file_bytes_max)
                except ProcessLookupError:
                    continue  # it has ended

    def _backends(self, application: str) -> list[int]:
        with psycopg.connect(self._embedded.owner_url) as owner:
            query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
            return [pid for (pid,) in owner.execute(query, (application,))]


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _limit(pid: int, file_bytes_max: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    assert hard == resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes_max, hard))


@contextmanager
def _really(uid: int, gid: int) -> Iterator[None]:
    """The system compares the real user, and not even root in a container may limit another one's process (CAP_SYS_RESOURCE)."""
    us, ours = os.getuid(), os.getgid()
    os.setresgid(gid, -1, -1)
    os.setresuid(uid, -1, -1)
    try:
        yield
    finally:
        os.setresuid(us, -1, -1)
        os.setresgid(ours, -1, -1)


class SmallDisk:
    """The table lies on the file system at `mounted`, which is small, and full from `take` until `give`."""

    def __init__(self, embedded: Embedded, mounted: Path, table: Table = EVENTS) -> None:
        self._filler = mounted / "filler"
        home = mounted / "tablespace"
        home.mkdir(mode=0o700)
        server = (embedded.data_dir / "pg").stat()
        os.chown(home, server.st_uid, server.st_gid)
        mounted.chmod(0o755)
        with psycopg.connect(embedded.owner_url, autocommit=True) as owner:
            owner.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(str(home)))
            owner.execute(sql.SQL("ALTER TABLE {} SET TABLESPACE small").format(sql.SQL(table.name)))

    def take(self, left_bytes: int = LEFT_BYTES) -> None:
        """All but so much."""
        with self._filler.open("wb", buffering=0) as filler:
            while _free(self._filler) > left_bytes:
                filler.write(bytes(FILLER_BYTES))

    def give(self) -> None:
        self._filler.unlink()


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
