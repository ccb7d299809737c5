"""A primary and its streaming replica, made of the embedded binaries: initdb, pg_basebackup, two servers on sockets."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from bitnexus.embedded import cluster, processes

PATIENCE_S = 30.0
HBA = """local all postgres trust
local replication postgres trust
local all all scram-sha-256
"""


class Server:
    """One PostgreSQL; its data in `folder`/data, its socket in `folder`."""

    def __init__(self, folder: Path, programs: processes.Programs, keep: int) -> None:
        self.folder, self._programs, self._keep = folder, programs, keep

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        """The owner's."""
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def start(self) -> None:
        options = ["listen_addresses=", "fsync=off", "logging_collector=off", "max_connections=200"]
        arguments = [part for option in options for part in ("-c", option)]
        self._programs.start(
            *("postgres", "-D", str(self.data), "-k", str(self.folder), *arguments),
            keep=self._keep,
            log=self.folder / "log",
            grandparent_pid="",
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def kill(self) -> None:
        """As a crash: no checkpoint, clients are cut off."""
        pid = self._pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """To the server and all of its processes: SIGSTOP makes it silent, with its connections there."""
        pid = self._pid()
        assert pid is not None
        for each in [pid, *_children(pid)]:
            with suppress(ProcessLookupError):
                os.kill(each, number)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _pid(self) -> int | None:
        with suppress(FileNotFoundError):
            return int((self.data / "postmaster.pid").read_text().split()[0])
        return None


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found


@contextmanager
def pair() -> Iterator[tuple[Server, Server]]:
    """Primary and replica, both running."""
    root = Path(tempfile.mkdtemp(prefix="bitnexus-replica-", dir="/tmp"))  # a socket's path may not be long
    keep = os.open(os.devnull, os.O_RDONLY)
    try:
        account = processes.account(root)
        if account.switch:
            os.chown(root, account.uid, account.gid)
        programs = processes.Programs(cluster.binaries(), account, root, root)
        servers = []
        for name in ("primary", "replica"):
            (root / name).mkdir()
            if account.switch:
                os.chown(root / name, account.uid, account.gid)
            servers.append(Server(root / name, programs, keep))
        primary, copy = servers
        try:
            programs.run(
                "initdb", "-D", str(primary.data), "-U", "postgres", "--no-sync", "--locale=C", "-E", "UTF8", keep=keep
            )
            (primary.data / "pg_hba.conf").write_text(HBA)
            primary.start()
            source = ("-h", str(primary.folder), "-U", "postgres")
            programs.run("pg_basebackup", *source, "-D", str(copy.data), "-R", "-c", "fast", "--no-sync", keep=keep)
            copy.start()
            yield primary, copy
        finally:
            for server in reversed(servers):
                with suppress(AssertionError):
                    server.signal(signal.SIGCONT)
                server.kill()
    finally:
        os.close(keep)
        shutil.rmtree(root, ignore_errors=True)
