"""A tenant's stream as the package's recorders use it: stored events in, stored events and notifications out."""

import os
from collections.abc import Sequence
from uuid import UUID

import msgspec
from eventsourcing import persistence
from eventsourcing.persistence import Notification, StoredEvent, Tracking
from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import ids, packing, read
from ledger.recorders import wakes
from ledger.recorders.connections import Connections

VERSION_MAX = 2**31 - 1
POSITION_MAX = 2**63 - 1

APPEND_TRACKED = "SELECT o_status, o_position FROM ledger.append_tracked(" + ", ".join(["%b"] * 10) + ")"
TRACK = "SELECT ledger.track(%s, %s, %s, %s, %s)"
OPEN_STREAM = "SELECT ledger.open_stream(%s)"
READ_TRACKING = "SELECT o_notification FROM ledger.read_tracking(%s, %s, %s)"
READ_ORIGINATOR = "SELECT * FROM ledger.read_originator(%s, %s, %s, %s, %s, %s)"
READ_NOTIFICATIONS = "SELECT * FROM ledger.read_notifications(%s, %s, %s, %s, %s)"
READ_FIRST = "SELECT o_metadata FROM ledger.read_stream(%s, 0, 1)"

APPENDED, REPLAYED, ID_REUSED, VERSION_CONFLICT, _, TOO_LARGE, TENANT_UNKNOWN = range(7)


class Metadata(msgspec.Struct, frozen=True):
    """What a foreign application's events carry. The last two say whose stream it is."""

    command_id: UUID
    event_id: str  # 128 random bits: without them a leaf could be guessed from its hash
    application: str
    initial_version: int


class _Owner(msgspec.Struct, frozen=True):
    """Of a stream, as its first event's metadata say it. None: not an application of the package."""

    application: str | None = None
    initial_version: int | None = None


_ENCODER = msgspec.json.Encoder()
_OWNER = msgspec.json.Decoder(_Owner)


class Stream:
    """Any thread may use it.

    The ledger counts an aggregate's versions from 1. An application whose first version is 0 (`initial_version`) is
    stored one higher.
    """

    def __init__(self, connections: Connections, tenant_id: UUID, application: str, initial_version: int = 1) -> None:
        self.connections = connections
        self.tenant_id = tenant_id
        self.application = application
        self._initial_version = initial_version
        self._shift = 1 - initial_version  # stored version = the application's + shift
        self._is_owner = False  # once true, it stays true; any thread may set it

    def check_owner(self) -> None:
        """Raises ProgrammingError if the stream is another application's, or was begun with another first version."""
        found = self.connections.run(
            lambda connection: connection.execute(READ_FIRST, (self.tenant_id,), binary=True).fetchone()
        )
        if found is None:
            return
        owner = _OWNER.decode(found[0])
        if owner != _Owner(self.application, self._initial_version):
            whose = "BitNexus itself" if owner.application is None else repr(owner.application)
            raise persistence.ProgrammingError(
                f"The stream of tenant {self.tenant_id} belongs to {whose} (first version "
                f"{owner.initial_version}), not to {self.application!r} (first version {self._initial_version}). Give the "
                "application a tenant of its own in LEDGER_TENANT, and never change its name or LEDGER_INITIAL_VERSION."
            )
        self._is_owner = True

    # Writing

    def append(self, stored_events: Sequence[StoredEvent], tracking: Tracking | None = None) -> Sequence[int]:
        """The events' positions, which follow each other. With `tracking` both are recorded, or neither.

        Raises IntegrityError, DataError, ProgrammingError, OperationalError and the package's other exceptions.
        After OperationalError the outcome may be unknown; doing it again then is safe, as versions are unique.
        """
        if not self._is_owner:
            self.check_owner()
        command_id = ids.new_id()
        command = packing.Command(
            self.tenant_id, command_id, b"", b"", [self._event(stored, command_id) for stored in stored_events]
        )
        status, position = self._send(command, tracking)
        if status == TENANT_UNKNOWN:
            self._open()
            status, position = self._send(command, tracking)
        if status not in (APPENDED, REPLAYED):
            raise _refusal(status, stored_events)
        wakes.moved(self.tenant_id)
        return range(position - len(stored_events) + 1, position + 1)

    def _send(self, command: packing.Command, tracking: Tracking | None) -> tuple[int, int]:
        """The command's status and position. Over a lost connection it is sent again with the same id and same bytes."""
        packed = packing.pack([command])  # the one place that knows how the function takes its arrays

        def append(connection: Connection[TupleRow]) -> TupleRow | None:
            return connection.execute(packing.APPEND, packed, binary=True, prepare=True).fetchone()

        def append_tracked(connection: Connection[TupleRow]) -> TupleRow | None:
            assert tracking is not None
            parameters = (
                *(self.tenant_id, command.command_id, *packed[6:11]),
                *(self.application, tracking.application_name, tracking.notification_id),
            )
            return connection.execute(APPEND_TRACKED, parameters, binary=True, prepare=True).fetchone()

        row = self.connections.run(append if tracking is None else append_tracked)
        assert row is not None  # one row a command
        return row[0], row[1]

    def _open(self) -> None:
        self.connections.run(lambda connection: connection.execute(OPEN_STREAM, (self.tenant_id,)))

    def _event(self, stored: StoredEvent, command_id: UUID) -> packing.Event:
        version = stored.originator_version + self._shift
        if not 1 <= version <= VERSION_MAX:
            raise persistence.DataError(
                f"The version {stored.originator_version} of {stored.originator_id} is out of bounds: versions begin with "
                f"{self._initial_version}. Set LEDGER_INITIAL_VERSION=0 for aggregates whose first version is 0."
            )
        metadata = Metadata(command_id, os.urandom(16).hex(), self.application, self._initial_version)
        return packing.Event(
            _uuid(stored.originator_id).bytes,
            version,
            stored.topic.encode(),
            stored.state,
            _ENCODER.encode(metadata),
        )

    # Reading

    def originator(
        self, originator_id: UUID | str, gt: int | None, lte: int | None, desc: bool, limit: int | None
    ) -> Sequence[StoredEvent]:
        """Events of version gt + 1 … lte, from the last if `desc`."""
        after = 0 if gt is None else min(max(gt + self._shift, 0), VERSION_MAX)
        to = VERSION_MAX if lte is None else min(max(lte + self._shift, 0), VERSION_MAX)
        parameters = (self.tenant_id, _uuid(originator_id), after, to, desc, limit)
        rows = self.connections.run(
            lambda connection: connection.execute(READ_ORIGINATOR, parameters, binary=True, prepare=True).fetchall()
        )
        return [StoredEvent(originator_id, version - self._shift, topic, state) for version, topic, state in rows]

    def notifications(self, after: int, to: int | None, topics: Sequence[str], limit: int) -> Sequence[Notification]:
        """At most `limit` (0–5,000) events of positions after + 1 … to, only of those topics if there are any."""
        if not 0 <= limit <= read.ENTRIES_PER_READ_MAX:
            raise persistence.ProgrammingError(
                f"The limit {limit} is not in 0 … {read.ENTRIES_PER_READ_MAX}. Read in pages, or subscribe."
            )
        parameters = (self.tenant_id, after, POSITION_MAX if to is None else to, list(topics), limit)
        rows = self.connections.run(
            lambda connection: connection.execute(READ_NOTIFICATIONS, parameters, binary=True, prepare=True).fetchall()
        )
        return [
            Notification(originator, version - self._shift, topic, state, position)
            for position, originator, version, topic, state in rows
        ]

    def head(self) -> int:
        """The last position; 0 if nothing was appended."""
        row = self.connections.run(
            lambda connection: connection.execute(
                read.READ_HEAD, (self.tenant_id,), binary=True, prepare=True
            ).fetchone()
        )
        return 0 if row is None else row[0]

    # Tracking

    def track(self, connection: Connection[TupleRow], tracking: Tracking, command_id: UUID) -> bool:
        """Moves forward on `connection`. False: this very command did so before. Raises psycopg.errors.UniqueViolation."""
        parameters = (self.tenant_id, self.application, tracking.application_name, tracking.notification_id, command_id)
        row = connection.execute(TRACK, parameters, binary=True, prepare=True).fetchone()
        assert row is not None
        return bool(row[0])

    def tracked(self, upstream: str) -> int | None:
        """The last notification of `upstream` that was processed."""
        row = self.connections.run(
            lambda connection: connection.execute(
                READ_TRACKING, (self.tenant_id, self.application, upstream), binary=True, prepare=True
            ).fetchone()
        )
        return None if row is None else row[0]


def _uuid(originator_id: UUID | str) -> UUID:
    if not isinstance(originator_id, UUID):
        raise persistence.ProgrammingError(
            f"The originator id {originator_id!r} is a str; the ledger takes UUIDs only. Derive one (uuid5) from the text."
        )
    return originator_id


def _refusal(status: int, stored_events: Sequence[StoredEvent]) -> persistence.PersistenceError:
    what = ", ".join(f"{e.originator_id} version {e.originator_version}" for e in stored_events[:3])
    if status == TOO_LARGE:
        return persistence.DataError(
            f"An event is larger than 65,535 bytes: one of {what}. Split it; nothing was recorded."
        )
    if status == VERSION_CONFLICT:
        return persistence.IntegrityError(f"A version is recorded already: one of {what}. Load again and decide again.")
    return persistence.InternalError(f"ledger.append gave the unexpected status {status} for {what}. Report this.")
