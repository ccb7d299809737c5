"""Whatever is killed or cut, and whenever: no acknowledged command is lost, none stands twice, positions have no gap."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg import conninfo

from bitnexus import database as connections
from bitnexus.embedded import Embedded
from ledger import ids
from migrations import runner
from tests.faults import loading
from tests.faults.loading import Loader
from tests.world import MASTER, Database

CONCURRENCY = 64
COMMANDS = 2_500
"""Of one process: two events each."""
CLIENT_KILLS = 8
DATABASE_COMMANDS = 25_000
"""More than it has time for: a database that is back at once must not find the process at its end."""
DATABASE_KILLS = 6


@pytest.fixture
def tenant(database: Database) -> UUID:
    found = ids.new_id()
    loading.open_stream(database.app_url, found)
    return found


def test_two_processes_on_one_tenant_leave_one_gapless_chain(database: Database, tenant: UUID) -> None:
    """64 commands each are under way at any time; neither process is refused or has to send again."""
    names = ("left", "right")
    with (
        Loader(database.app_url, tenant, names[0], COMMANDS, CONCURRENCY) as left,
        Loader(database.app_url, tenant, names[1], COMMANDS, CONCURRENCY) as right,
    ):
        for each in (left, right):
            each.until(0)
        for each in (left, right):
            each.go()
        left.finish()
        right.finish()
    assert (left.resent, right.resent) == (0, 0)
    assert [len(each.acknowledged) for each in (left, right)] == [COMMANDS, COMMANDS]
    loading.assert_stands(database.app_url, tenant, names, COMMANDS, [left.acknowledged, right.acknowledged])
    whose = dict.fromkeys(left.acknowledged.values(), "l") | dict.fromkeys(right.acknowledged.values(), "r")
    order = "".join(whose[position] for position in sorted(whose))
    turns = order.count("lr") + order.count("rl")
    print(f"two processes: {2 * COMMANDS} commands, the turn passed {turns} times")
    assert turns > 1


def test_two_processes_with_the_same_commands_append_each_once(database: Database, tenant: UUID) -> None:
    """A job that was started twice."""
    commands = COMMANDS // 3
    with (
        Loader(database.app_url, tenant, "same", commands, CONCURRENCY) as left,
        Loader(database.app_url, tenant, "same", commands, CONCURRENCY) as right,
    ):
        for each in (left, right):
            each.until(0)
        for each in (left, right):
            each.go()
        left.finish()
        right.finish()
    assert left.acknowledged == right.acknowledged
    loading.assert_stands(database.app_url, tenant, ["same"], commands, [left.acknowledged])


def test_a_process_killed_at_random_moments_loses_and_doubles_nothing(database: Database, tenant: UUID) -> None:
    """Each time the next one sends all its commands again, as a client does that never heard an answer."""
    chosen, told = random.Random(5), []
    for _ in range(CLIENT_KILLS):
        with Loader(database.app_url, tenant, "killed", COMMANDS, CONCURRENCY) as loader:
            loader.go().until(chosen.randrange(0, COMMANDS * 2 // 3))
            time.sleep(chosen.random() * 0.01)
            loader.kill()
        told.append(loader.acknowledged)
    with Loader(database.app_url, tenant, "killed", COMMANDS, CONCURRENCY) as loader:
        loader.go().finish()
    told.append(loader.acknowledged)
    assert len(loader.acknowledged) == COMMANDS
    for acknowledged in told:
        loading.assert_stands(database.app_url, tenant, ["killed"], COMMANDS, [acknowledged])
    print(f"killed client: acknowledged before each kill {[len(each) for each in told[:-1]]} of {COMMANDS}")


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Embedded, Path]]:
    """A server that may be killed, and its data directory."""
    data_dir = tmp_path_factory.mktemp("faults") / "data"
    with Embedded(data_dir) as embedded:
        yield embedded, data_dir


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "pg" / "postmaster.pid").read_text().split()[0])


def appending_backend(owner_url: str, login: str) -> int:
    with psycopg.connect(owner_url) as owner:
        query = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'"
        rows = owner.execute(query, (login,)).fetchall()
    return int(rows[0][0])


def test_a_database_killed_at_random_moments_loses_and_doubles_nothing(own_server: tuple[Embedded, Path]) -> None:
    """Its appending process lives on, waits for the recovery and goes on by itself.

    In turn the server's first process is killed, and the backend that appends, upon which the server restarts all others.
    """
    embedded, data_dir = own_server
    password = connections.login_password(MASTER)
    runner.migrate(embedded.owner_url, login_password=password)
    app_url, tenant, chosen = runner.login_url(embedded.owner_url, password), ids.new_id(), random.Random(7)
    login = str(conninfo.conninfo_to_dict(app_url)["user"])
    loading.open_stream(app_url, tenant)
    kills = []
    with Loader(app_url, tenant, "load", DATABASE_COMMANDS, CONCURRENCY) as loader:
        loader.go()
        for kill in range(DATABASE_KILLS):
            loader.until(len(loader.acknowledged) + chosen.randrange(1, COMMANDS // 3))
            pid = appending_backend(embedded.owner_url, login) if kill % 2 else postmaster(data_dir)
            time.sleep(chosen.random() * 0.01)
            os.kill(pid, signal.SIGKILL)
            kills.append(len(loader.acknowledged))
            embedded.start()
        loader.finish()
    assert len(loader.acknowledged) == DATABASE_COMMANDS
    loading.assert_stands(app_url, tenant, ["load"], DATABASE_COMMANDS, [loader.acknowledged])
    print(
        f"killed database: acknowledged at each kill {kills} of {DATABASE_COMMANDS}, sent again by the caller {loader.resent}"
    )
