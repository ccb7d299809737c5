"""What appending tells of itself. docs/metrics.md says what each metric means."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from ledger import errors

COMMANDS_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
"""Up to appender.COMMANDS_PER_FLUSH_MAX."""
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""A flush takes 1 to 20 ms; one that waits for a head up to appender.HEAD_WAIT_MS."""


class Appends:
    """An appender's `listener.Listener`; its metrics are in `registry` from now on. Touched by the event loop's thread only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._commands = Histogram(
            "bitnexus_append_flush_commands",
            "Commands of a flush.",
            buckets=COMMANDS_BUCKETS,
            registry=registry,
        )
        self._seconds = Histogram(
            "bitnexus_append_flush_seconds",
            "From sending a flush to its answer.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "bitnexus_append_flush_failures",
            "Flushes that were not answered at once and well, and were taken apart or sent again.",
            registry=registry,
        )
        self._refusals = Counter(
            "bitnexus_append_refusals",
            "Commands that were not appended, by why.",
            ("reason",),
            registry=registry,
        )

    def flushed(self, commands: int, seconds: float) -> None:
        self._commands.observe(commands)
        self._seconds.observe(seconds)

    def failed(self) -> None:
        self._failures.inc()

    def refused(self, error: errors.LedgerError) -> None:
        """The reason is the class of the error: conflicts are VersionConflict and ReservationTaken."""
        self._refusals.labels(type(error).__name__).inc()
