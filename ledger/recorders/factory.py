"""What `PERSISTENCE_MODULE=ledger.recorders` gives to an application of the package."""

from types import TracebackType
from uuid import UUID

import psycopg
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    ProcessRecorder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic

from ledger import ids
from ledger.recorders.connections import Connections
from ledger.recorders.events import LedgerAggregateRecorder, LedgerApplicationRecorder
from ledger.recorders.stream import Stream
from ledger.recorders.tracking import LedgerProcessRecorder, LedgerTrackingRecorder


class LedgerFactory(InfrastructureFactory[LedgerTrackingRecorder]):
    """Recorders over one tenant's stream. Settings may be prefixed by the application's name, as the package has it."""

    LEDGER_URL = "LEDGER_URL"
    """The address of the login role (what a process of BitNexus connects with)."""
    LEDGER_TENANT = "LEDGER_TENANT"
    """A UUID: the tenant that is this application's alone. Its stream is opened at the first append."""
    LEDGER_INITIAL_VERSION = "LEDGER_INITIAL_VERSION"
    """The first version of the application's aggregates, 1 (default) or 0."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        """Raises InfrastructureFactoryError for a setting that is missing or wrong. Connects later."""
        super().__init__(env)
        try:
            self.connections = Connections(self._setting(self.LEDGER_URL))
            self.tenant_id = UUID(self._setting(self.LEDGER_TENANT))
        except psycopg.ProgrammingError as error:
            raise self._wrong(self.LEDGER_URL, "a connection string of PostgreSQL") from error
        except ValueError as error:
            raise self._wrong(self.LEDGER_TENANT, "a UUID") from error
        if self.env.get(self.LEDGER_INITIAL_VERSION, "1") not in ("0", "1"):
            raise self._wrong(self.LEDGER_INITIAL_VERSION, "0 or 1")

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Another purpose than "events" (the package has "snapshots") gets a stream of its own beside the tenant's."""
        return LedgerAggregateRecorder(self.stream(purpose))

    def application_recorder(self) -> ApplicationRecorder:
        """Connects. Raises OperationalError, and ProgrammingError if the stream is another application's."""
        topic = self.env.get(self.APPLICATION_RECORDER_TOPIC)
        recorder_class = resolve_topic(topic) if topic else LedgerApplicationRecorder
        assert issubclass(recorder_class, LedgerApplicationRecorder)
        return recorder_class(self._own_stream())

    def process_recorder(self) -> ProcessRecorder:
        """As application_recorder."""
        topic = self.env.get(self.PROCESS_RECORDER_TOPIC)
        recorder_class = resolve_topic(topic) if topic else LedgerProcessRecorder
        assert issubclass(recorder_class, LedgerProcessRecorder)
        return recorder_class(self._own_stream())

    def tracking_recorder(
        self, tracking_recorder_class: type[LedgerTrackingRecorder] | None = None
    ) -> LedgerTrackingRecorder:
        """A projection's. It may use the tenant of the application that it follows: it appends nothing."""
        topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
        if tracking_recorder_class is None:
            tracking_recorder_class = resolve_topic(topic) if topic else LedgerTrackingRecorder
        assert issubclass(tracking_recorder_class, LedgerTrackingRecorder)
        return tracking_recorder_class(self.stream())

    def close(self) -> None:
        """Lets the connections go. What the recorders are asked afterwards is answered by InterfaceError."""
        self.connections.close()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        super().__exit__(exc_type, exc_val, exc_tb)
        self.close()

    def _own_stream(self) -> Stream:
        stream = self.stream()
        stream.check_owner()
        return stream

    def stream(self, purpose: str = "events") -> Stream:
        tenant_id = self.tenant_id
        if purpose != "events":
            tenant_id = ids.derived_id(b"recorder", self.tenant_id.bytes, purpose.encode())
        initial_version = int(self.env.get(self.LEDGER_INITIAL_VERSION, "1"))
        return Stream(self.connections, tenant_id, self.env.name, initial_version)

    def _setting(self, key: str) -> str:
        value = self.env.get(key)
        if not value:
            raise InfrastructureFactoryError(
                f"{key} is not set for the application {self.env.name!r}. Set it, or {self.env.create_keys(key)[0]}."
            )
        return value

    def _wrong(self, key: str, wanted: str) -> InfrastructureFactoryError:
        shown = "" if key == self.LEDGER_URL else f", it is {self.env.get(key)!r}"  # it holds a password
        return InfrastructureFactoryError(f"{key} must be {wanted}{shown}. Correct it in the environment.")
