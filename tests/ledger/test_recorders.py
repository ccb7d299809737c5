"""Users of the `eventsourcing` package can put their applications on the ledger: its shipped cases hold on our recorders.

Whatever the package promises of a store is what these cases try; docs/foreign-applications.md says what is out of scope.
"""

import os
import unittest
from typing import ClassVar

import psycopg
import pytest
from eventsourcing.persistence import Tracking
from eventsourcing.utils import Environment, get_topic

from ledger import ids
from ledger.recorders import LedgerFactory
from ledger.recorders.events import LedgerAggregateRecorder, LedgerApplicationRecorder
from ledger.recorders.tracking import LedgerProcessRecorder, LedgerTrackingRecorder
from tests.ledger import shipped
from tests.world import Database

OUT_OF_SCOPE = (
    "dynamic consistency boundaries are out of scope: they need queries over tags, the ledger orders by tenant"
)

FIRST_IS_0 = {"LEDGER_INITIAL_VERSION": "0"}
"""Some of the shipped cases begin with version 0, which an application has to say."""


@pytest.fixture(autouse=True)
def _environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases make applications that read the environment; each test has a tenant of its own."""
    monkeypatch.setenv("PERSISTENCE_MODULE", "ledger.recorders")
    monkeypatch.setenv("LEDGER_URL", database.app_url)
    monkeypatch.setenv("LEDGER_TENANT", str(ids.new_id()))
    monkeypatch.setenv("COUNTERS_LEDGER_TENANT", str(ids.new_id()))  # Counters follows another application


@pytest.fixture
def _counters_table(database: Database) -> None:
    with psycopg.connect(database.owner_url) as owner:
        owner.execute("CREATE TABLE public.counters (created int NOT NULL, subsequent int NOT NULL)")
        owner.execute("INSERT INTO public.counters VALUES (0, 0)")
        owner.execute("GRANT SELECT, UPDATE ON public.counters TO bitnexus_app")


def environment(**settings: str) -> Environment:
    return Environment("Shipped", {**os.environ, **settings})


def factory(case: unittest.TestCase) -> LedgerFactory:
    made = LedgerFactory(environment(**FIRST_IS_0))
    case.addCleanup(made.close)
    return made


class TestAggregateRecorder(shipped.persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> LedgerAggregateRecorder:
        return LedgerAggregateRecorder(factory(self).stream())


class TestSnapshotRecorder(shipped.persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> LedgerAggregateRecorder:
        return LedgerAggregateRecorder(factory(self).stream("snapshots"))


class TestApplicationRecorder(shipped.persistence.ApplicationRecorderTestCase[LedgerApplicationRecorder]):
    def create_recorder(self) -> LedgerApplicationRecorder:
        return LedgerApplicationRecorder(factory(self).stream())

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestNonInterleaving(shipped.persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> LedgerApplicationRecorder:
        return LedgerApplicationRecorder(factory(self).stream())


class TestTrackingRecorder(shipped.persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> LedgerTrackingRecorder:
        return LedgerTrackingRecorder(factory(self).stream())


class TestProcessRecorder(shipped.persistence.ProcessRecorderTestCase):
    def create_recorder(self) -> LedgerProcessRecorder:
        return LedgerProcessRecorder(factory(self).stream())


class TrackingRecorderSubclass(LedgerTrackingRecorder):
    """What a user's materialised view is."""


class TestFactory(shipped.persistence.InfrastructureFactoryTestCase[LedgerFactory]):
    def setUp(self) -> None:
        self.env = environment()
        super().setUp()

    def expected_factory_class(self) -> type[LedgerFactory]:
        return LedgerFactory

    def expected_aggregate_recorder_class(self) -> type[LedgerAggregateRecorder]:
        return LedgerAggregateRecorder

    def expected_application_recorder_class(self) -> type[LedgerApplicationRecorder]:
        return LedgerApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[LedgerTrackingRecorder]:
        return LedgerTrackingRecorder

    def tracking_recorder_subclass(self) -> type[LedgerTrackingRecorder]:
        return TrackingRecorderSubclass

    def expected_process_recorder_class(self) -> type[LedgerProcessRecorder]:
        return LedgerProcessRecorder


class TestExampleApplication(shipped.application.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(LedgerFactory)


@pytest.mark.filterwarnings("always:'log' is deprecated:DeprecationWarning")  # one case is about that very warning
class TestApplication(shipped.application.ApplicationTestCase):
    pass


class EventCounters(LedgerTrackingRecorder, shipped.projection.EventCountersView):
    """A view in the ledger's database, counted in the transaction that moves its position."""

    def get_created_event_counter(self) -> int:
        return self._read()[0]

    def get_subsequent_event_counter(self) -> int:
        return self._read()[1]

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self.record(tracking, lambda view: view.execute("UPDATE public.counters SET created = created + 1"))

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self.record(tracking, lambda view: view.execute("UPDATE public.counters SET subsequent = subsequent + 1"))

    def _read(self) -> tuple[int, int]:
        [row] = self.stream.connections.run(lambda view: view.execute("SELECT * FROM public.counters").fetchall())
        return row[0], row[1]


@pytest.mark.usefixtures("_counters_table")
class TestView(shipped.projection.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> EventCounters:
        return EventCounters(factory(self).stream())


@pytest.mark.usefixtures("_counters_table")
class TestProjectionRunner(shipped.projection.AggregateEventCountersProjectionTestCase):
    view_class = EventCounters


class TestEventSourcedProjectionRunner(shipped.projection.EventSourcedProjectionTestCase):
    pass


@pytest.mark.skip(reason=OUT_OF_SCOPE)
class TestTaggedDecisions(shipped.projection.TaggedDecisionCountersProjectionTestCase):
    view_class = EventCounters
    env: ClassVar[dict[str, str]] = {}
