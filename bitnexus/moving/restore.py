"""Read a tenant's file into the database, in one transaction: all of it verified, or nothing of it there.

The chain is computed twice, here from the bytes of the file and in the database from what it stores, and both have to agree
with the file's own hashes, its header, its trailer and the digest at its end before anything is committed.
"""

from collections.abc import Callable
from typing import Any, BinaryIO
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import Connection
from psycopg import errors as pg
from psycopg.rows import TupleRow

from bitnexus.moving import errors, format, passphrase
from commands import reservations
from commands import tenants as tenant_commands
from domain import tenants
from ledger import appender, arrays, ids, packing, store
from ledger import errors as ledger_errors
from ledger.caller import Caller
from ledger.codec import Codec
from ledger.keys import MasterKey

EVENTS_PER_BATCH_MAX = 1_000
BATCH_BYTES_MAX = 4 * 1024 * 1024
KEYS_PER_BATCH = 1_000

BEGIN = "SELECT ledger.restore_begin(%s)"
EVENTS = "SELECT o_position, o_hash FROM ledger.restore_events(%b, %b, %b, %b, %b, %b, %b)"
RESERVATIONS = "SELECT ledger.restore_reservations(%b, %b, %b, %b)"
RELEASES = "SELECT ledger.restore_releases(%b, %b, %b)"
SUBJECTS = "SELECT ledger.restore_subjects(%b, %b, %b, %b)"
KEYS = "SELECT ledger.restore_keys(%b, %b, %b, %b)"
ERASED = "SELECT ledger.restore_erased(%b, %b)"
KEYS_RESTORED = "SELECT o_subject, o_wrapped FROM ledger.restored_keys(%b, %b)"
FINISH = "SELECT ledger.restore_finish(%s, %s, %s)"

FIRST_TOPIC = tenants.Tenant.Created.TOPIC.encode()
_EPOCHS_APART_US = 946_684_800_000_000  # 1970 to 2000, where PostgreSQL begins to count

Erased = Callable[[UUID, UUID], bool]
"""Whether that tenant's subject is on the list of erasures: such a key is not taken, wherever it comes from."""
Progress = Callable[[int, int], None]
"""Called with the events done and the events that there are."""


def nobody_erased(tenant_id: UUID, subject_id: UUID) -> bool:
    return False


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What is here now. `hash` (hex) is the head's: compare it with what the export said.

    `keys_refused`: of persons who have been erased. `keys_left`: in the file, and not wanted.
    """

    tenant_id: UUID
    slug: str
    position: int
    hash: str
    keys: int
    keys_refused: int
    keys_left: int
    reservations: int
    subjects: int


class Restoring(msgspec.Struct, frozen=True, kw_only=True):
    """How to import. `passphrase` None and `without_keys` False: the file has to be one without keys."""

    master: MasterKey
    codec: Codec
    passphrase: str | None = None
    without_keys: bool = False
    erased: Erased = nobody_erased
    progress: Progress = lambda events, all: None


def restore(connection: Connection[TupleRow], file: BinaryIO, how: Restoring) -> Restored:
    """The tenant, as the file has it, registered on the platform. `connection` is the owner's, in autocommit.

    Raises NotATenantFile, FormatUnknown, FileDamaged, FileContradictory, TenantExists, SlugTaken, TenantBusy, TopicUnknown,
    EventUnreadable, PassphraseMissing, PassphraseWrong, KeysAbsent and OSError. After any of them nothing is there.
    """
    reader = format.Reader(file)
    header = reader.header
    if header.tenant_id == tenants.PLATFORM_ID:
        raise errors.PlatformStays(header.slug)
    wrapping = _wrapping(header, how)
    arrays.register(connection.adapters)
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = {appender.LOCK_TIMEOUT_MS}")
            if connection.execute(BEGIN, [header.tenant_id]).fetchone() != (True,):
                raise errors.TenantExists(header.tenant_id)
            work = _Work(connection, reader, wrapping, how)
            work.read()
            _register(connection, header, how)
            return work.finish()
    except pg.LockNotAvailable:
        raise ledger_errors.TenantBusy(header.tenant_id) from None
    except pg.UniqueViolation as error:
        table = error.diag.table_name or "a table"
        raise errors.FileContradictory("it gives twice what can be there once only", table) from None


def _wrapping(header: format.Header, how: Restoring) -> passphrase.Wrapping | None:
    if header.salt is None:
        if how.passphrase is not None:
            raise errors.KeysAbsent(header.slug)
        return None
    if how.without_keys:
        return None
    if how.passphrase is None:
        raise errors.PassphraseMissing(f"the file of {header.slug} holds keys of persons")
    return passphrase.Wrapping(how.passphrase, header.salt, header.tenant_id)


def _register(connection: Connection[TupleRow], header: format.Header, how: Restoring) -> None:
    """On the platform's stream, in the same transaction. Raises SlugTaken, TenantExists."""
    caller = Caller(tenant_id=tenants.PLATFORM_ID, actor_id=None, role="system", command_id=ids.new_id())
    registration = tenants.register(id=header.tenant_id, slug=header.slug, name=header.name)
    claim = store.Claim(tenant_commands.SLUG, header.slug, header.tenant_id)
    command = store.command_of(how.codec, how.master, caller, registration, [claim])
    row = connection.execute(packing.APPEND, packing.pack([command]), binary=True).fetchone()
    assert row is not None  # one row a command
    if row[0] == 4:
        raise tenant_commands.SlugTaken(header.slug)
    if row[0] == 3:
        raise errors.TenantExists(header.tenant_id)
    if row[0] == 6:
        raise ledger_errors.TenantUnknown(tenants.PLATFORM_ID)
    assert row[0] == 0, row[0]


class _Work:
    """What is read and not yet written, and what was counted."""

    def __init__(
        self,
        connection: Connection[TupleRow],
        reader: format.Reader,
        wrapping: passphrase.Wrapping | None,
        how: Restoring,
    ) -> None:
        self._connection, self._reader, self._wrapping, self._how = connection, reader, wrapping, how
        self._header = reader.header
        self._tenant_id = reader.header.tenant_id
        self._chain = format.Chain(self._tenant_id)
        self._rows: list[format.Row] = []
        self._rows_bytes = 0
        self._new_keys: list[tuple[bytes, bytes]] = []  # subject, wrapped for here
        self._keys_read = self._keys = self._keys_refused = 0
        self._reservations = self._subjects = 0

    def read(self) -> None:
        """All of the file, each part written when it is verified."""
        for kind, block in self._reader.blocks():
            if kind is format.Kind.KEYS:
                for subject, wrapped in self._reader.keys(block):
                    self._take_key(subject, wrapped)
                continue
            self._write_keys()
            for row in self._reader.rows(block):
                self._take_row(row)
        self._write_rows()

    def finish(self) -> Restored:
        """The last checks. Raises FileDamaged."""
        trailer, header = self._reader.end(), self._header
        here = (self._chain.position, self._chain.hash.hex())
        if here != (header.position, header.hash) or here != (trailer.events, trailer.hash):
            raise self._reader.damaged("header, events and trailer do not agree on where the stream ends")
        if trailer.keys != self._keys_read or (header.salt is None and trailer.keys):
            raise self._reader.damaged("header, keys and trailer do not agree on the keys")
        self._connection.execute(FINISH, (self._tenant_id, self._chain.position, self._chain.hash))
        return Restored(
            tenant_id=self._tenant_id,
            slug=header.slug,
            position=self._chain.position,
            hash=self._chain.hash.hex(),
            keys=self._keys,
            keys_refused=self._keys_refused,
            keys_left=self._keys_read - self._keys - self._keys_refused,
            reservations=self._reservations,
            subjects=self._subjects,
        )

    # Keys

    def _take_key(self, subject: bytes, wrapped: bytes) -> None:
        self._keys_read += 1
        if self._wrapping is None:
            return
        try:
            key = self._wrapping.unwrap(subject, wrapped)
        except errors.PassphraseWrong:
            if self._keys_read == 1:
                raise
            raise self._reader.damaged("a key cannot be opened, and others could") from None
        subject_id = UUID(bytes=subject)
        if self._how.erased(self._tenant_id, subject_id):
            self._keys_refused += 1
            return
        self._new_keys.append((subject, self._how.master.wrap(self._tenant_id, subject_id, key)))
        self._keys += 1
        if len(self._new_keys) >= KEYS_PER_BATCH:
            self._write_keys()

    def _write_keys(self) -> None:
        if self._new_keys:
            subjects, wrapped = zip(*self._new_keys, strict=True)
            packed = (arrays.UuidArray.of(subjects), arrays.ByteaArray.of(wrapped))
            self._connection.execute(KEYS, (self._tenant_id, *packed, self._how.master.id))
            self._new_keys.clear()

    # Events

    def _take_row(self, row: format.Row) -> None:
        why = self._chain.step(row.tail, row.hash)
        if why is not None:
            raise self._reader.damaged(why)
        if self._chain.position == 1 and (row.topic, row.originator_id) != (FIRST_TOPIC, self._tenant_id.bytes):
            raise errors.FileContradictory(
                "its first event is not the tenant's creation", UUID(bytes=row.originator_id)
            )
        self._rows.append(row)
        self._rows_bytes += len(row.tail)
        if len(self._rows) >= EVENTS_PER_BATCH_MAX or self._rows_bytes >= BATCH_BYTES_MAX:
            self._write_rows()

    def _write_rows(self) -> None:
        if not self._rows:
            return
        originators, versions, recorded, topics, states, metadatas, _, _ = zip(*self._rows, strict=True)
        for topic in set(topics):
            self._how.codec.event_class(topic.decode(errors="replace"))  # what nobody here can read is not let in
        parameters = (
            self._tenant_id,
            arrays.UuidArray.of(originators),
            arrays.Int4Array.of(versions),
            arrays.TextArray.of(topics),
            arrays.TimestampArray.of([us - _EPOCHS_APART_US for us in recorded]),
            arrays.ByteaArray.of(states),
            arrays.ByteaArray.of(metadatas),
        )
        try:
            stored = self._connection.execute(EVENTS, parameters, binary=True).fetchone()
        except pg.InvalidParameterValue as error:
            raise errors.FileContradictory(error.diag.message_primary or "", self._chain.position) from None
        if stored != (self._chain.position, self._chain.hash):
            raise errors.FileContradictory("the database computes another hash", self._chain.position)
        self._reserve()
        self._rows.clear()
        self._rows_bytes = 0
        self._how.progress(self._chain.position, self._header.position)

    def _reserve(self) -> None:
        """What the batch's events claim, and whom they name, keyed under this installation's master key."""
        claims: list[store.Claim] = []
        releases: list[tuple[str, UUID]] = []
        references: dict[reservations.Reference, None] = {}
        erased: list[bytes] = []
        for topic, event in self._decoded():
            released = reservations.released(topic, event)
            if released is not None:
                releases.append(released)
                claims = [each for each in claims if (each.kind, each.owner) != released]
            claim = reservations.claimed(topic, event)
            if claim is not None:
                claims.append(claim)
            reference = reservations.named(topic, event)
            if reference is not None:
                references[reference] = None
            forgotten = reservations.erased(topic, event)
            if forgotten is not None:
                erased.append(forgotten.bytes)
        refer = self._how.master.reference
        if releases:
            kinds, owners = zip(*releases, strict=True)
            values = (
                arrays.TextArray.of([kind.encode() for kind in kinds]),
                arrays.UuidArray.of([owner.bytes for owner in owners]),
            )
            gone = self._connection.execute(RELEASES, (self._tenant_id, *values)).fetchone()
            assert gone is not None  # a function's value
            self._reservations -= gone[0]
        if claims:
            self._connection.execute(
                RESERVATIONS,
                (
                    self._tenant_id,
                    arrays.TextArray.of([each.kind.encode() for each in claims]),
                    arrays.ByteaArray.of([refer(self._tenant_id, each.kind, each.key) for each in claims]),
                    arrays.UuidArray.of([each.owner.bytes for each in claims]),
                ),
            )
            self._reservations += len(claims)
        if references:
            made = self._connection.execute(
                SUBJECTS,
                (
                    self._tenant_id,
                    arrays.TextArray.of([each.kind.encode() for each in references]),
                    arrays.ByteaArray.of([refer(self._tenant_id, each.kind, each.ref) for each in references]),
                    arrays.UuidArray.of([each.subject_id.bytes for each in references]),
                ),
            ).fetchone()
            assert made is not None  # a function's value
            self._subjects += made[0]
        if erased:
            self._connection.execute(ERASED, (self._tenant_id, arrays.UuidArray.of(erased)))

    def _decoded(self) -> list[tuple[str, Any]]:
        """The batch's events that claim or name something."""
        parsed = []
        for row in self._rows:
            topic = row.topic.decode()
            if topic in reservations.TOPICS:
                id = UUID(bytes=row.originator_id)
                half = self._how.codec.parse(topic, id, row.originator_version, row.state)
                parsed.append((topic, id, row.originator_version, half))
        keys = self._keys_of({half.subject_id for _, _, _, half in parsed if half.subject_id is not None})
        codec, tenant_id = self._how.codec, self._tenant_id
        return [
            (topic, codec.finish(tenant_id, id, version, self._header.exported_at, half, keys))
            for topic, id, version, half in parsed
        ]

    def _keys_of(self, subjects: set[UUID]) -> dict[int, AESGCM]:
        if not subjects or not self._keys:
            return {}
        packed = arrays.UuidArray.of([subject.bytes for subject in subjects])
        unwrap = self._how.master.unwrap
        found = self._connection.execute(KEYS_RESTORED, (self._tenant_id, packed), binary=True)
        return {
            subject.int: AESGCM(unwrap(self._tenant_id, subject, wrapped, self._how.master.id))
            for subject, wrapped in found
        }
