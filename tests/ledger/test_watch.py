"""Looking for what other processes changed goes on, whatever happens meanwhile."""

import asyncio
import logging

import pytest

from bitnexus import database as connections
from ledger import ids, watch
from ledger.revocations import Revocations
from ledger.watch import Connection, Watch
from tests.world import World

PATIENCE_S = 20.0


class Broken:
    """Fails at its second look, in a way that nobody foresaw."""

    def __init__(self) -> None:
        self.looks = 0
        self.losses = 0

    async def look(self, connection: Connection) -> None:
        self.looks += 1
        if self.looks == 2:
            raise KeyError("a bug")

    def lost(self) -> None:
        self.losses += 1


async def test_a_bug_in_a_look_is_logged_and_the_next_look_comes(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the process would refuse everybody with 503 until somebody restarts it, and say nothing."""
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    broken, connect = Broken(), connections.connector(world.database.app_url, "projector")
    connects = 0

    async def failing_once() -> Connection:
        nonlocal connects
        connects += 1
        if connects == 2:
            raise KeyError("another bug")
        return await connect()

    watching = Watch(failing_once, broken)
    await watching.start()
    async with asyncio.timeout(PATIENCE_S):
        while broken.looks < 4:  # noqa: ASYNC110  there is no event for a look
            await asyncio.sleep(0.01)
    await watching.close()
    assert broken.losses == 1
    assert [each.exc_info is not None for each in caplog.records if each.levelno == logging.ERROR] == [True, True]


def test_a_listener_that_fails_keeps_nobody_else_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does the command fail that ended the session: it is committed."""
    known, heard = Revocations(), list[bool]()
    tenant_id, session_id = ids.new_id(), ids.new_id()

    def fails(suspended: bool) -> None:
        raise RuntimeError("a socket in a strange state")

    for ended in (fails, heard.append, fails):
        known.on_end(tenant_id, session_id, ended)
    known.learn(tenant_id, session_id, True)
    known.learn(tenant_id, tenant_id, True)
    assert heard == [False, True]
    assert (known.is_revoked(session_id), known.is_suspended(tenant_id)) == (True, True)
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) >= 2
