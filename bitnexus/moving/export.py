"""Write a tenant's stream into a file: one snapshot, one pass, bounded memory."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, LiteralString
from uuid import UUID

import msgspec
from psycopg import Connection
from psycopg.rows import TupleRow

from bitnexus.moving import errors, format, passphrase
from ledger import errors as ledger_errors
from ledger.keys import MasterKey

ROWS_PER_FETCH = 500
"""At 64 KiB an event this is 32 MiB at the most."""

HEAD: LiteralString = "SELECT position, hash FROM ledger.heads WHERE tenant_id = %(tenant)s"
KEYS: LiteralString = """
SELECT subject_id, wrapped, master_key_id FROM ledger.subject_keys WHERE tenant_id = %(tenant)s ORDER BY subject_id
"""
EVENTS: LiteralString = """
SELECT originator_id, originator_version, recorded_at, topic, state, metadata, hash
FROM ledger.events WHERE tenant_id = %(tenant)s ORDER BY position
"""

Progress = Callable[[int, int], None]
"""Called with the events done and the events that there are."""


class Locked(msgspec.Struct, frozen=True):
    """That the keys of persons travel too: what unwraps them here, and what they are wrapped under in the file."""

    master: MasterKey
    passphrase: str


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds. `hash` (hex) is the head's: compare it with what the import says."""

    tenant_id: UUID
    slug: str
    position: int
    hash: str
    keys: int


def export(
    connection: Connection[TupleRow],
    tenant_id: UUID,
    slug: str,
    name: str,
    file: BinaryIO,
    locked: Locked | None = None,
    progress: Progress = lambda events, all: None,
) -> Exported:
    """Up to the head as it is now; the tenant goes on meanwhile. `connection` is the projector's, in no transaction.

    Raises TenantUnknown, StreamBroken (what does not verify is not spread), MasterKeyMissing, PassphraseTooShort.
    """
    salt = None if locked is None else passphrase.new_salt()
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        head = connection.execute(HEAD, {"tenant": tenant_id}, binary=True).fetchone()
        if head is None or head[0] == 0:
            raise ledger_errors.TenantUnknown(tenant_id)
        position, hash = head
        writer = format.Writer(file)
        writer.header(
            format.Header(
                tenant_id=tenant_id,
                slug=slug,
                name=name,
                position=position,
                hash=hash.hex(),
                exported_at=datetime.now(UTC),
                release=metadata.version("bitnexus"),
                salt=salt,
            )
        )
        keys = 0 if locked is None or salt is None else _keys(connection, tenant_id, locked, salt, writer)
        _events(connection, tenant_id, position, hash, writer, progress)
        writer.end(hash)
    return Exported(tenant_id=tenant_id, slug=slug, position=position, hash=hash.hex(), keys=keys)


def _keys(connection: Connection[TupleRow], tenant_id: UUID, locked: Locked, salt: bytes, writer: format.Writer) -> int:
    wrapping = passphrase.Wrapping(passphrase.checked(locked.passphrase), salt, tenant_id)
    count = 0
    for subject, wrapped, master_key_id in _streamed(connection, "keys", KEYS, tenant_id):
        key = locked.master.unwrap(tenant_id, subject, wrapped, master_key_id)
        writer.key(subject.bytes, wrapping.wrap(subject.bytes, key))
        count += 1
    return count


def _events(
    connection: Connection[TupleRow],
    tenant_id: UUID,
    position: int,
    hash: bytes,
    writer: format.Writer,
    progress: Progress,
) -> None:
    chained = format.Chain(tenant_id)
    for row in _streamed(connection, "events", EVENTS, tenant_id):
        tail = format.tail(*row[:-1])
        why = chained.step(tail, row[-1])
        if why is not None:
            raise errors.StreamBroken(chained.position + 1, why)
        writer.event(tail, row[-1])
        if chained.position % ROWS_PER_FETCH == 0:
            progress(chained.position, position)
    if (chained.position, chained.hash) != (position, hash):
        raise errors.StreamBroken(chained.position + 1, f"its head stands at {position} with another hash")
    progress(position, position)


def _streamed(connection: Connection[TupleRow], name: str, query: LiteralString, tenant_id: UUID) -> Iterator[TupleRow]:
    with connection.cursor(name) as cursor:
        cursor.itersize = ROWS_PER_FETCH
        cursor.execute(query, {"tenant": tenant_id}, binary=True)
        yield from cursor


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name, mode 0600, once it is whole and on the disk; if anything is raised there is none.

    Raises FileExists, FileUnusable.
    """
    if os.path.lexists(path):
        raise errors.FileExists(path)
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise errors.FileUnusable(path, error) from None
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.rename(partial, path)
    except OSError as error:
        os.unlink(partial)
        raise errors.FileUnusable(path, error) from None
    except BaseException:
        os.unlink(partial)
        raise
