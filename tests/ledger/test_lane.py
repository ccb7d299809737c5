"""Every call is answered once, in order and with its own answer: whatever its neighbours, the socket or the database do."""

import asyncio
import gc
import hashlib
import warnings

import psycopg
import pytest
from psycopg import errors as pg

from ledger import lane
from ledger.lane import Closed, Lost
from tests.ledger.lanes import (
    PATIENCE_S,
    Bench,
    Relay,
    answers,
    int4,
    large,
    number,
    numbers,
    on_both_loops,
    until,
    value,
)

# In order


@on_both_loops
async def test_every_call_gets_its_own_answer_in_the_order_of_the_calls(bench: Bench) -> None:
    """The last one is sent long before the first one is answered."""
    told: list[int] = []
    async with bench.lane() as calls:
        async with bench.locked(7):
            futures = [calls.call("lock", int4(7)), *(calls.call("add_one", int4(n)) for n in range(500))]
            for each in futures:
                each.add_done_callback(lambda one: told.append(futures.index(one)))
            await bench.until_waiting()
            assert not any(each.done() for each in futures)
        assert await numbers(*futures) == [7, *range(1, 501)]
    assert told == list(range(501))


@on_both_loops
async def test_parameters_of_8_mb_arrive_whole(bench: Bench) -> None:
    """What the socket does not take at once goes out when it does, and does not hold up the loop."""
    async with bench.lane() as calls:
        given = large(4)
        async with bench.locked(7):
            waiting = calls.call("lock", int4(7))
            futures = [calls.call("digest", each) for each in given]  # nobody reads them yet
            await bench.until_waiting()
        found = await answers(futures)
        assert await numbers(waiting) == [7]
        assert [value(each) for each in found] == [hashlib.sha256(each[0]).digest() for each in given]
        assert await numbers(calls.call("add_one", int4(1))) == [2]


@on_both_loops
async def test_results_of_8_mb_are_read_while_parameters_are_sent(bench: Bench) -> None:
    """Whoever only writes here waits for a server that waits for a reader."""
    async with bench.lane() as calls:
        given = large(4)
        found = await answers([calls.call("echo", each) for each in given])
        assert [value(each) == one[0] for each, one in zip(found, given, strict=True)] == [True] * 4


# Errors


@on_both_loops
async def test_an_error_fails_its_call_alone(bench: Bench) -> None:
    """Each is a transaction of its own: what was sent before and after it stands, and the connection is the same."""
    async with bench.lane() as calls:
        good = [calls.call("backend", [])]
        bad = []
        for n in range(10):
            good.append(calls.call("insert", int4(n)))
            bad += [calls.call("divide", int4(0)), calls.call("insert", int4(n))]
        good.append(calls.call("backend", []))
        first, *stands, last = await numbers(*good)
        assert stands == list(range(10))
        assert first == last
        assert [type(each) for each in await answers(bad)] == [pg.DivisionByZero, pg.UniqueViolation] * 10
        assert await bench.ask("SELECT n FROM lane.kept ORDER BY place") == [(n,) for n in range(10)]


@on_both_loops
async def test_an_error_at_commit_is_no_success(bench: Bench) -> None:
    """The row was written and its result came, then the deferred constraint is checked: nothing stands."""
    async with bench.lane() as calls:
        good = [calls.call("insert", int4(1))]
        bad = []
        for n in range(10):
            bad.append(calls.call("refer", int4(2)))
            good += [calls.call("refer", int4(1)), calls.call("add_one", int4(n))]
        assert [type(each) for each in await answers(bad)] == [pg.ForeignKeyViolation] * 10
        assert await numbers(*good) == [1, *(each for n in range(10) for each in (1, n + 1))]
        assert await bench.ask("SELECT n, count(*) FROM lane.referring GROUP BY n") == [(1, 10)]


@on_both_loops
async def test_who_waits_too_long_for_a_row_is_told_so_alone(bench: Bench) -> None:
    async with bench.lane(lock_timeout_ms=50) as calls, bench.locked(7):
        found = await answers([calls.call(*each) for each in (("add_one", int4(1)), ("lock", int4(7))) * 3])
    assert [number(each) for each in found[::2]] == [2] * 3
    assert [type(each) for each in found[1::2]] == [pg.LockNotAvailable] * 3


@on_both_loops
async def test_a_statement_that_there_is_not_fails_its_call_alone(bench: Bench) -> None:
    async with bench.lane() as calls:
        found = await answers(
            [calls.call("add_one", int4(1)), calls.call("nothing", []), calls.call("add_one", int4(2))]
        )
    assert [type(each) for each in found] == [type(found[0]), pg.InvalidSqlStatementName, type(found[0])]


@on_both_loops
async def test_a_call_that_cannot_be_sent_leaves_the_others_their_own_answers(bench: Bench) -> None:
    """Text where bytes belong: whoever calls next must not get the answer of the one after."""
    async with bench.lane() as calls:
        before = calls.call("add_one", int4(1))
        with pytest.raises((TypeError, ValueError)):
            calls.call("add_one", ["text"])  # type: ignore[list-item]  # what is tested
        assert await numbers(before, *(calls.call("add_one", int4(n)) for n in (2, 3))) == [2, 3, 4]


@on_both_loops
async def test_who_gives_up_disturbs_no_other_call(bench: Bench) -> None:
    """A browser that is closed: while it waits for its answer, and while the database is away."""
    async with bench.lane() as calls:
        for is_lost in (False, True):
            async with bench.locked(7):
                futures = [calls.call("lock", int4(7)), *(calls.call("add_one", int4(n)) for n in range(20))]
                await bench.until_waiting()
                for each in (futures[0], *futures[3::4]):
                    each.cancel()
                if is_lost:
                    await bench.terminate()
            found = await answers(futures)
            expected = [7, *range(1, 21)]
            assert [each.cancelled() for each in futures] == [n == 0 or n % 4 == 3 for n in range(21)]
            for n, answer in enumerate(found):
                assert futures[n].cancelled() or number(answer) == expected[n]


# Lost connections


@on_both_loops
async def test_calls_in_flight_at_a_lost_connection_are_sent_again_in_order(bench: Bench) -> None:
    """Those that were answered are not: they would stand twice."""
    async with bench.lane() as calls:
        for at in (0, 100):
            assert await numbers(calls.call("insert", int4(at + 1))) == [at + 1]
            async with bench.locked(at):
                futures = [calls.call("lock", int4(at)), *(calls.call("insert", int4(at + n)) for n in range(2, 50))]
                await bench.until_waiting()
                await bench.terminate()
            assert await numbers(*futures) == [at, *range(at + 2, at + 50)]
            found = await bench.ask("SELECT n FROM lane.kept WHERE n > %s ORDER BY place", at)
            assert found == [(n,) for n in range(at + 1, at + 50)]
        assert len(await bench.backends()) == 1


@on_both_loops
async def test_a_connection_lost_between_calls_is_not_noticed(bench: Bench) -> None:
    async with bench.lane() as calls:
        for n in range(4):
            assert await numbers(calls.call("insert", int4(n))) == [n]
            await bench.terminate()
        assert await numbers(calls.call("add_one", int4(1))) == [2]


@on_both_loops
async def test_a_connection_lost_amidst_a_large_parameter_sends_it_again_whole(bench: Bench) -> None:
    async with Relay(bench.database.app_url) as relay, bench.lane(relay.url) as calls:
        relay.hold()
        given = large(2)
        futures = [calls.call("digest", each) for each in given]
        await asyncio.sleep(0.05)  # a part of them is in the socket, which takes no more
        relay.cut()
        assert [value(each) for each in await answers(futures)] == [hashlib.sha256(e[0]).digest() for e in given]


@on_both_loops
async def test_a_connection_that_ends_with_an_answer_is_noticed(bench: Bench) -> None:
    """The server's last words are an answer, and it closes before it has read all of ours: uvloop tells of it once, together with
    the words. Unnoticed, the second call would wait for ever."""
    async with Relay(bench.database.app_url) as relay, bench.lane(relay.url) as calls:
        await asyncio.sleep(1.5 * lane.LOOK_S)  # it is looked at again and again
        async with bench.locked(7):
            first = calls.call("lock", int4(7))
            await bench.until_waiting()
            relay.end_with_the_next_answer()
            second = calls.call("add_one", int4(1))
        assert await numbers(first, second) == [7, 2]
    assert bench.attempts == 2


@on_both_loops
async def test_an_answer_that_is_missing_is_asked_for_again(bench: Bench) -> None:
    """Whoever takes results away, a bug here or in libpq: nobody waits for ever, and nobody gets the answer of another."""
    async with bench.lane() as calls:
        for connected, taken in enumerate(("all", "the result"), 2):
            futures = [calls.call("add_one", int4(n)) for n in range(3)]
            pgconn = calls._pgconn
            assert pgconn is not None
            for _ in range({"all": 9, "the result": 1}[taken]):  # a call has a result, nothing, and a sync
                while pgconn.is_busy():
                    pgconn.consume_input()
                pgconn.get_result()
            assert await numbers(*futures) == [1, 2, 3], taken
            assert bench.attempts == connected, taken


@on_both_loops
async def test_an_error_that_ends_the_connection_is_not_told_to_callers(bench: Bench) -> None:
    """A backend that is told to end, one that ends by itself with an error of another class (25P04), errors of class 57."""
    async with bench.lane() as calls:
        for connected, how in enumerate(("terminated", "timeout", "57014", "57P03"), 2):
            await bench.ask("SELECT setval('lane.times', 1, false)")
            futures = [
                calls.call("add_one", int4(1)),
                calls.call("stop", [how.encode()]),
                calls.call("add_one", int4(2)),
            ]
            assert await numbers(*futures) == [2, 2, 3], how
            assert bench.attempts == connected, how


@on_both_loops
async def test_an_error_that_does_not_end_the_connection_is_told_at_once(bench: Bench) -> None:
    """A conflict, no memory, no space, a broken table: sent again they would stay what they are."""
    async with bench.lane() as calls:
        for how in ("40001", "40P01", "53200", "53100", "25006", "XX001", "P0001"):
            await bench.ask("SELECT setval('lane.times', 1, false)")
            stopped, after = await answers([calls.call("stop", [how.encode()]), calls.call("add_one", int4(1))])
            assert isinstance(stopped, psycopg.Error)
            assert (stopped.sqlstate, number(after)) == (how, 2)
            assert await bench.ask("SELECT last_value FROM lane.times") == [(1,)]
        assert bench.attempts == 1


@on_both_loops
async def test_a_database_that_comes_back_in_time_answers(bench: Bench) -> None:
    async with bench.lane() as calls:
        bench.connects[:] = [psycopg.OperationalError("the database is away")] * 3
        await bench.terminate()
        assert await numbers(*(calls.call("add_one", int4(n)) for n in range(3))) == [1, 2, 3]
    assert bench.attempts == 5


@on_both_loops
async def test_a_database_that_stays_away_is_told_with_its_cause(bench: Bench) -> None:
    """To each call when its own time is over; later ones are answered when it is back."""
    async with bench.lane(recovery_s_max=0.5) as calls:
        bench.connects[:] = [psycopg.OperationalError(f"the database is away {n}") for n in range(1000)]
        await bench.terminate()
        early = [calls.call("add_one", int4(n)) for n in range(2)]
        await bench.until_attempts(4)
        late = calls.call("add_one", int4(5))
        for lost in await answers(early):
            assert isinstance(lost, Lost)
            assert isinstance(lost.__cause__, psycopg.OperationalError)
            assert str(lost.__cause__) == str(lost) == f"the database is away {len(bench.connects)}"
        assert not late.done()
        bench.connects.clear()
        assert await numbers(late, calls.call("add_one", int4(6))) == [6, 7]


@on_both_loops
async def test_whatever_connecting_raises_is_told_as_lost(bench: Bench) -> None:
    """A name that is not resolved, a bug: a call without an answer would be worse."""
    async with bench.lane(recovery_s_max=0.1) as calls:
        for error in (OSError("no such host"), RuntimeError("a bug"), TimeoutError()):
            bench.connects[:] = [error] * 1000
            await bench.terminate()
            (lost,) = await answers([calls.call("add_one", int4(1))])
            assert isinstance(lost, Lost)
            assert lost.__cause__ is error
            bench.connects.clear()
            assert await numbers(calls.call("add_one", int4(1))) == [2]


@on_both_loops
async def test_a_call_that_ends_every_connection_is_lost_when_its_time_is_over(bench: Bench) -> None:
    """A statement_timeout that it always exceeds, a backend that it crashes: not for ever, and not as often as the machine can."""
    async with bench.lane(recovery_s_max=0.5) as calls:
        for how in ("always terminated", "always 57014"):
            before = bench.attempts
            first, lost = await answers([calls.call("add_one", int4(1)), calls.call("stop", [how.encode()])])
            assert number(first) == 2
            assert isinstance(lost, Lost)
            assert isinstance(lost.__cause__, psycopg.OperationalError)
            assert await numbers(calls.call("add_one", int4(1))) == [2]
            assert bench.attempts - before < 10
    assert await bench.ask("SELECT last_value BETWEEN 4 AND 20 FROM lane.times") == [(True,)]


# The end


@on_both_loops
async def test_closing_cancels_what_has_no_answer_and_leaves_nothing(bench: Bench) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with bench.lane() as calls, bench.locked(7):
            answered = calls.call("add_one", int4(1))
            futures = [calls.call("lock", int4(7)), calls.call("insert", int4(8))]
            await bench.until_waiting()
            await calls.close()
            assert await numbers(answered) == [2]
            assert [each.cancelled() for each in futures] == [True, True]
        await until(bench.backends, [])
        del calls
        gc.collect()
    assert [str(each.message) for each in warned] == []


@on_both_loops
async def test_a_call_after_the_end_is_refused(bench: Bench) -> None:
    """A part of the process that outlives its connection: it is told so, no connection is made for it and left over."""
    async with bench.lane() as calls:
        await calls.close()
        (refused,) = await answers([calls.call("add_one", int4(1))])
        assert isinstance(refused, Closed)
        assert "add_one" in str(refused)
        assert bench.attempts == 1


@on_both_loops
async def test_closing_during_a_recovery_ends_it(bench: Bench) -> None:
    """While it connects, and between two attempts: nobody waits for a database that is away, and nobody connects afterwards."""
    for is_silent in (True, False):
        async with bench.lane() as calls:
            bench.is_silent = is_silent
            bench.connects[:] = [psycopg.OperationalError("the database is away")] * 1000
            await bench.terminate()
            futures = [calls.call("add_one", int4(n)) for n in range(2)]
            await bench.until_attempts(bench.attempts + 1)
            async with asyncio.timeout(PATIENCE_S):
                await calls.close()
            assert [each.cancelled() for each in futures] == [True, True]
            bench.is_silent = False
            bench.connects.clear()
            attempts = bench.attempts
            await asyncio.sleep(2 * lane.RETRY_S_MIN)
            assert (bench.attempts, await bench.backends()) == (attempts, [])
            assert [each.get_name() for each in asyncio.all_tasks() if each.get_name() == "lane-recovery"] == []


@on_both_loops
async def test_a_database_that_is_not_there_at_the_start_is_told_at_once(bench: Bench) -> None:
    """A process does not start then; it does not wait either."""
    bench.connects[:] = [psycopg.OperationalError("the database is away")]
    with pytest.raises(psycopg.OperationalError, match="the database is away"):
        async with bench.lane():
            pass
    assert bench.attempts == 1
