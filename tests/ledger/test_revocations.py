"""What counts no more is known to every process soon, and a process that cannot know says so."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from domain import accounts
from ledger import errors, ids, revocations
from ledger.revocations import Revocations
from ledger.watch import Watch
from tests.world import World, caller

PATIENCE_S = 20.0


class Clock:
    """Time as the process sees it, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead_s = 0.0
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + self._ahead_s)

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest_asyncio.fixture
async def projector(world: World) -> AsyncIterator[AsyncConnection[TupleRow]]:
    async with await connections.connect(world.database.app_url, "projector") as connection:
        yield connection


def other_process(world: World) -> tuple[Revocations, Watch]:
    known = Revocations()
    return known, Watch(connections.connector(world.database.app_url, "projector"), known)


async def end(world: World, tenant_id: UUID) -> UUID:
    """A session that began and has ended."""
    session = accounts.start_session(id=ids.new_id(), account_id=ids.new_id())
    session.revoke("tried")
    await world.ledger.append(caller(tenant_id), session, revokes=[session.id])
    return session.id


async def suspend(world: World, tenant_id: UUID, suspended: bool = True) -> None:
    session = accounts.start_session(id=ids.new_id(), account_id=ids.new_id())
    revokes, restores = ([tenant_id], []) if suspended else ([], [tenant_id])
    await world.ledger.append(caller(tenant_id), session, revokes=revokes, restores=restores)


async def test_a_session_that_ended_is_known_here_at_once_and_elsewhere_at_the_next_look(
    world: World, tenant_id: UUID, projector: AsyncConnection[TupleRow]
) -> None:
    elsewhere = Revocations()
    await elsewhere.look(projector)
    session_id = await end(world, tenant_id)
    assert world.ledger.revocations.is_revoked(session_id)
    assert not elsewhere.is_revoked(session_id)
    await elsewhere.look(projector)
    assert elsewhere.is_revoked(session_id)
    assert not elsewhere.is_revoked(ids.new_id())
    assert not elsewhere.is_suspended(tenant_id)


async def test_a_process_that_starts_knows_all_of_it_first(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a stolen token would be good again for a moment after each start."""
    monkeypatch.setattr(revocations, "READ_MAX", 2)
    ended = [await end(world, tenant_id) for _ in range(5)]
    await suspend(world, tenant_id)
    known, watch = other_process(world)
    assert not known.is_known()
    await watch.start()
    assert known.is_known()
    assert all(known.is_revoked(id) for id in ended)
    assert known.is_suspended(tenant_id)
    await watch.close()


async def test_what_was_still_under_way_at_a_look_is_found_by_the_next(
    world: World, tenant_id: UUID, projector: AsyncConnection[TupleRow]
) -> None:
    """The slow transaction has the smaller id: a look that goes on after the largest id seen would never find it."""
    known, slow_id = Revocations(), ids.new_id()
    await known.look(projector)
    with psycopg.connect(world.database.owner_url) as slow:
        slow.execute(
            "INSERT INTO ledger.revocations (tenant_id, id, revoked) VALUES (%s, %s, true)", (tenant_id, slow_id)
        )
        quick_id = await end(world, tenant_id)
        await known.look(projector)
        assert known.is_revoked(quick_id)
        assert not known.is_revoked(slow_id)
        slow.commit()
    await known.look(projector)
    assert known.is_revoked(slow_id)


async def test_a_tenant_is_suspended_and_resumed(
    world: World, tenant_id: UUID, projector: AsyncConnection[TupleRow]
) -> None:
    elsewhere = Revocations()
    await elsewhere.look(projector)
    for suspended in (True, False, True):
        await suspend(world, tenant_id, suspended)
        await elsewhere.look(projector)
        for known in (world.ledger.revocations, elsewhere):
            assert known.is_suspended(tenant_id) == suspended


async def test_a_resumption_is_not_missed_by_who_was_away_for_hours(
    world: World, tenant_id: UUID, projector: AsyncConnection[TupleRow]
) -> None:
    """The row that says so is deleted after an hour."""
    known = Revocations()
    await suspend(world, tenant_id)
    await known.look(projector)
    known.lost()
    await suspend(world, tenant_id, False)
    await later(world)
    await known.look(projector)
    assert not known.is_suspended(tenant_id)


async def later(world: World) -> int:
    """Two hours pass, and what is old is deleted."""
    async with await AsyncConnection.connect(world.database.owner_url, autocommit=True) as owner:
        await owner.execute("UPDATE ledger.revocations SET changed_at = changed_at - interval '2 hours'")
    async with world.projector.connection() as connection:
        row = await (await connection.execute("SELECT o_deleted FROM ledger.expire_revocations(100)")).fetchone()
    assert row is not None
    return int(row[0])


async def test_what_no_token_names_any_more_is_deleted_and_a_suspension_stays(world: World, tenant_id: UUID) -> None:
    old = await end(world, tenant_id)
    await suspend(world, tenant_id)
    assert await later(world) == 1
    recent = await end(world, tenant_id)
    async with world.projector.connection() as connection:
        await connection.execute("SELECT ledger.expire_revocations(100)")
        rows = await (await connection.execute("SELECT id FROM ledger.revocations")).fetchall()
    assert {id for (id,) in rows} == {tenant_id, recent}
    assert old not in {tenant_id, recent}


async def test_memory_forgets_what_no_token_names_any_more(
    world: World, tenant_id: UUID, projector: AsyncConnection[TupleRow], clock: Clock
) -> None:
    known = world.ledger.revocations
    old = await end(world, tenant_id)
    clock.advance(revocations.KEPT_S - 10)
    recent = await end(world, tenant_id)
    await known.look(projector)
    assert known.is_revoked(old)
    clock.advance(20)
    async with await AsyncConnection.connect(world.database.owner_url, autocommit=True) as owner:
        await owner.execute("DELETE FROM ledger.revocations WHERE id = %s", (old,))
    await known.look(projector)
    assert (known.is_revoked(old), known.is_revoked(recent), known.sessions) == (False, True, 1)


async def test_who_cannot_look_for_two_seconds_knows_nothing(
    world: World, tenant_id: UUID, projector: AsyncConnection[TupleRow], clock: Clock
) -> None:
    known = Revocations()
    assert not known.is_known()
    await known.look(projector)
    clock.advance(1.5)
    assert known.is_known()
    clock.advance(0.6)
    assert not known.is_known()
    await known.look(projector)
    assert known.is_known()


async def test_a_refused_command_revokes_nothing(world: World, tenant_id: UUID) -> None:
    """Somebody else's session must not end because a command was sent that is refused."""
    session = accounts.start_session(id=ids.new_id(), account_id=ids.new_id())
    stale = accounts.start_session(id=session.id, account_id=session.account_id)
    await world.ledger.append(caller(tenant_id), session)
    with pytest.raises(errors.VersionConflict):
        await world.ledger.append(caller(tenant_id), stale, revokes=[session.id])
    assert not world.ledger.revocations.is_revoked(session.id)
    with psycopg.connect(world.database.owner_url) as owner:
        assert owner.execute("SELECT count(*) FROM ledger.revocations").fetchone() == (0,)


async def test_a_lost_connection_is_made_anew_and_what_happened_meanwhile_is_found(
    world: World, tenant_id: UUID
) -> None:
    known, watch = other_process(world)
    await watch.start()
    async with await AsyncConnection.connect(world.database.owner_url, autocommit=True) as owner:
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name = 'bitnexus projector' AND query LIKE '%%ledger.revocations%%'",
            (world.database.name,),
        )
    session_id = await end(world, tenant_id)
    async with asyncio.timeout(PATIENCE_S):
        while not (known.is_revoked(session_id) and known.is_known()):  # noqa: ASYNC110  it looks by itself
            await asyncio.sleep(0.01)
    await watch.close()


async def test_who_listens_to_a_session_is_told_once_when_it_ends(
    world: World, tenant_id: UUID, projector: AsyncConnection[TupleRow]
) -> None:
    known, told = world.ledger.revocations, list[bool]()
    session = accounts.start_session(id=ids.new_id(), account_id=ids.new_id())
    known.on_end(tenant_id, session.id, told.append)
    leave = known.on_end(tenant_id, session.id, lambda _: told.append(True))
    leave()
    leave()
    await end(world, tenant_id)  # another one
    assert told == []
    await world.ledger.append(caller(tenant_id), session, revokes=[session.id])
    await known.look(projector)
    assert told == [False]


async def test_who_listens_is_told_when_the_tenant_is_suspended_or_was_before(world: World, tenant_id: UUID) -> None:
    known, told = world.ledger.revocations, list[bool]()
    known.on_end(tenant_id, ids.new_id(), told.append)
    await suspend(world, tenant_id)
    assert told == [True]
    known.on_end(tenant_id, ids.new_id(), told.append)
    assert told == [True, True]
