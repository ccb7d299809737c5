"""What an appender tells its callers: what stands in a row of `ledger.append`, and what an error of the connection means to them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
from psycopg import errors as pg
from psycopg.pq.abc import PGresult

from ledger import errors, lane

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Of a timestamptz in binary, which counts microseconds from then on."""


def time(stored: bytes) -> datetime:
    """A timestamptz that came in binary."""
    return EPOCH + timedelta(microseconds=int.from_bytes(stored, signed=True))


def of_row(result: PGresult, row: int, tenant_id: UUID, command_id: UUID) -> errors.LedgerError:
    """Why that command was refused; the row has one of the statuses 2 to 6."""
    status = int.from_bytes(result.get_value(row, 0) or b"")
    if status == 2:
        return errors.CommandIdReused(command_id)
    if status == 5:
        return errors.EventTooLarge(command_id)
    if status == 6:
        return errors.TenantUnknown(tenant_id)
    kind, owner = result.get_value(row, 4), UUID(bytes=result.get_value(row, 5))
    return errors.VersionConflict(owner) if status == 3 else errors.ReservationTaken((kind or b"").decode(), owner)


def of_error(error: Exception, command_id: UUID) -> Exception:
    """Of an error that is nobody's fault: what it means for that command. Any other one as it is."""
    if isinstance(error, lane.Lost):
        return errors.OutcomeUnknown(command_id)
    if isinstance(error, lane.Closed):
        return errors.AppenderClosed()
    if isinstance(error, psycopg.OperationalError | pg.ReadOnlySqlTransaction):
        return errors.NotWritable(error.sqlstate or "")
    return error
