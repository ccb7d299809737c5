"""Sockets cut between send and answer: the appender sends the same commands again by itself, and each stands once."""

import asyncio
import random
import tempfile
from pathlib import Path

import pytest

from bitnexus import database as connections
from ledger import ids, lane
from ledger.appender import Appended, Appender
from ledger.packing import Command
from ledger.waker import Waker
from tests.faults import load, loading
from tests.faults.proxy import Proxy
from tests.world import Database

CUTS = 100
COMMANDS_MAX = 30
"""Of the flush that is cut: its size is random, so that the server needs less or more time than the cut takes."""
PATIENCE_S = 60


async def test_100_cuts_between_send_and_answer_lose_and_double_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again at once, so that the old backend is often still at work on the same commands."""
    monkeypatch.setattr(lane, "RETRY_S_MIN", 0.001)
    tenant, chosen = ids.new_id(), random.Random(3)
    loading.open_stream(database.app_url, tenant)
    told: dict[int, int] = {}
    stood_already = 0
    # Not pytest's directory: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cut-") as directory:
        async with Proxy(database.app_url, Path(directory), chosen) as proxy:
            appends = Appender(connections.connector(proxy.url, "app"), Waker())
            await appends.start()
            for _ in range(CUTS):
                commands = [load.command(tenant, "cut", len(told) + n) for n in range(chosen.randint(1, COMMANDS_MAX))]
                proxy.arm()
                answers = await _answers(appends, commands)
                stood_already += any(answer.outcome is not None for answer in answers)
                told.update({int(each.outcome): a.position for each, a in zip(commands, answers, strict=True)})
            await appends.close()
    assert proxy.cuts == CUTS
    loading.assert_stands(database.app_url, tenant, ["cut"], len(told), [told])
    print(f"cut sockets: {CUTS} flushes, {len(told)} commands; {stood_already} flushes stood when they were sent again")
    assert 0 < stood_already < CUTS


async def test_a_repeat_by_the_caller_over_a_cut_socket_stands_once(database: Database) -> None:
    """The client gave up, too, and sends its commands with the same ids while the appender still tries."""
    tenant, chosen = ids.new_id(), random.Random(4)
    loading.open_stream(database.app_url, tenant)
    told: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="cut-") as directory:
        async with Proxy(database.app_url, Path(directory), chosen) as proxy:
            appends = Appender(connections.connector(proxy.url, "app"), Waker())
            await appends.start()
            for _ in range(CUTS // 5):
                commands = [load.command(tenant, "cut", len(told) + n) for n in range(chosen.randint(1, COMMANDS_MAX))]
                proxy.arm()
                first = asyncio.create_task(_answers(appends, commands))
                await asyncio.sleep(chosen.random() * lane.RETRY_S_MIN)
                again = await _answers(appends, commands[::-1])
                assert [each.position for each in await first] == [each.position for each in again[::-1]]
                told.update({int(each.outcome): a.position for each, a in zip(commands, await first, strict=True)})
            await appends.close()
    loading.assert_stands(database.app_url, tenant, ["cut"], len(told), [told])


async def _answers(to: Appender, commands: list[Command]) -> list[Appended]:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*(to.submit(command) for command in commands))
