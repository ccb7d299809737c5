"""What our recorders promise beyond the package's cases: faults, atomic tracking, streams that are kept apart."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest
from eventsourcing import persistence
from eventsourcing.persistence import InfrastructureFactoryError, StoredEvent, Tracking
from eventsourcing.utils import Environment
from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import ids
from ledger.recorders import LedgerFactory, events
from ledger.recorders.connections import Connections
from ledger.recorders.events import LedgerApplicationRecorder
from ledger.recorders.stream import Stream
from ledger.recorders.tracking import LedgerProcessRecorder, LedgerTrackingRecorder
from tests.ledger import calls
from tests.world import Database

KILL_RECORDERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'bitnexus recorders'"
)

Make = Callable[..., LedgerFactory]


@pytest.fixture
def make(database: Database) -> Iterator[Make]:
    """Factories as applications of that name get them; a new tenant each unless one is given."""
    made: list[LedgerFactory] = []

    def factory(name: str = "Library", tenant: UUID | None = None, **settings: str) -> LedgerFactory:
        env = {"LEDGER_URL": database.app_url, "LEDGER_TENANT": str(tenant or ids.new_id()), **settings}
        made.append(LedgerFactory(Environment(name, env)))
        return made[-1]

    yield factory
    for each in made:
        each.close()


@pytest.fixture
def process(make: Make) -> LedgerProcessRecorder:
    return LedgerProcessRecorder(make().stream())


def event(originator: UUID | None = None, version: int = 1, state: bytes = b"state") -> StoredEvent:
    return StoredEvent(originator or ids.new_id(), version, "book.lent", state)


def ids_of(recorder: LedgerApplicationRecorder) -> list[int]:
    return [notification.id for notification in recorder.select_notifications(None, 5_000)]


class CutAfterCommit(Connections):
    """Loses its connection once, after the server did what it was asked and before anybody heard of it."""

    uses_until_cut = 0

    @contextmanager
    def _borrowed(self) -> Iterator[Connection[TupleRow]]:
        with super()._borrowed() as connection:
            yield connection
        self.uses_until_cut -= 1
        if self.uses_until_cut == 0:
            raise psycopg.OperationalError("the answer was lost")


@pytest.fixture
def cutting(database: Database) -> Iterator[CutAfterCommit]:
    connections = CutAfterCommit(database.app_url)
    yield connections
    connections.close()


# Faults


def test_an_append_whose_answer_was_lost_is_not_doubled(cutting: CutAfterCommit) -> None:
    recorder = LedgerApplicationRecorder(Stream(cutting, ids.new_id(), "Library"))
    recorder.insert_events([event()])
    recorder.stream.check_owner()  # asked once a stream: the next use of a connection is the append
    cutting.uses_until_cut = 1

    recorded = recorder.insert_events([event(), event()])

    assert (recorded, ids_of(recorder)) == ([2, 3], [1, 2, 3])


def test_a_tracked_append_whose_answer_was_lost_moves_once_and_is_no_conflict(cutting: CutAfterCommit) -> None:
    recorder = LedgerProcessRecorder(Stream(cutting, ids.new_id(), "Library"))
    recorder.insert_events([event()], tracking=Tracking("upstream", 1))
    recorder.stream.check_owner()
    cutting.uses_until_cut = 1

    recorded = recorder.insert_events([event()], tracking=Tracking("upstream", 2))

    assert (recorded, ids_of(recorder), recorder.max_tracking_id("upstream")) == ([2], [1, 2], 2)


def test_a_view_whose_answer_was_lost_counts_once(database: Database, cutting: CutAfterCommit) -> None:
    with psycopg.connect(database.owner_url) as owner:
        owner.execute("CREATE TABLE public.lent (n int)")
        owner.execute("GRANT INSERT, SELECT ON public.lent TO bitnexus_app")
    view = LedgerTrackingRecorder(Stream(cutting, ids.new_id(), "Borrowings"))
    cutting.uses_until_cut = 1

    view.record(Tracking("Library", 1), lambda connection: connection.execute("INSERT INTO public.lent VALUES (1)"))

    rows = cutting.run(lambda connection: connection.execute("SELECT n FROM public.lent").fetchall())
    assert (rows, view.max_tracking_id("Library")) == ([(1,)], 1)


def test_cut_connections_lose_and_double_nothing(
    make: Make, owner: Connection[TupleRow], projector: Connection[TupleRow]
) -> None:
    """Sockets are cut again and again while four threads append, two events a call."""
    recorder = LedgerApplicationRecorder(make().stream())
    recorder.insert_events([event(), event()])
    is_done, appended = threading.Event(), list[Sequence[int] | None]()

    def append() -> None:
        appended.append(recorder.insert_events([event(), event()]))

    def cut() -> int:
        killed, seen = 0, -1
        while not is_done.wait(0.02):
            if len(appended) > seen:  # where an append takes longer than that, each would be cut, until it gives up
                seen = len(appended)
                [(count,)] = owner.execute(KILL_RECORDERS).fetchall()
                killed += count
        return killed

    with ThreadPoolExecutor(5) as threads:
        killed = threads.submit(cut)
        try:
            for each in [threads.submit(append) for _ in range(60)]:
                each.result()
        finally:
            is_done.set()

    acknowledged = sorted(position for positions in appended for position in positions or [])
    assert acknowledged == list(range(3, 123))
    assert ids_of(recorder) == list(range(1, 123))
    assert killed.result() > 0
    calls.assert_good(projector, recorder.stream.tenant_id, events=122)


def test_a_wrong_address_is_told_at_once(make: Make, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Not after half a minute of trying again, of which the log would tell."""
    factory = make(LEDGER_URL=database.app_url.replace(database.name, "nowhere"))
    with pytest.raises(persistence.OperationalError, match="nowhere"):
        factory.application_recorder()
    assert caplog.messages == []


# Tracking


def test_a_notification_that_was_processed_appends_nothing(process: LedgerProcessRecorder) -> None:
    process.insert_events([event()], tracking=Tracking("upstream", 7))

    with pytest.raises(persistence.IntegrityError, match="was processed"):
        process.insert_events([event()], tracking=Tracking("upstream", 7))

    assert (ids_of(process), process.max_tracking_id("upstream")) == ([1], 7)


def test_a_conflicting_event_moves_no_tracking(process: LedgerProcessRecorder) -> None:
    stored = event()
    process.insert_events([stored], tracking=Tracking("upstream", 1))

    with pytest.raises(persistence.IntegrityError, match="recorded already"):
        process.insert_events([event(), stored], tracking=Tracking("upstream", 2))

    assert (ids_of(process), process.max_tracking_id("upstream")) == ([1], 1)


def test_two_processors_of_one_upstream_never_both_win(process: LedgerProcessRecorder) -> None:
    """The same projection started twice must not process a notification twice."""

    def attempt(notification: int) -> bool:
        try:
            process.insert_events([event()], tracking=Tracking("upstream", notification))
        except persistence.IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        won = list(threads.map(attempt, [1] * 8))

    assert (won.count(True), ids_of(process)) == (1, [1])


def test_a_view_that_fails_keeps_its_place(process: LedgerProcessRecorder) -> None:
    def work(connection: Connection[TupleRow]) -> None:
        raise KeyError("a bug in the view")

    with pytest.raises(KeyError):
        process.record(Tracking("upstream", 1), work)

    assert process.max_tracking_id("upstream") is None


def test_projections_of_one_tenant_keep_their_own_places(make: Make) -> None:
    tenant = ids.new_id()
    borrowings, fines = (make(name, tenant).tracking_recorder() for name in ("Borrowings", "Fines"))
    borrowings.insert_tracking(Tracking("Library", 5))
    assert (borrowings.max_tracking_id("Library"), fines.max_tracking_id("Library")) == (5, None)


@pytest.mark.parametrize(
    "statement", ["INSERT INTO ledger.tracking SELECT FROM ledger.tracking", "DELETE FROM ledger.tracking"]
)
def test_the_app_role_writes_no_tracking_past_the_function(app: Connection[TupleRow], statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(statement.encode())


def test_a_place_is_seen_by_its_tenant_only(make: Make, app: Connection[TupleRow]) -> None:
    """The second lock, for a statement that forgot to name the tenant."""
    make().tracking_recorder().insert_tracking(Tracking("Library", 5))
    assert app.execute("SELECT * FROM ledger.tracking").fetchall() == []


# Streams


def test_applications_of_two_tenants_see_nothing_of_each_other(make: Make) -> None:
    stored = event(originator := ids.new_id())
    first, second = (LedgerApplicationRecorder(make().stream()) for _ in range(2))
    first.insert_events([stored])
    second.insert_events([event(originator, state=b"another's")])
    assert first.select_events(originator) == [stored]
    assert [n.state for n in second.select_notifications(None, 10)] == [b"another's"]


def test_an_application_cannot_use_anothers_stream(make: Make) -> None:
    """Two applications in one stream would process each other's events."""
    tenant = ids.new_id()
    late = make("Archive", tenant).application_recorder()  # starts while the stream is empty
    make("Library", tenant).application_recorder().insert_events([event()])

    with pytest.raises(persistence.ProgrammingError, match="belongs to 'Library'"):
        make("Archive", tenant).application_recorder()
    with pytest.raises(persistence.ProgrammingError, match="belongs to 'Library'"):
        late.insert_events([event()])


def test_a_tenant_of_our_own_is_refused(make: Make, app: Connection[TupleRow], tenant: UUID) -> None:
    """A foreign application that is misconfigured must not write into a customer's ledger."""
    calls.append(app, calls.Command(tenant=tenant, events=[calls.Event(ids.new_id())]))
    with pytest.raises(persistence.ProgrammingError, match="belongs to BitNexus"):
        make(tenant=tenant).process_recorder()


def test_another_first_version_than_the_stream_began_with_is_refused(make: Make) -> None:
    """All its versions would be off by one."""
    tenant = ids.new_id()
    make(tenant=tenant, LEDGER_INITIAL_VERSION="0").application_recorder().insert_events([event(version=0)])
    with pytest.raises(persistence.ProgrammingError, match="first version 0"):
        make(tenant=tenant).application_recorder()


def test_versions_below_the_first_one_are_refused(process: LedgerProcessRecorder) -> None:
    with pytest.raises(persistence.DataError, match="LEDGER_INITIAL_VERSION"):
        process.insert_events([event(version=0)])


@pytest.mark.parametrize("initial", [0, 1])
def test_ranges_of_versions_are_the_applications_own(make: Make, initial: int) -> None:
    """A snapshot's version must lead to the events after it, wherever the application begins to count."""
    recorder = LedgerApplicationRecorder(make(LEDGER_INITIAL_VERSION=str(initial)).stream())
    originator = ids.new_id()
    recorder.insert_events([event(originator, version) for version in range(initial, initial + 5)])

    found = recorder.select_events(originator, gt=initial, lte=initial + 3)
    last = recorder.select_events(originator, gt=initial, lte=initial + 3, desc=True, limit=2)

    assert [stored.originator_version - initial for stored in found] == [1, 2, 3]
    assert [stored.originator_version - initial for stored in last] == [3, 2]
    assert len(recorder.select_events(originator, gt=-10, lte=2**40)) == 5


def test_an_event_too_large_for_a_leaf_is_refused_with_its_whole_call(process: LedgerProcessRecorder) -> None:
    with pytest.raises(persistence.DataError, match="65,535"):
        process.insert_events([event(), event(state=b"x" * 65_536)])
    assert ids_of(process) == []


def test_a_text_as_originator_is_refused(process: LedgerProcessRecorder) -> None:
    with pytest.raises(persistence.ProgrammingError, match="UUIDs only"):
        process.insert_events([StoredEvent("loan-1", 1, "book.lent", b"")])


def test_a_page_without_bounds_is_refused(process: LedgerProcessRecorder) -> None:
    with pytest.raises(persistence.ProgrammingError, match="5000"):
        process.select_notifications(None, 1_000_000)


def test_a_foreign_stream_verifies(process: LedgerProcessRecorder, projector: Connection[TupleRow]) -> None:
    process.insert_events([event(), event()])
    process.insert_events([event()], tracking=Tracking("upstream", 1))
    calls.assert_good(projector, process.stream.tenant_id, events=3)


# Subscriptions


def first_of(recorder: LedgerApplicationRecorder, cause: Callable[[], object], *topics: str) -> int:
    """The id of the first notification that a subscription gets after `cause`; -1 if there is none for 10 s."""
    with recorder.subscribe(gt=recorder.max_notification_id(), topics=topics) as subscription:
        watch = threading.Timer(10, subscription.stop)
        watch.start()
        cause()
        found = next((notification.id for notification in subscription), -1)
        watch.cancel()
    return found


def test_a_subscription_learns_of_what_another_process_appends(make: Make, app: Connection[TupleRow]) -> None:
    recorder = LedgerApplicationRecorder(make().stream())
    recorder.insert_events([event()])
    elsewhere = calls.Command(tenant=recorder.stream.tenant_id, events=[calls.Event(ids.new_id())])
    assert first_of(recorder, lambda: calls.append(app, elsewhere)) == 2


def test_a_subscription_is_woken_without_a_poll(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another application object of this process appends."""
    monkeypatch.setattr(events, "POLL_S", 3_600)
    tenant = ids.new_id()
    reader, writer = (LedgerApplicationRecorder(make(tenant=tenant).stream()) for _ in range(2))
    assert first_of(reader, lambda: writer.insert_events([event()])) == 1


def test_a_subscription_to_a_rare_topic_goes_on_in_steps(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its query looks through so many positions at most, and through none of them twice."""
    monkeypatch.setattr(events, "SCAN_MAX", 2)
    recorder = LedgerApplicationRecorder(make().stream())

    def append() -> None:
        recorder.insert_events([event() for _ in range(7)])
        recorder.insert_events([StoredEvent(ids.new_id(), 1, "book.burnt", b"")])

    assert first_of(recorder, append, "book.burnt") == 8


def test_a_subscription_survives_cut_connections(make: Make, owner: Connection[TupleRow]) -> None:
    recorder = LedgerApplicationRecorder(make().stream())

    def append() -> None:
        owner.execute(KILL_RECORDERS)
        recorder.insert_events([event()])

    assert first_of(recorder, append) == 1


def test_a_subscription_to_a_closed_application_ends_with_the_reason(make: Make) -> None:
    """It must not look like a quiet stream."""
    factory = make()
    with LedgerApplicationRecorder(factory.stream()).subscribe() as subscription:
        watch = threading.Timer(10, subscription.stop)
        watch.start()
        factory.close()
        with pytest.raises(persistence.InterfaceError, match="closed"):
            next(subscription)
        watch.cancel()


# Settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LEDGER_URL": ""}, "LEDGER_URL is not set for the application 'Library'"),
        ({"LEDGER_URL": "nonsense"}, "LEDGER_URL must be a connection string"),
        ({"LEDGER_TENANT": "library"}, "LEDGER_TENANT must be a UUID, it is 'library'"),
        ({"LEDGER_INITIAL_VERSION": "2"}, "LEDGER_INITIAL_VERSION must be 0 or 1, it is '2'"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_start(make: Make, settings: dict[str, str], said: str) -> None:
    with pytest.raises(InfrastructureFactoryError, match=said):
        make(**settings)
