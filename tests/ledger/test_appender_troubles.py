"""Heads that somebody else holds, bad input, and databases that go away: each command has its own answer all the same."""

import asyncio
import logging
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import appender, errors, lane
from ledger.appender import Appended
from tests.ledger import calls
from tests.ledger.appenders import PATIENCE_S, Bench, answers, appended, command, event

# Locks


async def test_a_locked_head_does_not_hold_up_the_other_tenants(
    bench: Bench, app: Connection[TupleRow], projector: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones beside it in a flush wait a moment; then it waits apart and costs nobody anything."""
    monkeypatch.setattr(appender, "LOCK_TIMEOUT_MS", 60_000)
    free, locked, other = calls.open_streams(app, 3)
    backends = len(await bench.backends())
    async with bench.head_locked(locked):
        futures = [bench.appender.submit(command(each, event())) for each in (free, locked, other) * 2]
        waiting = futures[1::3]
        assert len(appended(await answers(futures[::3] + futures[2::3]))) == 4
        for _ in range(20):  # none of these waits for a head: they would take HEAD_WAIT_MS each otherwise
            waiting.append(bench.appender.submit(command(locked, event())))
            async with asyncio.timeout(3 * appender.HEAD_WAIT_MS / 1_000):
                await bench.appender.submit(command(free, event()))
        assert not any(each.done() for each in waiting)
        assert bench.appender.waiting > 0
    assert [each.position for each in appended(await answers(waiting))] == list(range(1, 23))  # in their order
    for each, events in zip((free, locked, other), (22, 22, 2), strict=True):
        calls.assert_good(projector, each, events)
    (after,) = appended(await answers([bench.appender.submit(command(locked, event()))]))
    assert after.position == 23
    async with asyncio.timeout(PATIENCE_S):
        while True:  # until the connection that waited apart is given back
            if len(await bench.backends()) == backends:
                break
            await asyncio.sleep(0.01)


async def test_a_tenant_that_stays_locked_is_told_so(
    bench: Bench, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "LOCK_TIMEOUT_MS", 50)
    async with bench.head_locked(tenant):
        found = await answers([bench.appender.submit(command(tenant, event())) for _ in range(3)])
    assert [type(each) for each in found] == [errors.TenantBusy] * 3
    assert (await answers([bench.appender.submit(command(tenant, event()))]))[0] is not None


async def test_more_locked_tenants_than_may_wait_apart_are_told_at_once(
    bench: Bench, app: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a connection: their number has a bound."""
    monkeypatch.setattr(appender, "ASIDE_MAX", 1)
    monkeypatch.setattr(appender, "LOCK_TIMEOUT_MS", 60_000)
    one, two = calls.open_streams(app, 2)
    async with bench.head_locked(one), bench.head_locked(two):
        futures = [bench.appender.submit(command(each, event())) for each in (one, two)]
        done, pending = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        assert [type(each.exception()) for each in done] == [errors.TenantBusy]
        assert len(pending) == 1
    assert len(appended(await answers(list(pending)))) == 1


async def test_bad_input_of_a_tenant_that_waits_apart_fails_alone(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow]
) -> None:
    bad = command(tenant, event(topic=b"a\0b"))
    async with bench.head_locked(tenant):
        first = bench.appender.submit(command(tenant, event()))
        await asyncio.sleep(2 * appender.HEAD_WAIT_MS / 1_000)
        futures = [bench.appender.submit(each) for each in (command(tenant, event()), bad, command(tenant, event()))]
    found = await answers([first, *futures])
    assert [isinstance(each, Appended) for each in found] == [True, True, False, True]
    calls.assert_good(projector, tenant, 3)


async def test_few_commands_do_not_wait_for_a_flush_that_is_taken_apart(bench: Bench, tenant: UUID) -> None:
    """It is sent command by command: what comes meanwhile goes between."""
    bad = command(tenant, event(topic=b""))
    apart = [bench.appender.submit(each) for each in (bad, *(command(tenant, event()) for _ in range(30)))]
    await answers(apart[:2])
    await answers([bench.appender.submit(command(tenant, event()))])
    assert not apart[-1].done()
    assert len(appended(await answers(apart))) == 30


# A database that goes away


async def test_a_backend_terminated_between_flushes_is_not_noticed(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow]
) -> None:
    for flush in range(4):
        found = await answers([bench.appender.submit(command(tenant, event())) for _ in range(5)])
        assert [each.position for each in appended(found)] == list(range(flush * 5 + 1, flush * 5 + 6))
        await bench.terminate()
    calls.assert_good(projector, tenant, 20)


async def test_a_backend_terminated_during_a_flush_loses_and_doubles_nothing(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow]
) -> None:
    for flush in range(4):
        async with bench.head_locked(tenant):
            futures = [bench.appender.submit(command(tenant, event())) for _ in range(5)]
            await bench.until_waiting()
            await bench.terminate()
        found = await answers(futures)
        assert [each.position for each in appended(found)] == list(range(flush * 5 + 1, flush * 5 + 6))
    calls.assert_good(projector, tenant, 20)


async def test_a_database_that_stays_away_leaves_the_outcome_unknown_and_the_id_good(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is told so, once, and sends the same id again when the database is back."""
    monkeypatch.setattr(lane, "RECOVERY_S_MAX", 0.3)
    bench.connects[:] = [psycopg.OperationalError("the database is away")] * 100
    await bench.terminate()
    same = command(tenant, event())
    assert [type(each) for each in await answers([bench.appender.submit(same)])] == [errors.OutcomeUnknown]
    bench.connects.clear()
    (found,) = appended(await answers([bench.appender.submit(same)]))
    assert found.position == 1
    calls.assert_good(projector, tenant, 1)


async def test_a_read_only_database_is_an_error_of_each_command_and_not_the_end(
    bench: Bench, tenant: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    """A failover to a standby: when that is promoted, the same process goes on. The log says each once, not for every command."""
    name = bench.database.name
    caplog.set_level(logging.WARNING, "ledger.appender")
    await bench.owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    await bench.terminate()
    for _ in range(2):
        found = await answers([bench.appender.submit(command(tenant, event())) for _ in range(3)])
        assert [type(each) for each in found] == [errors.NotWritable] * 3
    await bench.owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    await bench.terminate()
    assert len(appended(await answers([bench.appender.submit(command(tenant, event())) for _ in range(3)]))) == 3
    said = [record.getMessage() for record in caplog.records if record.name == "ledger.appender"]
    assert [("refused until" in each, "writes again" in each) for each in said] == [(True, False), (False, True)]
