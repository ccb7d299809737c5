"""What the tests here hold on to: a loading process, and what must stand in the ledger afterwards."""

import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from bitnexus import database as connections
from ledger import verify
from tests.faults import load

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
"""How long a process may take for what it usually does in seconds; then it is killed and the test fails."""


class Loader:
    """One `load` process. `acknowledged`: the position of each command that it has told of."""

    def __init__(self, app_url: str, tenant: UUID, name: str, commands: int, concurrency: int) -> None:
        self.acknowledged: dict[int, int] = {}
        self.resent: int | None = None  # once it is done
        self._told = threading.Condition()  # held to touch what stands above
        self._ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.load", app_url, str(tenant), name, str(commands), str(concurrency)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                words = line.split()
                if not line.endswith("\n") or len(words) not in (1, 2):
                    continue  # cut off by the kill
                with self._told:
                    if words[0] == "ready":
                        self._ready = True
                    elif words[0] == "resent":
                        self.resent = int(words[1])
                    else:
                        self.acknowledged[int(words[0])] = int(words[1])
                    self._told.notify_all()
        with self._told:
            self._told.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._errors.extend(lines)

    def go(self) -> Self:
        """Lets it begin, once it is connected."""
        self.until(0)
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self

    def until(self, acknowledged: int) -> None:
        """Returns once so many commands are acknowledged; 0: once it is connected."""
        with self._told:
            done = self._told.wait_for(
                lambda: (self._ready and len(self.acknowledged) >= acknowledged) or self._process.poll() is not None,
                PATIENCE_S,
            )
        assert done, f"{len(self.acknowledged)} of {acknowledged} commands were acknowledged"
        if len(self.acknowledged) < acknowledged:
            self._readers[1].join(PATIENCE_S)  # what it died of
            raise AssertionError(f"it ended with {self._process.poll()}: " + "".join(self._errors))

    def finish(self) -> None:
        """Returns once it ended by itself, with success."""
        try:
            status = self._process.wait(PATIENCE_S)
        finally:
            self.kill()
        assert status == 0, "".join(self._errors)

    def kill(self) -> None:
        """kill -9. What it had told of by then is in `acknowledged`."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        for reader in self._readers:
            reader.join()


def open_stream(app_url: str, tenant: UUID) -> None:
    with connections.connect_sync(app_url, "app") as app:
        app.execute("SELECT ledger.open_stream(%s)", (tenant,))


def stored(app_url: str, tenant: UUID) -> dict[UUID, tuple[int, int]]:
    """Of each command that the ledger has: its position as recorded, and its number of events.

    Asserts that positions have no gap, each hash is right, and each command's events stand together right before its position.
    """
    with connections.connect_sync(app_url, "projector") as projector:
        verdict = verify.verify(projector, tenant)
        assert verdict.broken is None
        rows = projector.execute(
            "SELECT position, originator_id, originator_version FROM ledger.events WHERE tenant_id = %s ORDER BY position",
            (tenant,),
        ).fetchall()
    assert [position for position, _, _ in rows] == list(range(1, verdict.events + 1))
    by_originator: dict[UUID, list[tuple[int, int]]] = {}
    for position, originator, version in rows:
        by_originator.setdefault(originator, []).append((position, version))
    with connections.connect_sync(app_url, "app") as app, app.transaction():
        app.execute("SELECT ledger.set_tenant(%s)", (tenant,))
        commands = app.execute(
            "SELECT command_id, position FROM ledger.commands WHERE tenant_id = %s", (tenant,)
        ).fetchall()
    found = {}
    for command_id, position in commands:
        events = by_originator.pop(load.originator(command_id))
        assert events == [(position - 1, 1), (position, 2)]
        found[command_id] = (position, len(events))
    assert by_originator == {}  # no event without its command
    return found


def assert_stands(
    app_url: str, tenant: UUID, names: Iterable[str], commands: int, told: Iterable[dict[int, int]]
) -> None:
    """Every command of every name stands exactly once, and where it was acknowledged each time."""
    names = list(names)
    found = stored(app_url, tenant)
    wanted = {load.command(tenant, name, number).command_id for name in names for number in range(commands)}
    assert found.keys() == wanted
    for name, acknowledged in zip(names, told, strict=True):
        for number, position in acknowledged.items():
            assert found[load.command(tenant, name, number).command_id][0] == position
