"""Whom an appender tells what it does. The metrics that a scrape reads are one of them, in `telemetry`: their library takes as
long to import as a command of the command line needs for its work, so nothing else here imports it."""

from typing import Protocol

from ledger import errors


class Listener(Protocol):
    """Called in the event loop's thread, amidst the work: a call takes microseconds and raises nothing."""

    def flushed(self, commands: int, seconds: float) -> None:
        """A flush of so many commands was answered, so long after it was sent."""

    def failed(self) -> None:
        """A flush was not answered at once and well: it is taken apart, or sent again."""

    def refused(self, error: errors.LedgerError) -> None:
        """A command was not appended."""


class _Nobody:
    def flushed(self, commands: int, seconds: float) -> None: ...

    def failed(self) -> None: ...

    def refused(self, error: errors.LedgerError) -> None: ...


NOBODY: Listener = _Nobody()
