"""What the parent of workers does when they do not come up."""

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bitnexus import settings, supervision
from bitnexus.installation import Installation
from tests.world import MASTER

WAIT_S_MAX = 10.0


async def test_workers_that_do_not_start_stop_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would start them again for ever, and a supervisor of processes would think that all is well."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ready: list[None] = []
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            pytest.raises(supervision.WorkersFailed, match="ended with code 1"),
        ):
            await asyncio.wait_for(_supervise(listener, lambda: ready.append(None)), WAIT_S_MAX)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ready == []


async def _supervise(listener: socket.socket, ready: Callable[[], None]) -> None:
    nowhere = settings.Settings(data_dir=Path("/"))
    await supervision.supervise(Installation("", MASTER), nowhere, listener, 2, ready)
