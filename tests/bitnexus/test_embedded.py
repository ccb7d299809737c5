"""The embedded PostgreSQL's life cycle, with real processes: who starts it, who stops it, and what survives a kill."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from bitnexus import embedded
from bitnexus.embedded import errors
from tests.bitnexus.embedded_user import WAIT_S, User, execute, one, postmaster, runs


def descendants(pid: int) -> list[int]:
    lines = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.splitlines()
    parents = {int(line.split()[0]): int(line.split()[1]) for line in lines}
    found = [pid]
    for one_of_them in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == one_of_them]
    return found[1:]


def wait_until_stopped(data_dir: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while runs(data_dir):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_share_one_server_and_the_last_one_out_stops_it(data_dir: Path) -> None:
    with embedded.Embedded(data_dir) as ours:
        execute(ours.owner_url, b"CREATE TABLE kept (n int)")
        other = User(data_dir)
        assert other.answer() == f"using {ours.owner_url}"
        pid = postmaster(data_dir)
        assert other.leave() == "left"
        assert runs(data_dir)
        other = User(data_dir)
        other.answer()
        assert postmaster(data_dir) == pid
    assert runs(data_dir)
    assert other.leave() == "left"
    assert not runs(data_dir)
    assert not (data_dir / "pg" / "postmaster.pid").exists()
    with embedded.Embedded(data_dir) as ours:
        assert one(ours.owner_url, b"SELECT count(*) FROM kept") == 0


def test_a_killed_user_does_not_keep_the_server_running(data_dir: Path) -> None:
    with embedded.Embedded(data_dir):
        other = User(data_dir)
        assert other.answer().startswith("using")
        other.kill()
    assert not runs(data_dir)


def test_an_open_connection_does_not_keep_the_server_running(data_dir: Path) -> None:
    with embedded.Embedded(data_dir) as ours:
        left_open = psycopg.connect(ours.owner_url)
    assert not runs(data_dir)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()


def test_after_the_only_user_was_killed_the_next_one_takes_its_server_over(data_dir: Path) -> None:
    other = User(data_dir)
    other.answer()
    pid = postmaster(data_dir)
    other.kill()
    with embedded.Embedded(data_dir):
        assert postmaster(data_dir) == pid
    assert not runs(data_dir)


def test_after_a_killed_server_the_next_start_recovers(data_dir: Path) -> None:
    """What was committed is there, though a user of the dead server still lives and its process id is taken again."""
    other = User(data_dir)
    url = other.answer().removeprefix("using ")
    execute(url, b"CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    os.kill(postmaster(data_dir), signal.SIGKILL)
    wait_until_stopped(data_dir)
    pid_file = data_dir / "pg" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n" + pid_file.read_text().split("\n", 1)[1])
    with embedded.Embedded(data_dir) as ours:
        assert one(ours.owner_url, b"SELECT count(*) FROM kept") == 1000
        assert other.leave() == "left"
        os.kill(postmaster(data_dir), signal.SIGKILL)
        assert one(ours.start(), b"SELECT count(*) FROM kept") == 1000
    assert not runs(data_dir)


def test_an_empty_pid_file_does_not_hinder_the_next_start(data_dir: Path) -> None:
    """A full disk leaves one."""
    with embedded.Embedded(data_dir):
        pass
    (data_dir / "pg" / "postmaster.pid").write_text("")
    with embedded.Embedded(data_dir) as ours:
        assert one(ours.owner_url, b"SELECT 1") == 1


def test_processes_that_start_together_make_one_server(data_dir: Path) -> None:
    users = [User(data_dir) for _ in range(4)]
    answers = {user.answer() for user in users}
    assert len(answers) == 1
    assert answers.pop().startswith("using postgresql://")
    assert [user.leave() for user in users] == ["left"] * 4
    assert not runs(data_dir)


def test_a_start_during_the_stop_waits_and_starts_anew(data_dir: Path) -> None:
    """It must not hand out a server that is on its way out."""
    for delay_s in (0.0, 0.02, 0.04):
        leaving = User(data_dir)
        leaving.answer()
        assert leaving.process.stdin is not None
        leaving.process.stdin.write("\n")
        leaving.process.stdin.flush()
        time.sleep(delay_s)
        with embedded.Embedded(data_dir) as ours:
            assert leaving.leave() == "left"
            assert one(ours.owner_url, b"SELECT 1") == 1


def test_a_server_that_somebody_else_is_stopping_is_waited_for(data_dir: Path) -> None:
    """A service manager signals every process of ours at once."""
    with embedded.Embedded(data_dir) as ours:
        os.kill(postmaster(data_dir), signal.SIGTERM)
        assert one(ours.start(), b"SELECT 1") == 1


def test_a_first_start_killed_at_any_moment_is_made_good_by_the_next(data_dir: Path) -> None:
    """A half-made cluster must never be taken for whole."""
    for delay_s in (0.2, 0.4, 0.6, 0.8):
        user = User(data_dir)
        time.sleep(delay_s)
        user.kill()
    with embedded.Embedded(data_dir) as ours:
        assert one(ours.owner_url, b"SELECT current_database()") == "bitnexus"
        assert not (data_dir / "pg.new").exists()


def test_a_half_made_cluster_is_made_anew(data_dir: Path) -> None:
    """Made by an initdb that died with everything, as in a power cut."""
    user = User(data_dir)
    deadline = time.monotonic() + WAIT_S
    while not (data_dir / "pg.new" / "global").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for pid in (*descendants(user.process.pid), user.process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    user.kill()
    assert (data_dir / "pg.new").exists()
    assert not (data_dir / "pg").exists()
    with embedded.Embedded(data_dir) as ours:
        assert not (data_dir / "pg.new").exists()
        assert one(ours.owner_url, b"SELECT current_setting('data_checksums')") == "on"


def test_the_database_is_durable_utf8_and_listens_on_no_network(data_dir: Path) -> None:
    expected = {
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "fsync": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        "max_connections": "200",
        "client_connection_check_interval": "1s",
        "password_encryption": "scram-sha-256",
        "logging_collector": "on",
    }
    with embedded.Embedded(data_dir) as ours:
        query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in expected)
        with psycopg.connect(ours.owner_url) as connection:
            row = connection.execute(query.encode()).fetchone()
            provider = connection.execute(
                "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = current_database()"
            ).fetchone()
            connection.execute("CREATE EXTENSION vector")
    assert dict(zip(expected, row or (), strict=True)) == expected
    assert provider == ("b", "C.UTF-8")


def test_a_server_that_cannot_start_shows_its_log(data_dir: Path) -> None:
    with embedded.Embedded(data_dir):
        pass
    with (data_dir / "pg" / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = nonsense\n")
    with pytest.raises(errors.ServerExited, match=r"(?s)shared_buffers.*nonsense.*the whole log is in"):
        embedded.Embedded(data_dir).start()
    assert not runs(data_dir)


def test_a_forked_child_that_ends_its_copy_leaves_the_server_running(data_dir: Path) -> None:
    with embedded.Embedded(data_dir) as ours:
        if (child := os.fork()) == 0:
            ours.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert one(ours.owner_url, b"SELECT 1") == 1
    assert not runs(data_dir)


def test_without_a_use_there_is_no_url(data_dir: Path) -> None:
    with pytest.raises(errors.NotStarted):
        _ = embedded.Embedded(data_dir).owner_url
