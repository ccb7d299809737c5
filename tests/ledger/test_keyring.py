"""A destroyed key is out of every process within two seconds, whatever became of that process's connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from commands import accounts, privacy
from ledger import keyring as keyrings
from ledger.keyring import Cipher, Keyring, Watcher
from tests.world import MASTER, World, caller

ANN = accounts.Register(email="ann@example.com", name="Ann", password="correct horse battery")
PATIENCE_S = 20.0
ERASED = "INSERT INTO ledger.erased_subjects (tenant_id, subject_id) VALUES (%s, %s)"

ERASED_BEFORE = (
    "INSERT INTO ledger.erased_subjects (tenant_id, subject_id, erased_in)"
    " VALUES (%s, %s, greatest(3, pg_current_xact_id()::text::bigint - 10000)::text::xid8)"
)
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Clock:
    """Time as the keyring sees it, moved by the test."""

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


@pytest_asyncio.fixture
async def ann(world: World, tenant_id: UUID) -> UUID:
    return (await accounts.register(ANN, caller(tenant_id), world.ledger, world.passwords)).aggregate.id


async def erase(world: World, tenant_id: UUID, account_id: UUID) -> None:
    command = privacy.Erase(account_id=account_id)
    await privacy.erase(command, caller(tenant_id), world.ledger, privacy.noted_nowhere)


def other_process(world: World) -> tuple[Keyring, Watcher]:
    keyring = Keyring(MASTER)
    return keyring, Watcher(keyring, connections.connector(world.database.app_url, "projector"))


async def test_the_process_that_erases_drops_the_key_at_once(world: World, tenant_id: UUID, ann: UUID) -> None:
    assert world.ledger.keyring.at_hand(tenant_id, [ann])
    await erase(world, tenant_id, ann)
    assert world.ledger.keyring.at_hand(tenant_id, [ann]) is None
    assert len(world.ledger.keyring) == 0


async def test_another_process_drops_key_and_plaintext_at_its_next_look(
    world: World, tenant_id: UUID, ann: UUID, projector: AsyncConnection[TupleRow]
) -> None:
    keyring, watcher = other_process(world)
    await watcher.start()
    try:
        await keyring.find(projector, tenant_id, [ann])
        dropped: asyncio.Queue[tuple[UUID, UUID]] = asyncio.Queue()
        keyring.subscribe(lambda tenant_id, subject_id: dropped.put_nowait((tenant_id, subject_id)))
        await erase(world, tenant_id, ann)
        assert await asyncio.wait_for(dropped.get(), PATIENCE_S) == (tenant_id, ann)
        assert len(keyring) == 0
        assert await keyring.find(projector, tenant_id, [ann]) == {}
    finally:
        await watcher.close()


async def test_looks_fit_into_the_time_that_is_promised() -> None:
    assert keyrings.TRUST_S <= 2.0
    assert keyrings.LOOK_S * 2 < keyrings.TRUST_S


async def test_without_a_look_a_key_is_believed_in_for_two_seconds_only(
    world: World, tenant_id: UUID, ann: UUID, projector: AsyncConnection[TupleRow], clock: Clock
) -> None:
    """A process that cannot reach the database must not go on deciphering."""
    keyring = Keyring(MASTER)
    await keyring.find(projector, tenant_id, [ann])
    clock.advance(keyrings.TRUST_S - 0.5)
    assert keyring.at_hand(tenant_id, [ann])
    clock.advance(0.5)
    assert keyring.at_hand(tenant_id, [ann]) is None
    keyring.drop_stale()
    assert len(keyring) == 0


async def test_looks_keep_a_key_for_as_long_as_they_go_on(
    world: World, tenant_id: UUID, ann: UUID, projector: AsyncConnection[TupleRow], clock: Clock
) -> None:
    keyring, watcher = other_process(world)
    await watcher.look(projector)
    await keyring.find(projector, tenant_id, [ann])
    for _ in range(3):
        clock.advance(keyrings.TRUST_S - 0.5)
        await watcher.look(projector)
    assert keyring.at_hand(tenant_id, [ann])


async def test_a_process_whose_connections_are_cut_forgets_its_keys(
    world: World, tenant_id: UUID, ann: UUID, projector: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyrings, "LOOK_S", 0.05)
    keyring = Keyring(MASTER)
    down = False

    async def connect() -> AsyncConnection[TupleRow]:
        if down:
            raise psycopg.OperationalError("down")
        return await connections.connect(world.database.app_url, "projector")

    watcher = Watcher(keyring, connect)
    await watcher.start()
    try:
        await keyring.find(projector, tenant_id, [ann])
        down = True
        with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
            owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE '%erased_in%' AND pid <> pg_backend_pid()"
            )
        async with asyncio.timeout(PATIENCE_S):
            while len(keyring):  # noqa: ASYNC110  a keyring says nothing when it becomes empty
                await asyncio.sleep(0.05)
        down = False
        await erase(world, tenant_id, ann)
        async with asyncio.timeout(PATIENCE_S):
            while (tenant_id.int, ann.int) not in keyring._erased:  # noqa: ASYNC110  it looks again, from where it stopped
                await asyncio.sleep(0.05)
    finally:
        await watcher.close()


async def test_an_erasure_right_after_a_crash_is_seen_though_its_transaction_has_an_id_of_before(
    world: World, tenant_id: UUID, ann: UUID, projector: AsyncConnection[TupleRow]
) -> None:
    """The ids of projectors' last transactions, which a crash takes, are given again: the person would be readable until a restart."""
    keyring, watcher = other_process(world)
    await watcher.start()
    try:
        await keyring.find(projector, tenant_id, [ann])
        with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
            owner.execute(CUT)
            owner.execute(ERASED_BEFORE, [tenant_id, ann])
        async with asyncio.timeout(PATIENCE_S):
            while (tenant_id.int, ann.int) not in keyring._erased:  # noqa: ASYNC110  it connects anew, and looks
                await asyncio.sleep(0.05)
    finally:
        await watcher.close()


async def test_an_erasure_that_was_under_way_during_a_look_is_in_the_next_one(
    world: World, tenant_id: UUID, ann: UUID, projector: AsyncConnection[TupleRow]
) -> None:
    """Its row is older than rows that the first look saw: a look by time or by a counter would miss it."""
    keyring, watcher = other_process(world)
    await watcher.look(projector)
    await keyring.find(projector, tenant_id, [ann])
    with psycopg.connect(world.database.owner_url) as slow, psycopg.connect(world.database.owner_url) as quick:
        slow.execute(ERASED, [tenant_id, ann])
        quick.execute(ERASED, [tenant_id, tenant_id])
        quick.commit()
        await watcher.look(projector)
        assert keyring.at_hand(tenant_id, [ann])
        slow.commit()
    await watcher.look(projector)
    assert keyring.at_hand(tenant_id, [ann]) is None


async def test_more_erasures_than_one_look_reads_are_all_found(
    world: World, tenant_id: UUID, projector: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyrings, "ERASED_PER_LOOK_MAX", 2)
    keyring, watcher = other_process(world)
    await watcher.look(projector)
    erased = [UUID(int=n) for n in range(1, 8)]
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        for subject in erased:
            owner.execute(ERASED, [tenant_id, subject])
    await watcher.look(projector)
    assert [subject for _, subject in keyring._erased] == [subject.int for subject in erased]


async def test_one_transaction_that_erases_more_than_one_look_reads_is_read_to_its_end(
    world: World, tenant_id: UUID, ann: UUID, projector: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import of a tenant that has forgotten many is one. Who is erased after it must be found, too."""
    monkeypatch.setattr(keyrings, "ERASED_PER_LOOK_MAX", 2)
    keyring, watcher = other_process(world)
    await watcher.look(projector)
    await keyring.find(projector, tenant_id, [ann])
    imported = [UUID(int=n) for n in range(1, 8)]
    with psycopg.connect(world.database.owner_url) as owner:
        for subject in imported:
            owner.execute(ERASED, [tenant_id, subject])
    await erase(world, tenant_id, ann)
    async with asyncio.timeout(PATIENCE_S):
        await watcher.look(projector)
    assert [subject for _, subject in keyring._erased] == [*(subject.int for subject in imported), ann.int]
    assert len(keyring) == 0


async def test_a_look_that_was_cut_off_goes_on_and_promises_no_more_than_it_saw(
    world: World, tenant_id: UUID, ann: UUID, projector: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a look that takes longer than it may would never end. Whoever was being erased when it began is not seen by the rest
    of it, and so the rest says nothing of them."""
    monkeypatch.setattr(keyrings, "ERASED_PER_LOOK_MAX", 2)
    keyring, watcher = other_process(world)
    await watcher.look(projector)
    others = [UUID(int=n) for n in range(1, 5)]
    looked: list[float] = []
    monkeypatch.setattr(keyring, "looked", looked.append)

    dropped: list[UUID] = []

    def drop_once(subjects: Iterable[tuple[UUID, UUID]]) -> None:
        if dropped:
            raise psycopg.OperationalError("cut")
        dropped.extend(subject for _, subject in subjects)

    with psycopg.connect(world.database.owner_url) as slow, psycopg.connect(world.database.owner_url) as quick:
        slow.execute(ERASED, [tenant_id, ann])
        for subject in others:
            quick.execute(ERASED, [tenant_id, subject])
        quick.commit()
        with monkeypatch.context() as patch:
            patch.setattr(keyring, "drop", drop_once)  # the second part is cut off
            with pytest.raises(psycopg.OperationalError):
                await watcher.look(projector)
        slow.commit()
        committed_at = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        await watcher.look(projector)
    assert dropped == others[:2]
    assert [subject for _, subject in keyring._erased] == [subject.int for subject in others[2:]]
    assert [begun_at < committed_at for begun_at in looked] == [True]
    await watcher.look(projector)
    assert (tenant_id.int, ann.int) in keyring._erased
    assert looked[-1] > committed_at


async def test_a_look_reads_what_is_new_and_not_everybody_who_was_ever_erased(
    world: World, projector: AsyncConnection[TupleRow]
) -> None:
    """Each process looks twice a second. On PostgreSQL 16 and 17 too, which cannot skip from tenant to tenant in an index."""
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO ledger.erased_subjects SELECT gen_random_uuid(), gen_random_uuid(), now(), '3'::xid8"
            " FROM generate_series(1, 2000)"
        )
        owner.execute("VACUUM ANALYZE ledger.erased_subjects")
    row = await (await projector.execute(keyrings.NOW)).fetchone()
    assert row is not None
    explained = await projector.execute("EXPLAIN " + keyrings.LOOK, (row[0], UUID(int=0), UUID(int=0), 10_000))
    plan = "\n".join(line for (line,) in await explained.fetchall())
    assert "Index Only Scan using erased_subjects_since" in plan
    assert "Sort" not in plan


async def test_a_query_that_was_under_way_brings_no_key_back(world: World, tenant_id: UUID, ann: UUID) -> None:
    async with world.app.connection() as connection:
        keyring = Keyring(MASTER)
        wrapped = await (await connection.execute(keyrings.OPEN_KEYS, (tenant_id, [ann], [b"x"], MASTER.id))).fetchall()
        keyring.drop([(tenant_id, ann)])
        keys: dict[int, Cipher] = {}
        keyring._learn(tenant_id, keys, {ann.bytes: ann}, wrapped, time.monotonic())
        assert (keys, len(keyring)) == ({}, 0)


async def test_a_key_that_is_made_while_its_person_is_erased_goes_too(world: World, tenant_id: UUID, ann: UUID) -> None:
    """Whoever waits for the row of a key that is being destroyed must not make it again."""
    with psycopg.connect(world.database.owner_url) as eraser:
        eraser.execute(ERASED, [tenant_id, ann])
        eraser.execute("DELETE FROM ledger.subject_keys WHERE subject_id = %s", [ann])
        async with world.app.connection() as connection:
            query = connection.execute(keyrings.OPEN_KEYS, (tenant_id, [ann], [b"new"], MASTER.id))
            maker = asyncio.create_task(query)
            with psycopg.connect(world.database.owner_url, autocommit=True) as watching:
                await _until_somebody_waits_for_a_lock(watching)
            eraser.commit()
            assert await (await maker).fetchall() == []
    with psycopg.connect(world.database.owner_url) as owner:
        assert owner.execute("SELECT count(*) FROM ledger.subject_keys").fetchone() == (0,)


async def _until_somebody_waits_for_a_lock(connection: psycopg.Connection) -> None:
    waits = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    async with asyncio.timeout(PATIENCE_S):
        while connection.execute(waits).fetchone() != (True,):  # noqa: ASYNC110  a server's state sends no events
            await asyncio.sleep(0.02)
