"""The package's recorders of events: by aggregate, and as an application's sequence with subscriptions."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    ListenNotifySubscription,
    Notification,
    ShutDown,
    StoredEvent,
    Subscription,
)

from ledger.recorders import wakes
from ledger.recorders.stream import Stream

POLL_S = 0.25
"""How late, at most, a subscription learns of what another process appended. This process's appends wake it at once."""
SCAN_MAX = 20_000
"""Positions that one query of a subscription looks through: with rare topics it must not read a whole stream at a time."""


class LedgerAggregateRecorder(AggregateRecorder):
    """Stored events of aggregates. `insert_events` is one command: all or nothing."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """None. Raises IntegrityError if a version is recorded already, DataError for an event of over 65,535 bytes."""
        if stored_events:
            self.stream.append(stored_events)
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """In order of version. Raises ProgrammingError for an id that is no UUID."""
        return self.stream.originator(originator_id, gt, lte, desc, limit)


class LedgerApplicationRecorder(LedgerAggregateRecorder, ApplicationRecorder):
    """Adds the application's sequence. Notification ids are the stream's positions: 1, 2, 3 … without gaps."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The notification ids. Raises as LedgerAggregateRecorder.insert_events does."""
        return list(self.stream.append(stored_events)) if stored_events else []

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """From `start` (or after it) to `stop`, at most `limit` (0–5,000)."""
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        return self.stream.notifications(after, stop, topics, limit)

    def max_notification_id(self) -> int | None:
        """The head's position, None if nothing was recorded."""
        return self.stream.head() or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Notifications after `gt`, those there are and those to come; it blocks in between until `stop`."""
        return LedgerSubscription(self, gt, topics)


class LedgerSubscription(ListenNotifySubscription[LedgerApplicationRecorder]):
    """Woken by the appends of this process, and by a poll of the head for those of others."""

    def __init__(self, recorder: LedgerApplicationRecorder, gt: int | None, topics: Sequence[str]) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)  # starts the thread that pulls
        wakes.listen(recorder.stream.tenant_id, self._has_been_notified)
        self._has_been_notified.set()  # for what was appended before it listened

    def stop(self) -> None:
        """Ends the iteration, also one that waits."""
        super().stop()
        wakes.unlisten(self._recorder.stream.tenant_id, self._has_been_notified)

    def _loop_on_pull(self) -> None:
        try:
            while not self._has_been_stopped:
                self._pull()
                self._has_been_notified.wait(POLL_S)
        except BaseException as error:  # noqa: BLE001  the thread's edge: raised where the subscription is iterated over
            self._thread_error = error
            self.stop()

    def _pull(self) -> None:
        """Up to the head. A position that was looked at is not looked at again: nothing appears below the head later."""
        while not self._has_been_stopped:
            self._has_been_notified.clear()
            last, head = self._last_notification_id or 0, self._recorder.stream.head()
            if last >= head:
                return
            to = min(head, last + SCAN_MAX)
            found = self._recorder.stream.notifications(last, to, self._topics, self._select_limit)
            if found:
                try:
                    self._notifications_queue.put(found)
                except ShutDown:
                    return
            self._last_notification_id = found[-1].id if len(found) == self._select_limit else to
