"""The package's recorders that remember how far they are in the applications that they follow."""

from collections.abc import Callable, Sequence
from typing import Any

from eventsourcing.persistence import ProcessRecorder, StoredEvent, Tracking, TrackingRecorder
from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import ids
from ledger.recorders.events import LedgerApplicationRecorder
from ledger.recorders.stream import Stream


class LedgerTrackingRecorder(TrackingRecorder):
    """Positions only move forward. A materialised view in this database is a subclass that writes by `record`."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def insert_tracking(self, tracking: Tracking) -> None:
        """Raises IntegrityError if that notification or a later one was processed already."""
        command_id = ids.new_id()
        self.stream.connections.run(lambda connection: self.stream.track(connection, tracking, command_id))

    def record(self, tracking: Tracking, work: Callable[[Connection[TupleRow]], object]) -> None:
        """`tracking` and what `work` writes on the connection that it is given: both or neither, and once.

        `work` may be called again if the connection is lost before the commit. Raises IntegrityError as insert_tracking does.
        """
        command_id = ids.new_id()

        def transaction(connection: Connection[TupleRow]) -> None:
            with connection.transaction():
                if self.stream.track(connection, tracking, command_id):
                    work(connection)

        self.stream.connections.run(transaction)

    def max_tracking_id(self, application_name: str) -> int | None:
        """The last notification processed of that application, None if there was none."""
        return self.stream.tracked(application_name)


class LedgerProcessRecorder(LedgerTrackingRecorder, LedgerApplicationRecorder, ProcessRecorder):
    """An application that follows another one: what it appends and how far it is stand together or not at all."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The notification ids. `tracking=` is recorded with the events. Raises IntegrityError for either."""
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is not None and not stored_events:
            self.insert_tracking(tracking)
        return list(self.stream.append(stored_events, tracking)) if stored_events else []
