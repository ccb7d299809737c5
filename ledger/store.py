"""The ledger as commands see it: load aggregates, append what they decided, find what is reserved."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from eventsourcing.domain import Aggregate
from eventsourcing.utils import get_topic
from psycopg.rows import TupleRow

from ledger import appender, counts, errors, history, ids, lookups, outcomes, packing, read, sealing
from ledger.appender import Appender
from ledger.caller import Caller, metadata
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.keys import MasterKey
from ledger.lookups import Lookups, Wanted
from ledger.revocations import Revocations

A = TypeVar("A", bound=Aggregate)

SUBJECT_TRIES_MAX = 3
"""A reference whose subject is erased at the same moment gets a new subject at the next try."""

Pool = lookups.Pool

READ_RESERVATIONS = "SELECT * FROM ledger.read_reservations(%s, %s, %s)"
READ_SECRET = "SELECT o_value FROM ledger.read_secret(%s, %s, %s)"
READ_COMMAND = "SELECT * FROM ledger.read_command(%s, %s)"
OPEN_STREAM = "SELECT ledger.open_stream(%s)"
READ_SECRETS = "SELECT o_kind, o_value FROM ledger.read_secrets(%s, %s)"
REPLACE_SECRET = "SELECT ledger.replace_secret(%s, %s, %s, %s, %s)"
READ_SECRET_KINDS = "SELECT o_kind FROM ledger.read_secret_kinds(%s, %s)"
READ_SUBJECT = "SELECT o_subject FROM ledger.read_subject(%s, %s, %s)"
OPEN_SUBJECTS = "SELECT o_ref, o_subject FROM ledger.open_subjects(%s, %s, %s, %s)"


class Claim(msgspec.Struct, frozen=True):
    """A key that is unique within its tenant and kind. Given in clear; only its HMAC is stored."""

    kind: str
    key: str
    owner: UUID


class Secret(msgspec.Struct, frozen=True):
    """A hash of a password or token, outside the events. value None deletes it."""

    owner: UUID
    kind: str
    value: bytes | None


class Receipt(msgspec.Struct, Generic[A], frozen=True):
    """What became of a command. `aggregate` is as the command left it, its times the recorded ones.

    `position` is that of the command's last event; the head's if it appended none. `replayed`: it had been appended before.
    """

    aggregate: A
    position: int
    recorded_at: datetime
    replayed: bool


class Ledger:
    """One per process. Holds no state of its own beside the caches of its parts, and what this process knows of revocations."""

    def __init__(self, pool: Pool, appends: Appender, looks: Lookups, codec: Codec, keyring: Keyring) -> None:
        self._pool = pool  # the app role's, autocommit
        self._appender = appends
        self._lookups = looks
        self.codec = codec
        self.keyring = keyring
        self.revocations = Revocations()

    # Reading aggregates

    async def load(self, cls: type[A], tenant_id: UUID, id: UUID, version: int | None = None) -> A:
        """The aggregate, or as it was at that version. Raises NotFound (also if the id is another kind's), DatabaseAway."""
        if version is None:
            found = (await self.load_many(cls, tenant_id, [id])).get(id)
        else:
            found = await self._load_at(cls, tenant_id, id, version)
        if found is None:
            raise errors.NotFound(get_topic(cls), id)
        return found

    async def load_many(self, cls: type[A], tenant_id: UUID, ids: Sequence[UUID]) -> dict[UUID, A]:
        """Those that there are, by id. Raises DatabaseAway."""
        if not ids:
            return {}
        found = await self._find([Wanted(tenant_id.int, "", id.bytes) for id in ids])
        return {each.id: each for each in found.values() if isinstance(each, cls)}

    async def load_by(self, cls: type[A], tenant_id: UUID, kind: str, keys: Sequence[str]) -> dict[str, A]:
        """The holders of these reservations, by key; those that there are. Raises DatabaseAway."""
        if not keys:
            return {}
        reference = self.keyring.master.reference
        wanted = {Wanted(tenant_id.int, kind, reference(tenant_id, kind, key)): key for key in keys}
        found = await self._find(list(wanted))
        return {wanted[each]: holder for each, holder in found.items() if isinstance(holder, cls)}

    async def _find(self, wanted: Sequence[Wanted]) -> dict[Wanted, Aggregate]:
        return {each: known.aggregate for each, known in (await self._lookups.find(wanted)).items()}

    async def _load_at(self, cls: type[A], tenant_id: UUID, id: UUID, version: int) -> A | None:
        folded = await history.fold(self._pool, self.codec, self.keyring, tenant_id, id, version)
        return folded if isinstance(folded, cls) and folded.version == version else None

    async def look_back(
        self, cls: type[A], tenant_id: UUID, id: UUID, version: int, at_each: Callable[[A], None]
    ) -> None:
        """Shows the aggregate at each version up to that one, the first first; it is the same object each time."""

        def show(folded: Aggregate) -> None:
            if isinstance(folded, cls):
                at_each(folded)

        await history.fold(self._pool, self.codec, self.keyring, tenant_id, id, version, show)

    # Appending

    async def append(
        self,
        caller: Caller,
        aggregate: A,
        *others: Aggregate,
        claims: Sequence[Claim] = (),
        releases: Sequence[Claim] = (),
        secrets: Sequence[Secret] = (),
        erases: Sequence[UUID] = (),
        revokes: Sequence[UUID] = (),
        restores: Sequence[UUID] = (),
    ) -> Receipt[A]:
        """Append all that these aggregates decided, all or nothing, under the caller's command id. The receipt is the first one's.

        `erases` are subjects: with the events their keys are destroyed for ever, and with them the secrets that they own and
        what led from a reference to them. `revokes` are sessions that end, or the tenant's own id to suspend it, and `restores`
        lifts that: what tokens name and every process must know within 2 s (`Revocations`).

        Raises SubjectErased (an event is about somebody who was erased), VersionConflict, ReservationTaken, CommandIdReused,
        RefusedBefore, EventTooLarge, TenantUnknown, TenantBusy, Overloaded, AppenderClosed and, when the database did not come
        back in time, OutcomeUnknown. After any of them but the last nothing was written.
        """
        aggregates: tuple[Aggregate, ...] = (aggregate, *others)
        pending = [(each, list(each.pending_events)) for each in aggregates]
        events = await self._encode(caller, [event for _, new in pending for event in new])
        revocations = [*((id, False) for id in restores), *((id, True) for id in revokes)]
        command = packing.Command(
            tenant_id=caller.tenant_id,
            command_id=caller.command_id,
            fingerprint=caller.fingerprint,
            outcome=outcomes.stands(aggregate.id, aggregate.version),
            events=events,
            reservations=self._reservations(caller.tenant_id, claims, releases),
            secrets=[packing.SecretValue(s.owner.bytes, s.kind.encode(), s.value) for s in secrets],
            erasures=[subject.bytes for subject in erases],
            revocations=[(id.bytes, revoked) for id, revoked in revocations],
            reads=self._reads(aggregates),
        )
        try:
            appended = await self._appender.submit(command)
        except errors.LedgerError as error:
            self._appender.listener.refused(error)
            raise
        self.keyring.drop((caller.tenant_id, subject) for subject in erases)
        if appended.outcome is not None:
            return await self._replayed(type(aggregate), caller, appended)
        for id, revoked in revocations:
            self.revocations.learn(caller.tenant_id, id, revoked)
        for each, new in pending:
            if new:
                each.pending_events.clear()
                each.modified_on = appended.recorded_at
                if new[0].originator_version == each.INITIAL_VERSION:
                    each._created_on = appended.recorded_at  # the package offers no setter
                else:
                    self._lookups.forget(caller.tenant_id, each.id)
        return Receipt(aggregate, appended.position, appended.recorded_at, False)

    def _reads(self, appended: Sequence[Aggregate]) -> Sequence[packing.Read]:
        """What the append is to validate."""
        return ()

    async def refuse(self, cls: type[A], caller: Caller, refused: outcomes.Refused) -> Receipt[A] | None:
        """Store that the caller's command was refused, if its id is new: None. The receipt if it was appended before.

        Raises RefusedBefore, perhaps for another reason, and as an append without events does.
        """
        try:
            appended = await self._appender.submit(outcomes.refusing(self.keyring.master, caller, refused))
        except errors.LedgerError as error:
            self._appender.listener.refused(error)
            raise
        return None if appended.outcome is None else await self._replayed(cls, caller, appended)

    async def recall(self, cls: type[A], caller: Caller) -> Receipt[A] | None:
        """What became of the caller's command id, None if it is new. Raises CommandIdReused, RefusedBefore.

        Good for answering a repeat whose first sending was answered; it proves nothing about one that may be under way.
        """
        row = await self._command(caller)
        if row is None:
            return None
        fingerprint, outcome, position, recorded_at = row
        if fingerprint != caller.fingerprint:
            raise errors.CommandIdReused(caller.command_id)
        return await self._replayed(cls, caller, appender.Appended(position, recorded_at, outcome))

    async def is_stored(self, caller: Caller) -> bool:
        """Whether the caller's command id was used; as `recall`."""
        return await self._command(caller) is not None

    async def _command(self, caller: Caller) -> TupleRow | None:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(READ_COMMAND, (caller.tenant_id, caller.command_id), binary=True)
            return await cursor.fetchone()

    async def _replayed(self, cls: type[A], caller: Caller, appended: appender.Appended) -> Receipt[A]:
        assert appended.outcome is not None
        stored = outcomes.read(self.keyring.master, caller, appended.outcome)
        aggregate = await self.load(cls, caller.tenant_id, stored.originator_id, stored.version)
        return Receipt(aggregate, appended.position, appended.recorded_at, True)

    async def _encode(self, caller: Caller, events: Sequence[Any]) -> list[packing.Event]:
        subjects = {subject for event in events if (subject := self.codec.subject_of(event)) is not None}
        keys = self.keyring.at_hand(caller.tenant_id, subjects)
        if keys is None:
            async with self._pool.connection() as connection:
                keys = await self.keyring.make(connection, caller.tenant_id, subjects)
        return [
            packing.Event(
                event.originator_id.bytes,
                event.originator_version,
                get_topic(type(event)).encode(),
                self.codec.encode(caller.tenant_id, event, keys),
                metadata(caller),
            )
            for event in events
        ]

    def _reservations(
        self, tenant_id: UUID, claims: Sequence[Claim], releases: Sequence[Claim]
    ) -> list[packing.Reservation]:
        reference = self.keyring.master.reference
        return [
            packing.Reservation(each.kind.encode(), reference(tenant_id, each.kind, each.key), each.owner.bytes, claim)
            for claim, some in ((False, releases), (True, claims))
            for each in some
        ]

    # What is not an aggregate

    async def find(self, tenant_id: UUID, kind: str, keys: Sequence[str]) -> dict[str, UUID]:
        """The owners of these reservations, by key; those that there are."""
        if not keys:
            return {}
        references = {self.keyring.master.reference(tenant_id, kind, key): key for key in keys}
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(READ_RESERVATIONS, (tenant_id, kind, list(references)), binary=True)
            ).fetchall()
        return {references[bytes(ref)]: owner for ref, owner in rows}

    async def count(self, tenant_id: UUID, kind: str, most: int, *, secrets: bool = False) -> int:
        """How many reservations of the kind there are, or mutable secrets; no more than `most` are counted."""
        async with self._pool.connection() as connection:
            return await (counts.secrets if secrets else counts.reservations)(connection, tenant_id, kind, most)

    async def secret(self, tenant_id: UUID, owner: UUID, kind: str) -> bytes | None:
        """A mutable secret's value, None if there is none."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(READ_SECRET, (tenant_id, owner, kind), binary=True)).fetchone()
        return None if row is None else bytes(row[0])

    async def subject(self, tenant_id: UUID, kind: str, ref: str) -> UUID:
        """The subject of a reference such as ("buyer", "17850"); made at its first use."""
        return (await self.subjects(tenant_id, kind, [ref]))[ref]

    async def subjects(self, tenant_id: UUID, kind: str, refs: Sequence[str]) -> dict[str, UUID]:
        """The subjects of these references, each with its key; made at their first use."""
        for tries_left in reversed(range(SUBJECT_TRIES_MAX)):
            try:
                return await self._subjects(tenant_id, kind, refs) if refs else {}
            except errors.SubjectErased:
                if not tries_left:
                    raise
        raise AssertionError

    async def _subjects(self, tenant_id: UUID, kind: str, refs: Sequence[str]) -> dict[str, UUID]:
        references = {self.keyring.master.reference(tenant_id, kind, ref): ref for ref in refs}
        offered = [ids.new_id() for _ in references]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(OPEN_SUBJECTS, (tenant_id, kind, list(references), offered), binary=True)
            found = {references[bytes(ref)]: subject for ref, subject in await cursor.fetchall()}
            await self.keyring.make(connection, tenant_id, found.values())
        return found

    async def known_subject(self, tenant_id: UUID, kind: str, ref: str) -> UUID | None:
        """The subject of a reference, None if it has none (any more); none is made."""
        reference = self.keyring.master.reference(tenant_id, kind, ref)
        async with self._pool.connection() as connection:
            row = await (await connection.execute(READ_SUBJECT, (tenant_id, kind, reference), binary=True)).fetchone()
        return None if row is None else row[0]

    async def secret_kinds(self, tenant_id: UUID, owner: UUID) -> list[str]:
        """The kinds of the secrets that an owner has, sorted."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(READ_SECRET_KINDS, (tenant_id, owner), binary=True)).fetchall()
        return [kind for (kind,) in rows]

    async def secrets(self, tenant_id: UUID, owner: UUID) -> dict[str, bytes]:
        """All secrets of an owner, by kind."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(READ_SECRETS, (tenant_id, owner), binary=True)).fetchall()
        return {kind: bytes(value) for kind, value in rows}

    async def replace_secret(
        self, tenant_id: UUID, owner: UUID, kind: str, old: bytes | None, new: bytes | None
    ) -> bool:
        """Whether it was `old` (None: absent) and is `new` (None: deleted) now, in a transaction of its own. Of two at once one wins."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(REPLACE_SECRET, (tenant_id, owner, kind, old, new))).fetchone()
        return row is not None and bool(row[0])

    async def seal(self, tenant_id: UUID, subject_id: UUID, purpose: str, clear: bytes) -> bytes:
        """What is legible only until the subject is erased. Raises SubjectErased, SubjectKeyUnusable."""
        async with self._pool.connection() as connection:
            keys = await self.keyring.make(connection, tenant_id, [subject_id])
        return sealing.seal(keys, tenant_id, subject_id, purpose, clear)

    async def unseal(self, tenant_id: UUID, subject_id: UUID, purpose: str, sealed: bytes) -> bytes | None:
        """None: the subject was erased, or it is not what was sealed for this purpose."""
        async with self._pool.connection() as connection:
            keys = await self.keyring.find_as_tenant(connection, tenant_id, [subject_id])
        return sealing.unseal(keys, tenant_id, subject_id, purpose, sealed)

    async def open_stream(self, tenant_id: UUID) -> None:
        """Let the tenant have a stream. Doing it again changes nothing."""
        async with self._pool.connection() as connection:
            await connection.execute(OPEN_STREAM, (tenant_id,))

    async def head(self, tenant_id: UUID) -> read.Head:
        """Raises TenantUnknown."""
        async with self._pool.connection() as connection:
            return await read.head(connection, tenant_id)

    async def entries(self, tenant_id: UUID, after: int, limit: int) -> list[read.Entry]:
        """At most `limit` (1–5,000) stored events after that position, in order."""
        async with self._pool.connection() as connection:
            return await read.entries(connection, tenant_id, after, limit)


def command_of(
    codec: Codec, master: MasterKey, caller: Caller, aggregate: Aggregate, claims: Sequence[Claim]
) -> packing.Command:
    """What `Ledger.append` would hand over, for whoever appends in a transaction of their own. No personal data."""
    return packing.Command(
        tenant_id=caller.tenant_id,
        command_id=caller.command_id,
        fingerprint=caller.fingerprint,
        outcome=outcomes.stands(aggregate.id, aggregate.version),
        events=[
            packing.Event(
                event.originator_id.bytes,
                event.originator_version,
                get_topic(type(event)).encode(),
                codec.encode(caller.tenant_id, event, {}),
                metadata(caller),
            )
            for event in aggregate.pending_events
        ],
        reservations=[
            packing.Reservation(
                each.kind.encode(),
                master.reference(caller.tenant_id, each.kind, each.key),
                each.owner.bytes,
                True,
            )
            for each in claims
        ],
    )
