"""Limits over several processes: what they know of each other, what they let pass too much, and what they do without the database."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio
from litestar.types import Scope

from api import rates
from api.rates import RECONCILE_S, REPORTED_S, Policies, Policy, RateLimited, Rates
from api.rights import Who
from bitnexus import database as connections
from bitnexus import reconciling
from bitnexus.reconciling import Reconciler
from domain.tenants import PLATFORM_ID
from ledger.store import Pool
from tests.world import Database

QUOTA, WINDOW_S = 600, 60.0
LIMITS = Policies(
    user=Policy("user", QUOTA, WINDOW_S),
    tenant=Policy("tenant", 10 * QUOTA, WINDOW_S),
    address=Policy("address", QUOTA, WINDOW_S),
)


@pytest_asyncio.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    async with connections.pool(database.app_url, "projector", 4) as opened:
        yield opened


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was taken is reported with the next turn."""
    monkeypatch.setattr(rates, "REPORTED_S", 0.0)


class Worker:
    """What a process has of it."""

    def __init__(self, pool: Pool) -> None:
        self.rates = Rates(LIMITS, b"secret", PLATFORM_ID)
        self.reconciler = Reconciler(self.rates, pool)

    def takes(self, who: Who, times: int) -> int:
        """How many of them passed without waiting."""
        passed = 0
        for _ in range(times):
            try:
                passed += self.rates.known(scope(), who) is None
            except RateLimited:
                continue
        return passed

    async def asks(self, who: Who, times: int) -> int:
        """How many of them passed, sent side by side, as a server lets them pass."""

        async def ask() -> bool:
            try:
                unleased = self.rates.known(scope(), who)
                if unleased is not None:
                    await self.rates.later(unleased, lambda: self.rates.known(scope(), who))
            except RateLimited:
                return False
            return True

        return sum(await asyncio.gather(*(ask() for _ in range(times))))


def scope() -> Scope:
    made: Any = {"client": ("203.0.113.7", 1), "state": {}}
    found: Scope = made
    return found


def somebody(tenant_id: UUID) -> Who:
    return Who(
        tenant_id=tenant_id,
        account_id=uuid4(),
        role="user",
        session_id=uuid4(),
        expires_at=2**40,
        rights=frozenset(),
    )


async def two_workers(pool: Pool) -> tuple[Worker, Worker]:
    """Which know of each other."""
    one, two = Worker(pool), Worker(pool)
    for worker in (one, two, one):
        worker.reconciler._asked_at = float("-inf")
        await worker.reconciler.turn()
    assert (one.rates.share, two.rates.share) == (0.5, 0.5)
    return one, two


async def test_two_processes_let_pass_the_limit_and_at_most_a_fifth_of_a_second_more_each(pool: Pool) -> None:
    """limit × processes × 0.2 s: else each further node would be a further quota."""
    one, two = await two_workers(pool)
    who, passed, begun = somebody(uuid4()), 0, asyncio.get_running_loop().time()
    for _ in range(20):
        passed += one.takes(who, QUOTA) + two.takes(who, QUOTA)
        await asyncio.gather(one.reconciler.turn(), two.reconciler.turn())
    lasted_s = asyncio.get_running_loop().time() - begun
    assert QUOTA - 2 <= passed <= QUOTA + QUOTA / WINDOW_S * lasted_s + 2
    assert one.takes(who, 1) + two.takes(who, 1) <= 1
    for _ in range(3):  # a third one that has not seen the caller
        three = Worker(pool)
        await three.reconciler.turn()
        assert three.takes(who, QUOTA) <= RECONCILE_S * QUOTA / WINDOW_S
        await three.reconciler.turn()
        assert three.takes(who, QUOTA) <= 1


def test_what_goes_back_with_a_report_is_not_taken_before_its_answer() -> None:
    """Another process may have it by then: of what is under way as much is kept as was taken since the last report."""
    bucket = rates.Bucket(Policy("user", QUOTA, WINDOW_S), uuid4(), uuid4(), 0.5, 0.0)
    bucket.wanted = True
    bucket.corrected(30.0, 300.0, bucket.report(), 0.5, 0.0)
    assert sum(bucket.take(0.0) for _ in range(100)) == 100
    report = bucket.report()
    assert (report.keeps, report.owed) == (100, -100)  # 300 were leased, 100 are spent, 100 are kept
    assert sum(bucket.take(0.0) for _ in range(300)) == 100
    bucket.corrected(30.0, 50.0, report, 0.5, 0.0)
    assert sum(bucket.take(0.0) for _ in range(300)) == 50


async def test_a_page_that_is_opened_is_not_refused_where_its_user_was_not_seen_lately(pool: Pool) -> None:
    """Fifty requests at once, of somebody who may send six hundred: they wait some milliseconds, until there is a lease."""
    one, two = await two_workers(pool)
    async with reconciling.running(one.rates, pool), reconciling.running(two.rates, pool):
        who = somebody(uuid4())
        begun = asyncio.get_running_loop().time()
        assert [await worker.asks(who, 50) for worker in (one, two, one)] == [50, 50, 50]
        assert asyncio.get_running_loop().time() - begun < 3 * rates.LEASE_S_MAX
        passed = 150
        for _ in range(10):
            passed += sum(await asyncio.gather(one.asks(who, QUOTA), two.asks(who, QUOTA)))
        lasted_s = asyncio.get_running_loop().time() - begun
    assert QUOTA - 2 <= passed <= QUOTA + QUOTA / WINDOW_S * (lasted_s + 2 * RECONCILE_S)


async def test_who_was_away_for_a_while_is_let_in_again(pool: Pool, at_once: None) -> None:
    """The lease was given back meanwhile: nobody may be left with nothing to spend and nobody to ask for it."""
    one, _ = await two_workers(pool)
    who = somebody(uuid4())
    assert one.takes(who, 1) == 1
    for _ in range(3):
        await one.reconciler.turn()
    (bucket,) = one.rates._users.values()
    assert (bucket.lease, one.rates._moved) == (0, set())
    assert one.takes(who, 1) == 1


async def test_who_was_refused_is_let_in_again_when_time_has_passed(pool: Pool, at_once: None) -> None:
    one, _ = await two_workers(pool)
    who = somebody(uuid4())
    async with reconciling.running(one.rates, pool):
        while await one.asks(who, QUOTA):  # until nothing is left
            pass
        await asyncio.sleep(4 * WINDOW_S / QUOTA)
        async with asyncio.timeout(20):
            while not await one.asks(who, 1):  # noqa: ASYNC110  it is asked again
                await asyncio.sleep(0.1)


async def test_whoever_waits_for_a_lease_in_vain_goes_by_this_process_alone(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that hangs must not stop who has sent nothing yet; one that has nothing left is refused all the same."""
    monkeypatch.setattr(rates, "LEASE_S_MAX", 0.01)
    one, _ = await two_workers(pool)
    assert await one.asks(somebody(uuid4()), 50) == 50  # nobody reconciles
    who = somebody(uuid4())
    assert await one.asks(who, 1000) == pytest.approx(QUOTA, abs=5)


async def test_not_more_wait_than_there_is_room_for(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood under many names must not fill the memory with requests that wait."""
    monkeypatch.setattr(rates, "WAITING_MAX", 10)
    one, _ = await two_workers(pool)
    async with reconciling.running(one.rates, pool):
        assert await one.asks(somebody(uuid4()), 50) == 10 + int(RECONCILE_S * QUOTA / WINDOW_S)
        assert one.rates._waiting == 0
        assert await one.asks(somebody(uuid4()), 10) == 10


async def test_what_waits_for_the_tenants_lease_takes_nothing_of_the_users(pool: Pool) -> None:
    """Else each request that waits would count twice."""
    one, _ = await two_workers(pool)
    one.rates.requests_per_minute = lambda tenant_id: 60  # a fifth of a second brings less than one
    who = somebody(uuid4())
    assert (one.takes(who, 5), [bucket.taken for bucket in one.rates._users.values()]) == (0, [0])
    async with reconciling.running(one.rates, pool):
        assert await one.asks(who, 5) == 5


async def test_what_is_leased_and_not_used_goes_back(pool: Pool) -> None:
    """A caller that moves from one node to another must not lose half of what it may send."""
    one, two = await two_workers(pool)
    who = somebody(uuid4())
    passed = 0
    for _ in range(3):  # a lease of the user, and one of the tenant
        passed += one.takes(who, 40 - passed)
        await one.reconciler.turn()
    assert passed == 40
    (bucket,) = one.rates._users.values()
    assert bucket.lease == pytest.approx((QUOTA - 40) / 2, abs=25)
    await asyncio.sleep(REPORTED_S)
    await two.reconciler.turn()  # it is still there
    await one.reconciler.turn()
    assert (bucket.lease, bucket in one.rates._moved) == (0, False)
    passed = two.takes(who, QUOTA)
    for _ in range(15):
        await two.reconciler.turn()
        passed += two.takes(who, QUOTA)
    assert passed == pytest.approx(QUOTA - 40 + 2 * REPORTED_S * QUOTA / WINDOW_S, abs=15)


async def test_an_address_is_nowhere_in_the_database(pool: Pool, database: Database, at_once: None) -> None:
    worker = Worker(pool)
    worker.rates.anonymous(scope())
    await worker.reconciler.turn()
    with psycopg.connect(database.owner_url) as connection:
        connection.execute("SET ROLE bitnexus_projector")
        rows = connection.execute("SELECT tenant_id, limited, key FROM edges.buckets").fetchall()
    assert rows == [(PLATFORM_ID, "address", worker.rates.hashed("203.0.113.7"))]


async def test_without_the_database_each_process_goes_on_by_itself_and_tells_it_later(
    pool: Pool, at_once: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that is slow must neither stop everybody nor let everybody pass."""
    worker, who = Worker(pool), somebody(uuid4())
    monkeypatch.setattr(reconciling, "ANSWER_S_MAX", 0.1)
    slow: Any = "SELECT pg_sleep(5)"
    with monkeypatch.context() as patch:
        patch.setattr(reconciling, "RECONCILE", slow)
        passed = 0
        for _ in range(5):
            passed += worker.takes(who, QUOTA)
            await worker.reconciler.turn()
    assert QUOTA <= passed <= QUOTA + 0.5 * 5 * QUOTA / WINDOW_S + 1
    assert [record.levelname for record in caplog.records if "limits" in record.getMessage()] == ["WARNING"]
    monkeypatch.setattr(reconciling, "ANSWER_S_MAX", 10.0)
    await worker.reconciler.turn()
    other = Worker(pool)
    other.takes(who, 1)
    await other.reconciler.turn()
    assert other.takes(who, QUOTA) <= 10


async def test_a_process_that_ends_leaves_its_share_to_the_others(pool: Pool) -> None:
    one, two = Worker(pool), Worker(pool)
    await one.reconciler.turn()
    await two.reconciler.turn()
    assert two.rates.share == 0.5
    await one.reconciler.leave()
    two.reconciler._asked_at = float("-inf")
    await two.reconciler.turn()
    assert two.rates.share == 1.0


async def test_a_turn_is_bounded_and_the_rest_comes_with_the_next(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "BUCKETS_MAX", 10)
    worker, tenant_id = Worker(pool), uuid4()
    for _ in range(25):
        worker.takes(somebody(tenant_id), 40)
    sizes = []
    for _ in range(4):
        sizes.append(len(worker.rates.pending(reconciling.BUCKETS_MAX)))
        await worker.reconciler.turn()
    assert sizes == [10, 10, 6, 0]  # 25 users and their tenant


async def test_what_is_full_again_is_swept_and_old_attempts_too(
    pool: Pool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(pool)
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE edges.buckets NO FORCE ROW LEVEL SECURITY")
        connection.execute("ALTER TABLE edges.attempts NO FORCE ROW LEVEL SECURITY")
        connection.execute(
            "INSERT INTO edges.buckets SELECT gen_random_uuid(), 'user', gen_random_uuid(), now() + make_interval(hours => h) "
            "FROM unnest('{-1, 1}'::int[]) AS h"
        )
        connection.execute(
            "INSERT INTO edges.attempts SELECT gen_random_uuid(), 'account', gen_random_uuid(), 1, now(), "
            "now() - make_interval(days => d), now(), 1, NULL FROM unnest('{29, 31}'::int[]) AS d"
        )
        monkeypatch.setattr(reconciling, "SWEEP_S", -1.0)
        await worker.reconciler.turn()
        left = connection.execute(
            "SELECT (SELECT count(*) FROM edges.buckets WHERE full_at > now()), (SELECT count(*) FROM edges.buckets), "
            "(SELECT count(*) FROM edges.attempts)"
        ).fetchone()
    assert left == (1, 1, 1)


async def test_it_runs_while_it_is_needed(pool: Pool, at_once: None) -> None:
    worker, who = Worker(pool), somebody(uuid4())
    async with reconciling.running(worker.rates, pool):
        worker.takes(who, 300)
        async with asyncio.timeout(10):
            while worker.rates.pending(1):  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.02)
    other = Worker(pool)
    other.takes(who, 1)
    await other.reconciler.turn()
    assert 280 <= other.takes(who, QUOTA) <= 310
