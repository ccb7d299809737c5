"""The appender answers every command by itself: whatever its neighbours in the flush, the database or the caller do."""

import asyncio
from uuid import UUID

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import appender, errors, ids
from ledger.appender import Appended, Appender
from ledger.packing import Command, Reservation
from tests.ledger import calls
from tests.ledger.appenders import PATIENCE_S, Bench, answers, appended, command, event

# Each by itself


async def test_of_500_commands_on_few_aggregates_one_gets_each_version(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow]
) -> None:
    """Twenty aggregates, five versions each, five commands after every one of them."""
    aggregates = [ids.new_id() for _ in range(20)]
    wanted = [(aggregate, version) for aggregate in aggregates for version in range(1, 6) for _ in range(5)]
    wanted = wanted[::3] + wanted[1::3] + wanted[2::3]

    async def send(aggregate: UUID, version: int, number: int) -> Appended:
        await asyncio.sleep(number % 7 / 1_000)  # into several flushes
        return await bench.appender.submit(command(tenant, event(aggregate, version)))

    found = await answers([send(*each, number) for number, each in enumerate(wanted)])
    refused = [each for each in found if isinstance(each, errors.VersionConflict)]
    assert sorted(each.position for each in appended(found)) == list(range(1, 101))
    assert len(refused) == 400
    for (aggregate, _), answer in zip(wanted, found, strict=True):
        assert not isinstance(answer, errors.VersionConflict) or answer.originator_id == aggregate
    calls.assert_good(projector, tenant, 100)


async def test_commands_of_one_tenant_stand_in_the_order_they_came(bench: Bench, app: Connection[TupleRow]) -> None:
    tenants = calls.open_streams(app, 3)
    found = await answers([bench.appender.submit(command(tenants[n % 3], event())) for n in range(600)])
    assert [each.position for each in appended(found)] == [n // 3 + 1 for n in range(600)]
    assert bench.appender.flushes > 1  # and not because all of them went at once


async def test_the_next_flush_is_sent_before_the_last_one_is_answered(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database commits, the process works. Version 2 of an aggregate follows version 1 before that is known to stand."""
    monkeypatch.setattr(appender, "COMMANDS_PER_FLUSH_MAX", 1)
    monkeypatch.setattr(appender, "SECOND_COMMANDS_MIN", 2)
    aggregate = ids.new_id()
    async with bench.head_locked(tenant):
        futures = [bench.appender.submit(command(tenant, event(aggregate, version))) for version in (1, 2, 3)]
        await bench.until_waiting()
        assert bench.appender.waiting == 1
    assert [each.position for each in appended(await answers(futures))] == [1, 2, 3]
    calls.assert_good(projector, tenant, 3)


async def test_what_is_too_little_for_a_second_flush_waits_and_goes_together(bench: Bench, tenant: UUID) -> None:
    async with bench.head_locked(tenant):
        futures = [bench.appender.submit(command(tenant, event()))]
        await bench.until_waiting()
        for few in range(1, appender.SECOND_COMMANDS_MIN):
            futures.append(bench.appender.submit(command(tenant, event())))
            await asyncio.sleep(0)
            assert bench.appender.waiting == few
    assert len(appended(await answers(futures))) == appender.SECOND_COMMANDS_MIN
    assert bench.appender.flushes == 2


async def test_after_a_large_flush_the_next_one_waits_for_three_fifths_of_those_who_may_come(
    bench: Bench, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "GATHER_S", PATIENCE_S * 10)
    await answers([bench.appender.submit(command(tenant, event())) for _ in range(appender.GATHER_MIN)])
    futures = [bench.appender.submit(command(tenant, event())) for _ in range(appender.GATHER_MIN * 3 // 5 - 1)]
    await asyncio.sleep(0.1)  # long enough for a flush
    assert (bench.appender.flushes, bench.appender.waiting) == (1, len(futures))
    futures.append(bench.appender.submit(command(tenant, event())))
    assert len(appended(await answers(futures))) == len(futures)
    assert bench.appender.flushes == 2


async def test_nobody_waits_for_long_for_those_who_do_not_come(bench: Bench, tenant: UUID) -> None:
    await answers([bench.appender.submit(command(tenant, event())) for _ in range(appender.GATHER_MIN)])
    assert len(appended(await answers([bench.appender.submit(command(tenant, event()))]))) == 1


async def test_after_a_small_flush_nobody_waits(bench: Bench, tenant: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "GATHER_S", PATIENCE_S * 10)
    await answers([bench.appender.submit(command(tenant, event())) for _ in range(appender.GATHER_MIN - 1)])
    assert len(appended(await answers([bench.appender.submit(command(tenant, event()))]))) == 1


async def test_the_same_command_sent_50_times_at_once_is_appended_once(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow]
) -> None:
    """A client that times out and sends again while the first one is still queued."""
    same = command(tenant, event())
    found = appended(await answers([bench.appender.submit(same) for _ in range(50)]))
    assert [each.position for each in found] == [1] * 50
    assert sorted(each.outcome or b"" for each in found) == [b""] + [b"outcome"] * 49
    calls.assert_good(projector, tenant, 1)


BAD = {
    "NUL in a topic": command(UUID(int=0), event(topic=b"a\0b")),
    "a topic that is not UTF-8": command(UUID(int=0), event(topic=b"\xff\xfe")),
    "half a surrogate pair": command(UUID(int=0), event(topic=b"\xed\xa0\x80")),
    "an empty topic": command(UUID(int=0), event(topic=b"")),
    "NUL in a kind": command(UUID(int=0), reservations=[Reservation(b"a\0", bytes(32), bytes(16), True)]),
    "a short key": command(UUID(int=0), reservations=[Reservation(b"sku", bytes(31), bytes(16), True)]),
    "version 0": command(UUID(int=0), event(version=0)),
    "a version past 32 bits": command(UUID(int=0), event(version=2**31)),
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_command_with_bad_input_fails_alone(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow], bad: str
) -> None:
    """Nobody's purchase fails because somebody else's request was malformed."""
    wrong = BAD[bad]._replace(tenant_id=tenant, command_id=ids.new_id())
    good = [command(tenant, event()) for _ in range(6)]
    found = await answers([_submitted(bench.appender, each) for each in (*good[:3], wrong, *good[3:])])
    assert [type(each) for n, each in enumerate(found) if n != 3] == [Appended] * 6
    assert isinstance(found[3], Exception)
    calls.assert_good(projector, tenant, 6)
    (after,) = await answers([bench.appender.submit(command(tenant, event()))])
    assert isinstance(after, Appended)


async def _submitted(to: Appender, one: Command) -> Appended:
    """What is refused at once is an answer too."""
    return await to.submit(one)


async def test_a_too_large_event_is_refused_at_once(bench: Bench, tenant: UUID) -> None:
    with pytest.raises(errors.EventTooLarge):
        bench.appender.submit(command(tenant, event()._replace(state=b"x" * 65_535)))
    assert bench.appender.waiting == 0


async def test_who_gives_up_disturbs_nobody(bench: Bench, tenant: UUID, projector: Connection[TupleRow]) -> None:
    """A browser that is closed: its command may stand or not, the others' do."""
    async with bench.head_locked(tenant):
        futures = [bench.appender.submit(command(tenant, event())) for _ in range(20)]
        for future in futures[::4]:
            future.cancel()
        await bench.until_waiting()
        futures[1].cancel()  # its flush is under way
    found = await answers(futures)
    assert len(appended(found)) == 14
    assert sum(isinstance(each, asyncio.CancelledError) for each in found) == 6
    (after,) = await answers([bench.appender.submit(command(tenant, event()))])
    assert isinstance(after, Appended)
    calls.assert_good(projector, tenant, after.position)


# Bounds, end


async def test_a_full_queue_refuses_at_once(bench: Bench, tenant: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better to be told now than to wait until the caller has gone."""
    monkeypatch.setattr(appender, "QUEUE_COMMANDS_MAX", 5)
    futures = [bench.appender.submit(command(tenant, event())) for _ in range(5)]
    with pytest.raises(errors.Overloaded):
        bench.appender.submit(command(tenant, event()))
    assert len(appended(await answers(futures))) == 5
    assert len(appended(await answers([bench.appender.submit(command(tenant, event()))]))) == 1


async def test_a_queue_of_too_many_bytes_refuses_at_once(
    bench: Bench, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "QUEUE_BYTES_MAX", 100_000)
    large = event()._replace(state=b"x" * 40_000)
    for _ in range(3):  # the bytes are given back each time
        futures = [
            bench.appender.submit(command(tenant, large._replace(originator_id=ids.new_id().bytes))) for _ in "ab"
        ]
        with pytest.raises(errors.Overloaded):
            bench.appender.submit(command(tenant, large))
        assert len(appended(await answers(futures))) == 2


async def test_a_flush_is_bounded_and_nothing_waits_for_ever(
    bench: Bench, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "COMMANDS_PER_FLUSH_MAX", 10)
    found = await answers([bench.appender.submit(command(tenant, event())) for _ in range(35)])
    assert [each.position for each in appended(found)] == list(range(1, 36))
    assert bench.appender.flushes == 4


async def test_closing_finishes_what_was_accepted_and_takes_no_more(
    bench: Bench, tenant: UUID, projector: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "COMMANDS_PER_FLUSH_MAX", 40)
    futures = [bench.appender.submit(command(tenant, event())) for _ in range(300)]
    closing = asyncio.create_task(bench.appender.close())
    await asyncio.sleep(0)
    with pytest.raises(errors.AppenderClosed):
        bench.appender.submit(command(tenant, event()))
    await closing
    assert [each.done() for each in futures] == [True] * 300
    assert [each.position for each in appended(await answers(futures))] == list(range(1, 301))
    calls.assert_good(projector, tenant, 300)


async def test_readers_are_woken_with_the_last_position_of_each_tenant(bench: Bench, app: Connection[TupleRow]) -> None:
    one, two = calls.open_streams(app, 2)
    await answers([bench.appender.submit(command(each, event(), event())) for each in (one, two, one)])
    await answers([bench.appender.submit(command(one))])  # no event: nobody need look
    assert sorted(bench.moves) == [(one, 4), (two, 2)]
