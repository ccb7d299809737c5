"""`bitnexus serve`, or `demo`, as a process of its own, to be killed and started again at the same address."""

import asyncio
import json
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests import logged
from tests.bitnexus.commandline import COMMAND, CommandLine

START_S_MAX = 30.0
STOP_S_MAX = 30.0
"""Both take a second or two; a process that takes as long is killed and the test fails."""
DEMO_START_S_MAX = 90.0
"""The first one makes a database and fills it."""
LOG_BYTES_SHOWN = 4_000


class Site:
    """Runs from `start` to `stop`. Its log goes to a file: into a pipe that nobody reads it would stop writing."""

    def __init__(self, bitnexus: CommandLine, log: Path, workers: int = 1, command: str = "serve") -> None:
        """`command`: "serve", or "demo", which has one worker."""
        self._bitnexus = bitnexus
        self._words = [command] if command == "demo" else [command, "--workers", str(workers)]
        self._start_s_max = DEMO_START_S_MAX if command == "demo" else START_S_MAX
        self._log = log
        self._port = 0  # until the first start: then the one it found free
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.announced: dict[str, Any] = {}  # what it printed when it was ready

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(f"the end of serve's log:\n{self.log()[-LOG_BYTES_SHOWN:]}")
        if self._process is not None:
            await self.stop()

    @property
    def runs(self) -> bool:
        """Whether the process that `start` made is still there."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Returns when requests are answered. Meanwhile the event loop goes on: clients knock, a proxy forwards."""
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, *self._words, "--json", "--port", str(self._port)],
                env=self._bitnexus.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        overdue = threading.Timer(self._start_s_max, self._process.kill)
        overdue.start()
        self.announced = self._read_announcement()
        overdue.cancel()
        self.url = self.announced["url"]
        self._port = int(self.url.rpartition(":")[2])

    def _read_announcement(self) -> Any:
        """The document that it prints when it is ready."""
        assert self._process is not None
        assert self._process.stdout is not None
        said = ""
        while not said.endswith("\n}\n"):
            line = self._process.stdout.readline()
            assert line, self.log()
            said += line
        return json.loads(said)

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """The exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            await asyncio.to_thread(process.communicate, timeout=STOP_S_MAX)
        finally:
            process.kill()
            await asyncio.to_thread(process.communicate)
        if logged.RUN is not None:
            logged.RUN.of_process(self.log())
        return process.returncode

    def log(self) -> str:
        return self._log.read_text()
