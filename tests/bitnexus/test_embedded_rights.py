"""Who the embedded PostgreSQL runs as, what it may reach, who is let in, and that nobody's directories are opened."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from bitnexus import embedded
from bitnexus.embedded import cluster, errors, processes, sockets
from tests.bitnexus.embedded_user import WAIT_S, User, execute, one, postmaster, runs

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run the server as another user")


def test_the_server_gets_nothing_of_our_environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds secrets, and variables such as PGDATA would lead the programs astray."""
    monkeypatch.setenv("BITNEXUS_MASTER_KEY", "hush-hush")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    with embedded.Embedded(data_dir):
        environment = Path(f"/proc/{postmaster(data_dir)}/environ")
        if not environment.exists():
            pytest.skip("this system does not show a process's environment")
        assert b"hush-hush" not in environment.read_bytes()


def test_only_a_password_lets_the_login_role_in(data_dir: Path) -> None:
    with embedded.Embedded(data_dir) as ours:
        execute(ours.owner_url, b"CREATE ROLE somebody LOGIN PASSWORD 'right'")
        url = conninfo.make_conninfo(ours.owner_url, user="somebody")
        for wrong in (url, conninfo.make_conninfo(url, password="wrong")):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(wrong).close()
        assert one(conninfo.make_conninfo(url, password="right"), b"SELECT current_user") == "somebody"


@as_root
def test_the_owner_is_refused_to_another_user_of_the_machine(data_dir: Path) -> None:
    """Also if the socket's directory were open."""
    script = (
        "import os, sys, psycopg; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "try: psycopg.connect(sys.argv[1]).close(); print('in')\n"
        "except psycopg.OperationalError as error: print(error)"
    )
    with embedded.Embedded(data_dir) as ours:
        command = [sys.executable, "-c", script, ours.owner_url, str(NOBODY)]
        socket_dir = Path(str(conninfo.conninfo_to_dict(ours.owner_url)["host"]))
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        outside = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout
        socket_dir.chmod(0o711)
        inside = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout
        socket_dir.chmod(0o700)
    assert "Permission denied" in outside
    assert "Peer authentication failed" in inside


@as_root
def test_root_below_closed_directories_changes_none_of_their_modes(data_dir: Path) -> None:
    """The server's user passes them by one capability, and gets no more than that."""
    closed = data_dir / "closed"
    closed.mkdir(parents=True, mode=0o700)
    os.chmod(closed, 0o700)
    below = closed / "below"
    before = [(path, path.stat().st_mode, path.stat().st_uid) for path in (closed, *closed.parents)]
    with embedded.Embedded(below) as ours:
        assert one(ours.owner_url, b"SELECT 1") == 1
        status = Path(f"/proc/{postmaster(below)}/status").read_text()
    assert [(path, path.stat().st_mode, path.stat().st_uid) for path in (closed, *closed.parents)] == before
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in lines["Uid"].split()
    assert int(lines["CapEff"], 16) in {1 << processes.CAP_DAC_READ_SEARCH, 1 << processes.CAP_DAC_OVERRIDE}
    assert stat.S_IMODE(below.stat().st_mode) == 0o710
    assert (below / "pg").stat().st_uid != 0
    assert stat.S_IMODE((below / "pg").stat().st_mode) == 0o700


@as_root
def test_where_nothing_is_closed_the_server_gets_no_capability(tmp_path: Path) -> None:
    """With one it could read every file of the machine."""
    install = cluster.binaries().parent
    if any(not path.stat().st_mode & stat.S_IXOTH for path in (install, *install.parents)):
        pytest.skip("the programs themselves lie in a closed directory here")
    data_dir = Path(f"/tmp/bitnexus-test-{os.getpid()}")
    try:
        with embedded.Embedded(data_dir):
            status = Path(f"/proc/{postmaster(data_dir)}/status").read_text()
    finally:
        shutil.rmtree(data_dir)
    assert "CapEff:\t0000000000000000" in status


@as_root
def test_a_container_without_the_capability_gets_a_clear_error(data_dir: Path) -> None:
    closed = data_dir / "closed"
    closed.mkdir(parents=True, mode=0o700)
    both = (processes.CAP_DAC_OVERRIDE, processes.CAP_DAC_READ_SEARCH)
    user = User(closed / "below", *both)
    answer = user.answer()
    user.kill()
    assert answer.startswith("refused Unreachable: ")
    assert "--data-dir or BITNEXUS_DATA_DIR" in answer
    user = User(closed / "below", processes.CAP_DAC_READ_SEARCH)
    assert user.answer().startswith("using")  # by the other one, which containers grant
    assert user.leave() == "left"


@as_root
def test_the_directory_of_an_ordinary_user_is_served_as_that_user(data_dir: Path) -> None:
    """Who once ran it with sudo must be able to run it without."""
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, NOBODY, NOBODY)
    with embedded.Embedded(data_dir) as ours:
        assert one(ours.owner_url, b"SELECT 1") == 1
    owners = {path.stat().st_uid for path in (data_dir, *data_dir.rglob("*"))}
    assert owners == {NOBODY}


def test_a_directory_of_ours_is_closed_to_others(data_dir: Path) -> None:
    with embedded.Embedded(data_dir):
        assert not stat.S_IMODE(data_dir.stat().st_mode) & 0o067


def test_a_socket_directory_that_others_could_use_is_refused(data_dir: Path) -> None:
    """Whoever put it there could listen in the server's place."""
    socket_dir = sockets.directory(data_dir.resolve())
    socket_dir.mkdir(mode=0o700)
    try:
        socket_dir.chmod(0o777)
        with pytest.raises(errors.SocketDirUnsafe, match="mode 0777"):
            embedded.Embedded(data_dir).start()
        socket_dir.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(socket_dir, NOBODY, NOBODY)
            with pytest.raises(errors.SocketDirUnsafe, match=f"belongs to user id {NOBODY}"):
                embedded.Embedded(data_dir).start()
        socket_dir.rmdir()
        socket_dir.symlink_to(data_dir)
        with pytest.raises(errors.SocketDirUnsafe, match="not a directory"):
            embedded.Embedded(data_dir).start()
    finally:
        socket_dir.unlink()
    assert not runs(data_dir)


def test_a_running_server_behind_an_open_socket_directory_is_not_trusted(data_dir: Path) -> None:
    with embedded.Embedded(data_dir):
        socket_dir = sockets.directory(data_dir.resolve())
        socket_dir.chmod(0o777)
        with pytest.raises(errors.SocketDirUnsafe, match="mode 0777"):
            embedded.Embedded(data_dir).start()
    assert not runs(data_dir)


def test_a_socket_path_is_short_wherever_the_data_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes no longer one."""
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "x" * 90)
    path = sockets.directory(tmp_path / ("y" * 200)) / sockets.SOCKET_NAME
    assert len(os.fsencode(path)) <= sockets.PATH_BYTES_MAX
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(FileNotFoundError):
        probe.connect(str(path))
