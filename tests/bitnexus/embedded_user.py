"""Processes that use the embedded server, for the tests of it, and what those ask.

As a program, `python -m tests.bitnexus.embedded_user D [DROPPED…]`: prints "using URL" or "refused CLASS: message", waits
for a line on standard input, ends its use, prints "left". DROPPED: numbers of capabilities to be without, as in a
container that withholds them.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import psycopg

from bitnexus import embedded
from bitnexus.embedded import cluster, locks

WAIT_S = 30.0  # for what takes well under a second; a test that fails must end
PR_CAPBSET_DROP = 24


class User:
    """Another process that uses the server."""

    def __init__(self, data_dir: Path, *without_capabilities: int) -> None:
        command = [sys.executable, "-m", "tests.bitnexus.embedded_user", str(data_dir)]
        self.process = subprocess.Popen(
            [*command, *map(str, without_capabilities)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def answer(self) -> str:
        """ "using URL" or "refused ERROR"; "" if it was killed."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> str:
        output, _ = self.process.communicate("\n", timeout=WAIT_S)
        return output.strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=WAIT_S)


def runs(data_dir: Path) -> bool:
    """Whether any process of the server lives."""
    lock = locks.Lock(data_dir / "server.lock", None)
    free = lock.take()
    lock.close()
    return not free


def postmaster(data_dir: Path) -> int:
    pid = cluster.pid(data_dir)
    assert pid is not None
    return pid


def execute(url: str, statement: bytes) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


def one(url: str, query: bytes) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def main(data_dir: Path) -> None:
    server = embedded.Embedded(data_dir, status=lambda message: print(message, file=sys.stderr, flush=True))
    try:
        print("using", server.start(), flush=True)
    except embedded.errors.EmbeddedError as error:
        print(f"refused {type(error).__name__}: {error}", flush=True)
        return
    sys.stdin.readline()
    server.close()
    print("left", flush=True)


if __name__ == "__main__":
    if sys.argv[2:]:
        for capability in sys.argv[2:]:
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, int(capability), 0, 0, 0)
        os.execv(sys.executable, [sys.executable, "-m", "tests.bitnexus.embedded_user", sys.argv[1]])
    main(Path(sys.argv[1]))
