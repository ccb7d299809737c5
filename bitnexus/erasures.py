"""The list of erasures outside the database: who was forgotten stays so when a backup is restored.

A file of lines, each a JSON object of two random ids, nothing else; only ever appended to. A line is durable before the
erasure is in the database. A process compares the list with the database before it serves, and erases again whom the
database still knows. Keep the file where the database's backups are not, and give every node the same one.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import msgspec

from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import privacy
from ledger import ids
from ledger.caller import Caller
from projections import catalogue

NAME = "erasures.jsonl"
MODE = 0o600
LINE_BYTES_MAX = 1_024
"""A line has some 110 bytes. More is some other file."""
ENTRIES_PER_QUERY_MAX = 1_000
VIEWS_S_MAX = 600.0
"""How long a start waits for the views to forget whom the list brought; a few events take milliseconds."""

# Cross-tenant, of the projector's role: those of the list whom the database has not forgotten.
NOT_ERASED: LiteralString = """
SELECT DISTINCT x.tenant_id, x.subject_id FROM unnest(%(tenants)s::uuid[], %(subjects)s::uuid[]) AS x (tenant_id, subject_id)
JOIN ledger.heads h ON h.tenant_id = x.tenant_id
WHERE NOT EXISTS (SELECT FROM ledger.erased_subjects e WHERE e.tenant_id = x.tenant_id AND e.subject_id = x.subject_id)
"""

_log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One person. `subject_id`: an account's id, or the one under which a buyer's reference was kept."""

    tenant_id: UUID
    subject_id: UUID


class ErasureListUnusable(Exception):
    def __init__(self, happened: str, path: Path, value: str, advice: str) -> None:
        super().__init__(f"{happened}: {path}: {value}. {advice}.")


class ErasureList:
    """One file, which several processes may append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def note(self, tenant_id: UUID, subject_id: UUID) -> None:
        """Durable when it returns. Raises NotNoted."""
        try:
            await asyncio.to_thread(self.append, Entry(tenant_id, subject_id))
        except ErasureListUnusable as error:
            _log.error("%s", error)
            raise privacy.NotNoted from error

    def append(self, entry: Entry) -> None:
        """Durable when it returns. Raises ErasureListUnusable."""
        try:
            self._append(msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            raise ErasureListUnusable(
                "The list of erasures cannot be written, so nobody is erased",
                self.path,
                error.strerror or str(error),
                "Make room or give the user the right to write there, or set BITNEXUS_ERASURE_LIST",
            ) from None

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        made = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        with open(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                line = b"\n" + line  # somebody died while writing: what they wrote stays a line of its own
            if file.write(line) != len(line):
                raise OSError("only a part of the line could be written")
            os.fsync(file.fileno())
        if made:
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def entries(self) -> Iterator[Entry]:
        """In the order of writing; none if there is no file. Raises ErasureListUnusable."""
        try:
            with self.path.open("rb") as file:
                number = 0
                while line := file.readline(LINE_BYTES_MAX):
                    number += 1
                    if (entry := self._entry(line, number)) is not None:
                        yield entry
        except FileNotFoundError:
            return
        except OSError as error:
            raise ErasureListUnusable(
                "The list of erasures cannot be read",
                self.path,
                error.strerror or str(error),
                "Run as the user that owns it, or set BITNEXUS_ERASURE_LIST",
            ) from None

    def _entry(self, line: bytes, number: int) -> Entry | None:
        """None: the beginning of a line, by somebody who died while writing it, before anything was erased."""
        try:
            return _ENTRY.decode(line)
        except msgspec.DecodeError:
            if len(line) < _LINE_BYTES and _BEGIN.startswith(line.rstrip(b"\n")[: len(_BEGIN)]):
                _log.warning("Line %s of %s was not finished: that erasure was not made", number, self.path)
                return None
            raise ErasureListUnusable(
                "The list of erasures holds something that is no erasure",
                self.path,
                f"line {number} (not shown)",
                "Put the file back as it was written; to serve without it would show people who were erased",
            ) from None


_ENTRY = msgspec.json.Decoder(Entry)
_BEGIN = b'{"tenant_id":"'
_LINE_BYTES = len(msgspec.json.encode(Entry(UUID(int=0), UUID(int=0)))) + 1


def of(settings: Settings) -> ErasureList:
    """The installation's."""
    return ErasureList(settings.erasure_list or settings.data_dir / NAME)


async def apply(parts: Process, erasures: ErasureList) -> int:
    """Erase whom the list names and the database still knows; returns how many when no view shows them any more.

    For a process whose projections run. Raises ErasureListUnusable, ViewBehind, psycopg.Error.
    """
    entries = erasures.entries()
    positions: dict[UUID, int] = {}
    erased = 0
    while some := list(islice(entries, ENTRIES_PER_QUERY_MAX)):
        for tenant_id, subject_id in await _not_erased(parts, some):
            command_id = ids.derived_id(b"erasure list", tenant_id.bytes, subject_id.bytes)  # of two nodes one does it
            caller = Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=command_id)
            command = privacy.Erase(subject_id=subject_id)
            receipt = await privacy.erase(command, caller, parts.ledger, privacy.noted_nowhere)  # it is in the list
            positions[tenant_id] = receipt.position
            erased += 1
    views = [view.name for view in catalogue.VIEWS if view.erase is not None]
    for tenant_id, position in positions.items():
        await parts.reached.wait(tenant_id, views, position, VIEWS_S_MAX)
    if erased:
        _log.warning("%s persons of the list of erasures were in the database and have been erased again", erased)
    return erased


async def _not_erased(parts: Process, entries: Sequence[Entry]) -> list[tuple[UUID, UUID]]:
    values = {"tenants": [each.tenant_id for each in entries], "subjects": [each.subject_id for each in entries]}
    async with parts.projector.connection() as connection:
        rows = await (await connection.execute(NOT_ERASED, values)).fetchall()
    return [(tenant_id, subject_id) for tenant_id, subject_id in rows]
