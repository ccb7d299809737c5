"""What to do about an event that a projector cannot digest, and what is no event's fault.

Each view names one function, its policy, which is asked only about an event that failed alone. Outages, lack of resources
and a database that lacks what the code needs are never asked about: the same event may be digested as soon as they are over.
"""

import traceback
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import psycopg
import psycopg_pool

from ledger import errors


class Decision(StrEnum):
    """`PARK`: the originator waits, all others go on. `STOP`: this view of this tenant waits for a person."""

    RETRY = "retry"
    PARK = "park"
    STOP = "stop"


Policy: TypeAlias = Callable[[Exception, int], Decision]
"""Of the error and how many times it was tried (1, 2, …)."""

ATTEMPTS = 5
"""With the pauses between them 7.5 s: a deadlock or a hiccup is over by then."""

# By class of SQLSTATE: connection, transaction state (such as a server that became read-only), rollback (deadlock),
# resources (disk, memory, connections), object in use, operator intervention, system (I/O), and, as what cannot be digested
# is a value and not a table, syntax and rights (a missing table or column is a release without its migration), internal error.
_NOBODYS_FAULT = ("08", "25", "40", "53", "55", "57", "58", "42", "XX")


def park_after(attempts: int) -> Policy:
    """For views that commute."""

    def policy(error: Exception, tried: int) -> Decision:
        return Decision.RETRY if tried < attempts else Decision.PARK

    return policy


def stop_after(attempts: int) -> Policy:
    """For views whose events have to come in order, or whose gaps would be taken for the truth."""

    def policy(error: Exception, tried: int) -> Decision:
        return Decision.RETRY if tried < attempts else Decision.STOP

    return policy


def is_outage(error: BaseException) -> bool:
    """Whether it says nothing about the event at hand."""
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        if state is None:
            return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        return state.startswith(_NOBODYS_FAULT)
    return isinstance(error, (psycopg_pool.PoolTimeout, OSError, MemoryError, TimeoutError, errors.MasterKeyMissing))


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, or the server is going."""
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return lost if state is None else state.startswith(("08", "57", "25P03"))


def described(error: BaseException) -> str:
    """One line that may be kept: which error, and where. Not what it says, as that may quote an event and name a person."""
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        diag = error.diag
        about = [
            f"{what} {name}"
            for what, name in (
                ("constraint", diag.constraint_name),
                ("table", diag.table_name),
                ("column", diag.column_name),
            )
            if name
        ]
        return ", ".join([f"{type(error).__name__} (SQLSTATE {error.sqlstate})", *about])
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def logged(error: BaseException) -> str:
    """One line for a log. Of the database's errors without their detail, which quotes the row."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{type(error).__name__}: {error.diag.message_primary} (SQLSTATE {error.sqlstate})"
    return f"{type(error).__name__}: {str(error).strip()}"
