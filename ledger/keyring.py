"""Subject keys, unwrapped and cached for as long as it is certain that they were not destroyed.

A key is used at most TRUST_S after a moment at which the database still had it: the moment it was read, or the begin of the
last look at what was erased (`Watcher`), which drops what it finds. So no process deciphers anything of a person 2 s after
the erasure was committed, not even one whose database went away; it only reads keys again more often.
"""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import LiteralString, Protocol
from uuid import UUID

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import arrays, errors, tenancy
from ledger.keys import KEY_BYTES, MasterKey

KEYS_CACHED_MAX = 50_000
"""Subject keys held in memory: about 1 KiB each with its cipher, so 50 MiB at the most."""
TRUST_S = 2.0
"""How long after it was last certain a key is believed in: what docs/privacy.md promises."""
LOOK_S = 0.5
"""Between two looks at what was erased; four of them fit into TRUST_S, so that one may be late."""
REMEMBERED_MAX = 100_000
"""Erased subjects that are remembered here, so that a query that was under way does not bring a key back."""
ERASED_PER_LOOK_MAX = 10_000
IDS_REUSED_MAX = 1_000_000
"""A crash of the database takes the last transactions of those that did not wait for the disk, as projectors', and gives their ids
again: what is erased then may lie below what was read before. They are no more than fit into the buffers of the log: of its
default 8 MiB (256 MiB of shared buffers), some 250,000."""


class Cipher(Protocol):
    """A subject's key at work: AESGCM, or what stands for a key that cannot be unwrapped."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """Raises InvalidTag, ValueError (a nonce that is none)."""


Keys = Mapping[int, Cipher]
"""Subject keys of one tenant; a subject that is absent has been erased. By `UUID.int`: UUIDs are hashed in Python, which
costs a fifth of what deciphering a field costs."""

Connection = AsyncConnection[TupleRow]
Connect = Callable[[], Awaitable[Connection]]
Dropped = Callable[[UUID, UUID], None]

OPEN_KEYS = "SELECT uuid_send(o_subject), o_wrapped, o_master_key_id FROM ledger.open_subject_keys(%s, %s, %s, %s)"
READ_ERASED = "SELECT uuid_send(o_subject) FROM ledger.read_erased(%s, %s)"
READ_KEYS: LiteralString = """
SELECT uuid_send(subject_id), wrapped, master_key_id FROM ledger.subject_keys
WHERE tenant_id = %(tenant)s AND subject_id = ANY (%(subjects)s)
"""
# Cross-tenant, of the projector's role. The first row is where the next look begins: no transaction below it is under way, so
# whatever such a one erased is in this look or was in an earlier one. A transaction id at or above xmax is another cluster's:
# the row came with a restored dump, and was there before this process began. One transaction may erase more than are read at
# once: an import does, of a tenant that has forgotten many.
LOOK: LiteralString = """
SELECT NULL, NULL::uuid, NULL::uuid, pg_snapshot_xmin(pg_current_snapshot())::text
UNION ALL
(SELECT e.erased_in::text, e.tenant_id, e.subject_id, NULL FROM ledger.erased_subjects e
 WHERE (e.erased_in, e.tenant_id, e.subject_id) > (%s::text::xid8, %s::uuid, %s::uuid)
   AND e.erased_in < pg_snapshot_xmax(pg_current_snapshot())
 ORDER BY e.erased_in, e.tenant_id, e.subject_id LIMIT %s)
"""
NOW = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"

_NIL = UUID(int=0)
_log = logging.getLogger(__name__)


class SubjectKeyUnusable(errors.LedgerError):
    """The wrapped key of a subject was tampered with."""

    def __init__(self, tenant_id: UUID, subject_id: UUID) -> None:
        super().__init__(
            f"The key of the subject {subject_id} of tenant {tenant_id} cannot be unwrapped: its row was changed. "
            "Restore the row in ledger.subject_keys from a backup, or erase the person."
        )
        self.subject_id = subject_id


class UnusableKey:
    """In the place of a key that cannot be unwrapped: it opens nothing, which is not the same as being erased."""

    def __init__(self, tenant_id: UUID, subject_id: UUID) -> None:
        self._tenant_id, self._subject_id = tenant_id, subject_id

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """Raises SubjectKeyUnusable."""
        raise SubjectKeyUnusable(self._tenant_id, self._subject_id)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """Raises InvalidTag."""
        raise InvalidTag


_Cached = tuple[Cipher, float]
"""The key, and when it was read: monotonic, before the query that read it."""


class Keyring:
    """Touched by the event loop's thread only."""

    def __init__(self, master: MasterKey) -> None:
        self.master = master
        # Both by (tenant, subject), as numbers like Keys.
        self._cached: OrderedDict[tuple[int, int], _Cached] = OrderedDict()  # least recently used first
        self._erased: OrderedDict[tuple[int, int], None] = OrderedDict()  # first learned first
        self._looked_at = 0.0  # monotonic; the begin of the last look at what was erased
        self._callbacks: list[Dropped] = []

    def __len__(self) -> int:
        """Keys in memory."""
        return len(self._cached)

    def subscribe(self, callback: Dropped) -> Callable[[], None]:
        """`callback(tenant_id, subject_id)` drops what a cache holds of that person; it must be quick and must not raise.

        Returns what ends the subscription.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def at_hand(self, tenant_id: UUID, subjects: Iterable[UUID]) -> Keys | None:
        """The keys of these subjects if all of them are cached, else None."""
        keys, missing = self._known(tenant_id, subjects)
        return None if missing else keys

    async def make(self, connection: Connection, tenant_id: UUID, subjects: Iterable[UUID]) -> Keys:
        """The keys of these subjects; a subject without one gets it. `connection` is the app role's, in autocommit.

        Raises SubjectErased, MasterKeyMissing. A key that cannot be unwrapped is there and says so when it is used.
        """
        keys, missing = self._known(tenant_id, subjects)
        if missing:
            wanted = list(missing.values())
            wrapped = [self.master.wrap(tenant_id, subject, os.urandom(KEY_BYTES)) for subject in wanted]
            asked_at = time.monotonic()
            cursor = await connection.execute(OPEN_KEYS, (tenant_id, wanted, wrapped, self.master.id))
            self._learn(tenant_id, keys, missing, await cursor.fetchall(), asked_at)
            for subject in wanted:
                if subject.int not in keys:
                    raise errors.SubjectErased(subject)
        return keys

    async def find_as_tenant(self, connection: Connection, tenant_id: UUID, subjects: Iterable[UUID]) -> Keys:
        """The keys that there are, on a connection of the app role, which sees a tenant only when it is set."""
        keys, missing = self._known(tenant_id, subjects)
        if missing:
            asked_at = time.monotonic()
            values = {"subjects": list(missing.values())}
            (rows,) = await tenancy.query(connection, tenant_id, values, READ_KEYS)
            self._learn(tenant_id, keys, missing, rows, asked_at)
        return keys

    async def find(self, connection: Connection, tenant_id: UUID, subjects: Iterable[UUID]) -> Keys:
        """The keys that there are. `connection` sees every tenant: a projector's."""
        keys, missing = self._known(tenant_id, subjects)
        if missing:
            asked_at = time.monotonic()
            values = {"tenant": tenant_id, "subjects": _packed(connection, list(missing))}
            cursor = await connection.execute(READ_KEYS, values, prepare=True, binary=True)
            self._learn(tenant_id, keys, missing, await cursor.fetchall(), asked_at)
        return keys

    async def find_now(self, connection: Connection, tenant_id: UUID, subjects: Iterable[UUID]) -> Keys:
        """As `find`, without those whose erasure the connection sees at this moment, cached or not.

        For whoever stores what is deciphered. An event that it read after a person's erasure is then never stored in clear.
        """
        wanted = {subject.int.to_bytes(16, "big"): subject for subject in subjects}
        keys = await self.find(connection, tenant_id, wanted.values())
        if not wanted:
            return keys
        values = (tenant_id, _packed(connection, list(wanted)))
        cursor = await connection.execute(READ_ERASED, values, prepare=True, binary=True)
        gone = [wanted[subject] for (subject,) in await cursor.fetchall()]
        if not gone:
            return keys
        self.drop((tenant_id, subject) for subject in gone)
        numbers = {subject.int for subject in gone}
        return {number: key for number, key in keys.items() if number not in numbers}

    def drop(self, subjects: Iterable[tuple[UUID, UUID]]) -> None:
        """These (tenant, subject) are erased: forget their keys, for good, and tell those that hold plaintext."""
        for tenant_id, subject_id in subjects:
            numbers = (tenant_id.int, subject_id.int)
            if numbers not in self._erased:
                self._erased[numbers] = None
                for callback in tuple(self._callbacks):
                    callback(tenant_id, subject_id)
            self._cached.pop(numbers, None)
        while len(self._erased) > REMEMBERED_MAX:
            self._erased.popitem(last=False)

    def looked(self, begun_at: float) -> None:
        """All that was erased before `begun_at` (monotonic) has been dropped."""
        self._looked_at = begun_at

    def clear(self) -> None:
        """Forget every key; each is read again when it is needed."""
        self._cached.clear()

    def drop_stale(self) -> None:
        """Forget the keys of which it is no longer certain that they were not destroyed."""
        for each in [each for each, cached in self._cached.items() if not self._trusted(cached)]:
            del self._cached[each]

    def _trusted(self, cached: _Cached) -> bool:
        return time.monotonic() - max(cached[1], self._looked_at) < TRUST_S

    def _known(self, tenant_id: UUID, subjects: Iterable[UUID]) -> tuple[dict[int, Cipher], dict[bytes, UUID]]:
        """The keys that are cached, and the subjects whose keys are not, by their bytes."""
        keys: dict[int, Cipher] = {}
        missing: dict[bytes, UUID] = {}
        cached, tenant = self._cached, tenant_id.int
        certain_since = time.monotonic() - TRUST_S
        if self._looked_at > certain_since:
            certain_since = 0.0  # that look would have found whatever was destroyed since a key was read
        for subject in subjects:
            number = subject.int
            numbers = (tenant, number)
            found = cached.get(numbers)
            if found is None or found[1] <= certain_since:
                missing[number.to_bytes(16, "big")] = subject
            else:
                keys[number] = found[0]
                cached.move_to_end(numbers)
        return keys, missing

    def _learn(
        self,
        tenant_id: UUID,
        keys: dict[int, Cipher],
        missing: Mapping[bytes, UUID],
        rows: Iterable[TupleRow],
        asked_at: float,
    ) -> None:
        """Rows are (subject, wrapped key, id of the master key). Raises MasterKeyMissing."""
        unwrapped = self.master.unwrapper(tenant_id)
        cached, erased, tenant = self._cached, self._erased, tenant_id.int
        for subject, wrapped, master_key_id in rows:
            number = missing[subject].int
            if (tenant, number) in erased:
                continue  # while the query was under way
            try:
                cipher = AESGCM(unwrapped(subject, wrapped, master_key_id))
            except (InvalidTag, ValueError):
                keys[number] = UnusableKey(tenant_id, missing[subject])  # not cached: its row may be restored
            else:
                keys[number] = cipher
                cached[tenant, number] = (cipher, asked_at)
        while len(cached) > KEYS_CACHED_MAX:
            cached.popitem(last=False)


def _packed(connection: Connection, ids: Sequence[bytes]) -> arrays.UuidArray:
    arrays.register(connection.adapters)
    return arrays.UuidArray.of(ids)


class Watcher:
    """Looks at what was erased, by whichever process, every LOOK_S. Lives from `start` to `close`.

    `connect` gives connections of the projector's role in autocommit: what was erased is looked for in all tenants.
    """

    def __init__(self, keyring: Keyring, connect: Connect) -> None:
        self._keyring = keyring
        self._connect = connect
        self._read_to: tuple[str, UUID, UUID] | None = None  # what was erased up to this one is known
        self._looking: tuple[float, str] | None = None  # a part of a look is done: its begin, where the next begins
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when it has looked once. Raises psycopg.OperationalError."""
        connection = await self._connect()
        try:
            await self.look(connection)
        except BaseException:
            await connection.close()
            raise
        self._task = asyncio.create_task(self._run(connection), name="erasures")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self, connection: Connection) -> None:
        """What was erased since the last look is dropped when this returns. One that took too long goes on the next time where it was."""
        begun_at = time.monotonic()
        if self._read_to is None:  # nothing that was erased before now can be in a keyring that is empty now
            row = await (await connection.execute(NOW)).fetchone()
            assert row is not None
            self._read_to = (row[0], _NIL, _NIL)
            self._keyring.clear()
        full = True
        while full:
            cursor = await connection.execute(LOOK, (*self._read_to, ERASED_PER_LOOK_MAX))
            (_, _, _, oldest), *erased = await cursor.fetchall()
            # The first query's: what was under way then may commit below what has been read by now.
            begun_at, following = self._looking = self._looking or (begun_at, oldest)
            self._keyring.drop((tenant_id, subject_id) for _, tenant_id, subject_id, _ in erased)
            full = len(erased) == ERASED_PER_LOOK_MAX
            self._read_to = erased[-1][:3] if full else (following, _NIL, _NIL)
        self._looking = None
        self._keyring.looked(begun_at)

    def _lost(self) -> None:
        """The connection is gone, perhaps with the database: the next look begins where no id is given again."""
        if self._read_to is not None:
            self._read_to = (str(max(0, int(self._read_to[0]) - IDS_REUSED_MAX)), _NIL, _NIL)
        self._looking = None

    async def _run(self, connection: Connection) -> None:
        while True:
            try:
                async with connection:
                    while True:
                        await asyncio.sleep(LOOK_S)
                        async with asyncio.timeout(TRUST_S):
                            await self.look(connection)
            except (psycopg.Error, TimeoutError) as error:
                _log.warning("What was erased could not be read, keys are forgotten meanwhile: %s", str(error).strip())
                if self._looking is None or isinstance(error, psycopg.Error):  # else it only took long, and goes on
                    self._lost()
            self._keyring.drop_stale()
            await asyncio.sleep(LOOK_S)
            with suppress(psycopg.OperationalError):  # tried again: a closed connection ends the look at once
                connection = await self._connect()
