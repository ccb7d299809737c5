"""Two processes on one tenant: who waits for the head then decides on what the other one left."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from ledger import ids
from tests.ledger import calls
from tests.ledger.calls import (
    APPENDED,
    ID_REUSED,
    REPLAYED,
    RESERVATION_TAKEN,
    VERSION_CONFLICT,
    Answer,
    Command,
    Event,
    Key,
)
from tests.world import Database

App = Connection[TupleRow]

pytestmark = pytest.mark.usefixtures("through")


class Both(NamedTuple):
    first: Answer
    waited_at: datetime  # by the database's clock: the second one was waiting then
    second: Answer


def one_after_the_other(database: Database, owner: App, first: Command, second: Command) -> Both:
    """The answers to a command in a transaction that stays open, and to one that another process sends meanwhile."""
    with (
        connections.connect_sync(database.app_url, "app") as opener,
        connections.connect_sync(database.app_url, "app") as waiter,
        ThreadPoolExecutor(1) as threads,
    ):
        with opener.transaction():
            (held,) = calls.append(opener, first)
            future = threads.submit(calls.append, waiter, second)
            query = "SELECT wait_event_type, clock_timestamp() FROM pg_stat_activity WHERE pid = %s"
            while True:
                waits, waited_at = owner.execute(query, (waiter.info.backend_pid,)).fetchone() or ("", None)
                if waits == "Lock":
                    break
                assert not future.done(), future.result()
        return Both(held, waited_at, *future.result())


def command(tenant: UUID, number: int, **other: Any) -> Command:
    """A command whose parts are the same for the same number."""
    same = Command(
        tenant=tenant,
        id=UUID(int=number),
        events=[Event(UUID(int=number)), Event(UUID(int=number + 1_000))],
        claims=[Key(calls.key(number), UUID(int=number))],
    )
    return dataclasses.replace(same, **other)


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"id": UUID(int=9), "claims": []}, VERSION_CONFLICT),
        ({"id": UUID(int=9), "events": []}, RESERVATION_TAKEN),
        ({}, REPLAYED),
        ({"fingerprint": b"other"}, ID_REUSED),
        ({"id": UUID(int=9), "events": [Event(UUID(int=9))], "claims": []}, APPENDED),
    ],
)
def test_who_waited_for_the_head_sees_what_it_waited_for(
    database: Database, owner: App, projector: App, tenant: UUID, other: dict[str, Any], status: int
) -> None:
    """Decided on an older snapshot it would double the command, or break the chain."""
    both = one_after_the_other(database, owner, command(tenant, 1), command(tenant, 1, **other))
    assert (both.first.status, both.second.status) == (APPENDED, status)
    calls.assert_good(projector, tenant, 3 if status == APPENDED else 2)


def test_the_time_is_taken_once_the_head_is_held(database: Database, owner: App, tenant: UUID) -> None:
    """Taken before, it would be that of a moment at which earlier events were not there yet."""
    both = one_after_the_other(database, owner, Command(tenant=tenant), Command(tenant=tenant, id=ids.new_id()))
    assert both.second.recorded_at is not None
    assert both.second.recorded_at > both.waited_at


def test_flushes_over_the_same_tenants_in_another_order_do_not_wait_in_a_circle(
    database: Database, app: App, owner: App, projector: App
) -> None:
    """Each would hold the head that the other one wants: one of them is thrown out after a second, again and again."""
    tenants = calls.open_streams(app, 3)

    def append(connection: App, order: list[UUID]) -> list[int]:
        commands = [Command(tenant=each, events=[Event(ids.new_id())]) for each in order]
        return calls.statuses(calls.append(connection, *commands))

    with (
        connections.connect_sync(database.app_url, "app") as one,
        connections.connect_sync(database.app_url, "app") as two,
        ThreadPoolExecutor(2) as threads,
    ):
        with psycopg.connect(database.owner_url) as holder:
            holder.execute("SELECT FROM ledger.heads WHERE tenant_id = %s FOR UPDATE", (tenants[1],))
            futures = [threads.submit(append, *each) for each in ((one, tenants), (two, tenants[::-1]))]
            query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s) AND wait_event_type = 'Lock'"
            while owner.execute(query, ([one.info.backend_pid, two.info.backend_pid],)).fetchone() != (2,):
                assert not any(future.done() for future in futures)
        assert [future.result() for future in futures] == [[APPENDED] * 3] * 2
    for tenant in tenants:
        calls.assert_good(projector, tenant, 2)
