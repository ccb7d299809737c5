"""What the ledger refuses, one class each. Messages say what happened, the value that caused it, and what to do."""

from uuid import UUID


class LedgerError(Exception):
    """Root of all that `ledger` raises on purpose."""


class NotFound(LedgerError):
    """No aggregate of that kind has that id in that tenant."""

    def __init__(self, kind: str, id: UUID) -> None:
        super().__init__(
            f"There is no {kind} with the id {id}. Check the id; ids of other tenants are not found either."
        )
        self.kind, self.id = kind, id


class TenantUnknown(LedgerError):
    """The tenant has no stream."""

    def __init__(self, tenant_id: UUID) -> None:
        super().__init__(f"The tenant {tenant_id} has no stream. Create the tenant first.")
        self.tenant_id = tenant_id


class VersionConflict(LedgerError):
    """Somebody else appended to the aggregate meanwhile. Nothing of the command was written: load again and decide again."""

    def __init__(self, originator_id: UUID) -> None:
        super().__init__(
            f"{originator_id} changed while the command was decided. Load it again and send the command again."
        )
        self.originator_id = originator_id


class ReadOutdated(VersionConflict):
    """Somebody appended to what the command only read. Nothing of it was written."""


class ReservationTaken(LedgerError):
    """A key that must be unique belongs to `owner` already. Nothing of the command was written."""

    def __init__(self, kind: str, owner: UUID) -> None:
        super().__init__(f"The {kind} is taken by {owner}. Choose another one, or use what is there.")
        self.kind, self.owner = kind, owner


class CommandIdReused(LedgerError):
    """The command id was used before, for something else."""

    def __init__(self, command_id: UUID) -> None:
        super().__init__(
            f"The command id {command_id} was used for another request before. Use a new id for a new request."
        )
        self.command_id = command_id


class RefusedBefore(LedgerError):
    """The command id was refused before: what was said then, in the same words."""

    def __init__(self, kept_as: str, detail: str, fields: dict[str, list[str]]) -> None:
        super().__init__(detail)
        self.kept_as, self.fields = kept_as, fields


class EventTooLarge(LedgerError):
    """A leaf may have 65,535 bytes at the most."""

    def __init__(self, command_id: UUID) -> None:
        super().__init__(
            f"An event of the command {command_id} is larger than 65,535 bytes. Shorten its texts or split the command."
        )
        self.command_id = command_id


class Overloaded(LedgerError):
    """The queue of commands is full; nothing was written."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} commands are waiting to be appended already. Try again in a second.")
        self.waiting = waiting


class TenantBusy(LedgerError):
    """Another transaction holds the tenant's head for longer than the appender waits; nothing was written."""

    def __init__(self, tenant_id: UUID) -> None:
        super().__init__(f"The stream of tenant {tenant_id} is locked by another transaction. Try again in a second.")
        self.tenant_id = tenant_id


class NotWritable(LedgerError):
    """The database answers and cannot write: no room left, read-only, out of memory. Nothing was written."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(
            f"The database cannot write at present (SQLSTATE {sqlstate}), and nothing was written. Try again in a minute."
        )
        self.sqlstate = sqlstate


class DatabaseAway(LedgerError):
    """The database went away and did not come back in time; nothing was asked of it that changes anything."""

    def __init__(self) -> None:
        super().__init__("The database does not answer at present. Try again in a few seconds.")


class OutcomeUnknown(LedgerError):
    """The database went away and did not come back in time: the command may or may not stand. Send the same id again."""

    def __init__(self, command_id: UUID) -> None:
        super().__init__(
            f"The database did not confirm the command {command_id}, which may have been done. Send it again with the same id, "
            "over HTTP the same Idempotency-Key: it will not be doubled."
        )
        self.command_id = command_id


class AppenderClosed(LedgerError):
    """The process is stopping and takes no more commands."""

    def __init__(self) -> None:
        super().__init__("This process is stopping and takes no more commands. Send the command to another node.")


class TopicUnknown(LedgerError):
    """No registered event class has the topic."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"No event class has the topic {topic!r}. A newer release wrote it: upgrade this process.")
        self.topic = topic


class EventUnreadable(LedgerError):
    """A stored state does not fit the event's class."""

    def __init__(self, topic: str, originator_id: UUID, version: int, why: str) -> None:
        super().__init__(
            f"{topic} version {version} of {originator_id} cannot be read: {why}. "
            "Verify the ledger, then look for a missing upcaster."
        )
        self.topic, self.originator_id, self.version = topic, originator_id, version


class PositionTokenInvalid(LedgerError):
    """Not a position token of this tenant."""

    def __init__(self, token: str) -> None:
        super().__init__(
            f"{token[:64]!r} is not a position of this tenant. Use the value of X-Position as it was given."
        )


class MasterKeyMissing(LedgerError):
    """A subject's key is wrapped by a master key that this process does not have."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"The master key {key_id} is missing. Add it to BITNEXUS_MASTER_KEY.")
        self.key_id = key_id


class SubjectErased(LedgerError):
    """The person was erased: nothing about them can be kept any more, and no new key is made."""

    def __init__(self, subject_id: UUID) -> None:
        super().__init__(
            f"The person known as {subject_id} has been erased, and nothing about them can be recorded any more. "
            "Leave the personal fields out."
        )
        self.subject_id = subject_id
