"""Keys of access tokens: the same in every process, changed while they run, and of no use to who reads the database."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from bitnexus import rotation
from ledger import token_keys
from ledger.keys import MasterKey
from ledger.token_keys import TokenKeys
from tests.world import MASTER, Database

Projector = AsyncConnection[TupleRow]


@pytest_asyncio.fixture
async def projector(database: Database) -> AsyncIterator[Projector]:
    async with await connections.connect(database.app_url, "projector") as connection:
        yield connection


async def looked(projector: Projector, master: MasterKey = MASTER) -> TokenKeys:
    keys = TokenKeys(master)
    await keys.look(projector)
    return keys


def ids(keys: TokenKeys) -> list[str]:
    return [key.id for key in keys.all]


async def test_processes_that_start_together_have_one_key(database: Database) -> None:
    """Else a token of one would be refused by another."""

    async def start() -> list[str]:
        async with await connections.connect(database.app_url, "projector") as connection:
            return ids(await looked(connection))

    found = await asyncio.gather(*(start() for _ in range(4)))
    assert len(found[0]) == 1
    assert found == [found[0]] * 4


async def test_a_new_key_is_known_before_it_signs_and_the_old_one_verifies_until_its_tokens_have_expired(
    database: Database, projector: Projector, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await looked(projector)
    old = keys.signing()
    new = rotation.rotate_signing(database.owner_url, token_keys.new(MASTER))[-1]
    await keys.look(projector)
    assert ids(keys) == [old.id, new.id]
    now, signing = time.time(), keys.signing
    assert signing().id == old.id
    monkeypatch.setattr(time, "time", lambda: now + token_keys.PUBLISHED_S + 5)
    assert signing().id == new.id
    ends = keys.all[0].verifies_until - now
    assert token_keys.PUBLISHED_S + 15 * 60 < ends < token_keys.PUBLISHED_S + token_keys.OVERLAP_S + 5
    assert keys.all[1].verifies_until == float("inf")


async def test_a_key_whose_time_is_over_is_gone_and_a_later_rotation_lengthens_none(
    database: Database, projector: Projector
) -> None:
    keys = await looked(projector)
    first = ids(keys)[0]
    rotation.rotate_signing(database.owner_url, token_keys.new(MASTER))
    await keys.look(projector)
    ends = keys.all[0].verifies_until
    rotation.rotate_signing(database.owner_url, token_keys.new(MASTER))
    await keys.look(projector)
    assert (keys.all[0].id, keys.all[0].verifies_until) == (first, ends)
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("UPDATE ledger.token_keys SET verifies_until = clock_timestamp() WHERE id = %s", (first,))
        await keys.look(projector)
        assert first not in ids(keys)
        rotation.rotate_signing(database.owner_url, token_keys.new(MASTER))
        assert owner.execute("SELECT count(*) FROM ledger.token_keys WHERE id = %s", (first,)).fetchone() == (0,)


async def test_a_stolen_key_counts_no_more_at_once(database: Database, projector: Projector) -> None:
    keys = await looked(projector)
    before = keys.all
    (only,) = rotation.rotate_signing(database.owner_url, token_keys.new(MASTER), at_once=True)
    await keys.look(projector)
    assert (ids(keys), keys.signing().id, only.verifies_s) == ([only.id], only.id, None)
    assert before[0].id != only.id


async def test_what_is_unchanged_is_not_unwrapped_again(projector: Projector) -> None:
    """Every process looks twice a second, for ever."""
    keys = await looked(projector)
    before = keys.all
    await keys.look(projector)
    assert keys.all is before


async def test_who_reads_the_database_cannot_sign(database: Database, projector: Projector) -> None:
    keys = await looked(projector)
    seed = keys.signing().private.private_bytes_raw()
    with psycopg.connect(database.owner_url) as owner:
        rows = owner.execute("SELECT id, wrapped FROM ledger.token_keys").fetchall()
    assert not any(seed in wrapped or base64.b64encode(seed) in wrapped for _, wrapped in rows)
    with pytest.raises(token_keys.TokenKeyUnusable, match=rows[0][0]):
        await looked(projector, MasterKey(bytes(range(1, 33))))


async def test_a_row_that_was_changed_is_not_used(database: Database, projector: Projector) -> None:
    """Nobody puts a key of their own in the place of ours, nor one of ours under another's name."""
    keys = await looked(projector)
    first = ids(keys)[0]
    second = rotation.rotate_signing(database.owner_url, token_keys.new(MASTER))[-1].id
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute(
            "UPDATE ledger.token_keys SET wrapped = (SELECT wrapped FROM ledger.token_keys WHERE id = %s) WHERE id = %s",
            (first, second),
        )
    await keys.look(projector)
    assert ids(keys) == [first]


@pytest.mark.parametrize("role", ["app", "projector", "platform"])
async def test_a_process_cannot_bring_a_key_of_its_own(database: Database, projector: Projector, role: str) -> None:
    """One that is taken over must not be able to lock everybody else out."""
    keys = await looked(projector)
    new = token_keys.new(MASTER)
    with connections.connect_sync(database.app_url, role) as connection:  # type: ignore[arg-type]  # one of the three
        for statement, values in ((token_keys.ROTATE, (*new, 0, 0)), (token_keys.BEGIN, new)):
            try:
                connection.execute(statement, values)
            except psycopg.errors.InsufficientPrivilege:
                continue
            assert (role, statement) == ("projector", token_keys.BEGIN)
    before = ids(keys)
    await keys.look(projector)
    assert ids(keys) == before
