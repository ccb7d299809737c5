"""Replacing a master key: nobody's data is lost on the way, and the key in between is good for nothing afterwards."""

import asyncio
import base64
import uuid
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import conninfo, sql

from bitnexus import database as connections
from bitnexus import rotation, schema, settings
from commands import accounts
from domain import accounts as domain_accounts
from ledger import errors, ids
from ledger.keyring import Keyring
from ledger.keys import MasterKey, MasterKeyInvalid
from tests.bitnexus import commandline
from tests.world import MASTER, Database, World, caller

SECOND, THIRD = bytes([2] * 32), bytes([3] * 32)
YEAR_TWO = MasterKey(SECOND, [MASTER])
YEAR_THREE = MasterKey(THIRD, [MasterKey(SECOND), MASTER])
AFTER = MasterKey(THIRD, [MASTER])
THIRD_ID = AFTER.id
PEOPLE = 5
PATIENCE_S = 30.0
WAITING = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'
"""
OPEN_KEY = "SELECT FROM ledger.open_subject_keys(%s, %s, %s, %s)"


def command(number: int) -> accounts.Register:
    return accounts.Register(email=f"p{number}@example.com", name=f"Person {number}", password="long enough")


async def register(world: World, tenant_id: UUID, number: int) -> UUID:
    made = await accounts.register(command(number), caller(tenant_id), world.ledger, world.passwords)
    return made.aggregate.id


async def names(world: World, tenant_id: UUID, people: list[UUID], master: MasterKey) -> list[str]:
    """As a process sees them that has only just started, with these keys."""
    world.ledger.keyring = world.lookups.keyring = Keyring(master)
    found = await world.ledger.load_many(domain_accounts.Account, tenant_id, people)
    return [found[person].name for person in people]


def wrapped_by(database: Database) -> set[str]:
    with psycopg.connect(database.owner_url) as owner:
        return {id for (id,) in owner.execute("SELECT DISTINCT master_key_id FROM ledger.subject_keys")}


async def test_keys_are_wrapped_by_the_newest_and_everybody_stays_readable(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "KEYS_PER_BATCH_MAX", 2)
    url = world.database.owner_url
    schema.migrate(url, MASTER)
    people = [await register(world, tenant_id, number) for number in range(PEOPLE)]
    schema.migrate(url, YEAR_TWO)
    steps: list[tuple[int, int]] = []
    done = rotation.rotate(url, YEAR_TWO, lambda rewrapped, total: steps.append((rewrapped, total)))
    assert (done.rewrapped, done.needed, done.not_needed) == (PEOPLE, [YEAR_TWO.id, MASTER.id], [])
    assert steps == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert wrapped_by(world.database) == {YEAR_TWO.id}
    assert await names(world, tenant_id, people, YEAR_TWO) == [f"Person {n}" for n in range(PEOPLE)]
    assert rotation.rotate(url, YEAR_TWO).rewrapped == 0


async def test_the_key_in_between_can_be_thrown_away(world: World, tenant_id: UUID) -> None:
    url = world.database.owner_url
    for keys in (MASTER, YEAR_TWO):
        schema.migrate(url, keys)
    world.ledger.keyring = world.lookups.keyring = Keyring(YEAR_TWO)
    people = [await register(world, tenant_id, 1)]
    schema.migrate(url, YEAR_THREE)
    with pytest.raises(schema.MasterKeyWrong, match=YEAR_TWO.id):
        schema.ensure(None, world.database.app_url, AFTER)
    assert rotation.rotate(url, YEAR_THREE).not_needed == [YEAR_TWO.id]
    assert schema.ensure(None, world.database.app_url, AFTER) == []
    assert await names(world, tenant_id, people, AFTER) == ["Person 1"]
    with pytest.raises(errors.MasterKeyMissing, match=AFTER.id):
        await names(world, tenant_id, people, YEAR_TWO)


async def test_a_key_under_which_somebody_is_being_recorded_is_wrapped_again_before_it_is_forgotten(
    world: World, tenant_id: UUID
) -> None:
    """Thrown away as no longer needed, it would take that person's data with it."""
    url, person = world.database.owner_url, ids.new_id()
    for keys in (MASTER, YEAR_TWO, YEAR_THREE):
        schema.migrate(url, keys)
    async with world.app.connection() as late:
        async with late.transaction():
            await Keyring(YEAR_TWO).make(late, tenant_id, [person])
            rotating = asyncio.create_task(asyncio.to_thread(rotation.rotate, url, YEAR_THREE))
            await waits_for_a_lock(url)
        done = await rotating
        assert (done.rewrapped, done.needed, done.not_needed) == (1, [THIRD_ID, MASTER.id], [YEAR_TWO.id])
        assert await Keyring(AFTER).find_as_tenant(late, tenant_id, [person])


async def test_a_key_that_may_still_be_in_use_is_not_forgotten(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import can hold the keys that it brings for minutes: others are not kept waiting for that, and nothing is lost."""
    monkeypatch.setattr(rotation, "LOCK_TIMEOUT_MS", 50)
    url, person = world.database.owner_url, ids.new_id()
    for keys in (MASTER, YEAR_TWO, YEAR_THREE):
        schema.migrate(url, keys)
    async with world.app.connection() as late:
        async with late.transaction():
            await Keyring(YEAR_TWO).make(late, tenant_id, [person])
            done = await asyncio.to_thread(rotation.rotate, url, YEAR_THREE)
            assert (done.rewrapped, done.needed, done.not_needed) == (0, [THIRD_ID, YEAR_TWO.id, MASTER.id], [])
        with pytest.raises(schema.MasterKeyWrong, match=YEAR_TWO.id):
            schema.ensure(None, world.database.app_url, AFTER)
        assert rotation.rotate(url, YEAR_THREE).not_needed == [YEAR_TWO.id]
        assert await Keyring(AFTER).find_as_tenant(late, tenant_id, [person])


async def test_a_key_under_which_somebody_goes_on_is_not_forgotten(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that was not given the newest key yet: each pass finds what it made during the last one."""
    url = world.database.owner_url
    for keys in (MASTER, YEAR_TWO, YEAR_THREE):
        schema.migrate(url, keys)
    wrapping = rotation._rewrap
    with connections.connect_sync(world.database.app_url, "app") as node:

        def and_one_more(*arguments: Any) -> int:
            done = wrapping(*arguments)
            person = ids.new_id()
            wrapped = YEAR_TWO.wrap(tenant_id, person, bytes(32))
            node.execute(OPEN_KEY, (tenant_id, [person], [wrapped], YEAR_TWO.id))
            return done

        monkeypatch.setattr(rotation, "_rewrap", and_one_more)
        done = rotation.rotate(url, YEAR_THREE)
    assert (done.rewrapped, done.needed, done.not_needed) == (4, [THIRD_ID, YEAR_TWO.id, MASTER.id], [])
    assert wrapped_by(world.database) == {THIRD_ID, YEAR_TWO.id}


async def waits_for_a_lock(url: str) -> None:
    async with asyncio.timeout(PATIENCE_S), await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
        while await (await owner.execute(WAITING)).fetchone() is None:  # noqa: ASYNC110  only the server knows
            await asyncio.sleep(0.01)


async def test_keys_of_one_subject_in_two_tenants_stay_apart(world: World, tenant_id: UUID) -> None:
    """A tenant that was moved may have its person's id here twice; each tenant's key is its own."""
    url, subject, other = world.database.owner_url, ids.new_id(), ids.new_id()
    schema.migrate(url, MASTER)
    async with world.app.connection() as connection:
        for tenant in (tenant_id, other):
            await Keyring(MASTER).make(connection, tenant, [subject])
        schema.migrate(url, YEAR_TWO)
        assert rotation.rotate(url, YEAR_TWO).rewrapped == 2
        for tenant in (tenant_id, other):
            assert await Keyring(YEAR_TWO).find_as_tenant(connection, tenant, [subject])


@pytest.fixture
def plain_owner(database: Database) -> Iterator[str]:
    """The URL of an owner who is no superuser, as managed databases have it: forced row-level security binds it too."""
    name = sql.Identifier(f"owner_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT PASSWORD 'rotates'").format(name))
        connection.execute(sql.SQL("GRANT bitnexus_writer TO {}").format(name))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA ledger TO {}").format(name))
        for table in ("subject_keys", "master_keys"):
            connection.execute(sql.SQL("ALTER TABLE ledger.{} OWNER TO {}").format(sql.Identifier(table), name))
        yield conninfo.make_conninfo(database.owner_url, user=name.as_string()[1:-1], password="rotates")
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(name))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
        connection.execute(sql.SQL("DROP ROLE {}").format(name))


async def test_an_owner_who_is_no_superuser_rotates_too(world: World, tenant_id: UUID, plain_owner: str) -> None:
    """Who saw no rows would call a key no longer needed that everybody's key is wrapped by."""
    for keys in (MASTER, YEAR_TWO):
        schema.migrate(world.database.owner_url, keys)
    await register(world, tenant_id, 1)
    done = rotation.rotate(plain_owner, YEAR_TWO)
    assert (done.rewrapped, wrapped_by(world.database)) == (1, {YEAR_TWO.id})


async def test_who_registered_before_a_rotation_still_logs_in(world: World, tenant_id: UUID) -> None:
    """Reservations are HMACs under the root: with another key no address would be found any more."""
    await register(world, tenant_id, 1)
    world.ledger.keyring = world.lookups.keyring = Keyring(YEAR_THREE)
    log_in = accounts.LogIn(email=command(1).email, password=command(1).password)
    await accounts.log_in(log_in, caller(tenant_id), world.ledger, world.passwords)
    with pytest.raises(accounts.EmailTaken):
        await register(world, tenant_id, 1)


def test_what_is_derived_stays_the_same() -> None:
    assert connections.login_password(YEAR_THREE) == connections.login_password(MASTER)
    assert YEAR_THREE.id not in (YEAR_TWO.id, MASTER.id)


def test_a_node_with_a_key_that_the_database_does_not_know_yet_cannot_write_with_it(database: Database) -> None:
    """Another node could not read what it writes, and nobody would know which key is missing."""
    schema.migrate(database.owner_url, MASTER)
    with pytest.raises(schema.NotMigrated, match="master key's id"):
        schema.ensure(None, database.app_url, YEAR_TWO)
    schema.migrate(database.owner_url, YEAR_TWO)
    assert schema.ensure(None, database.app_url, YEAR_TWO) == []
    with pytest.raises(schema.MasterKeyWrong, match=YEAR_TWO.id):
        schema.ensure(None, database.app_url, MASTER)


def test_the_root_must_be_the_last(database: Database) -> None:
    schema.migrate(database.owner_url, MASTER)
    with pytest.raises(schema.MasterKeyOrderWrong, match=MASTER.id):
        schema.migrate(database.owner_url, MasterKey(MASTER._material, [MasterKey(SECOND)]))


def test_a_new_database_may_be_begun_with_several_keys(database: Database) -> None:
    schema.migrate(database.owner_url, YEAR_TWO)
    assert schema.key_ids(database.owner_url) == [MASTER.id, YEAR_TWO.id]


def test_several_keys_are_written_with_commas() -> None:
    text = ", ".join(base64.b64encode(each).decode() for each in (THIRD, SECOND, MASTER._material))
    assert MasterKey.parse(text).ids == YEAR_THREE.ids
    found = settings.read({"BITNEXUS_MASTER_KEY": text})
    assert found.master_key == text
    for wrong in (text + ",", text + ",x", text + "!", text + "," + text):
        with pytest.raises(MasterKeyInvalid):
            MasterKey.parse(wrong)


def test_no_role_of_a_process_changes_a_key(database: Database) -> None:
    for role in ("app", "projector", "platform"):
        with (
            connections.connect_sync(database.app_url, role) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("UPDATE ledger.subject_keys SET wrapped = ''")


# The command line


def line(database: Database, *keys: bytes) -> commandline.CommandLine:
    given = ",".join(base64.b64encode(key).decode() for key in keys)
    return commandline.CommandLine(DATABASE_URL=database.owner_url, BITNEXUS_MASTER_KEY=given)


def test_keys_rotate_wraps_again_and_says_which_keys_are_still_needed(database: Database) -> None:
    """Three years of an installation: the key of the second can be taken out, and nobody is lost by it."""
    first = bytes(range(32))
    assert commandline.create_shop(line(database, first))["slug"] == "shop"
    years = [
        (line(database, SECOND, first), YEAR_TWO, []),
        (line(database, THIRD, SECOND, first), AFTER, [YEAR_TWO.id]),
    ]
    for bitnexus, keys, not_needed in years:
        wanted = {"key": keys.id, "needed": [keys.id, MASTER.id], "not_needed": not_needed}
        assert bitnexus.good("keys", "rotate") == {"rewrapped": 1, **wanted}
        assert wrapped_by(database) == {keys.id}
    shown = line(database, THIRD, SECOND, first)("keys", "rotate")
    assert (shown.code, shown.err) == (0, "")
    (row,) = [row for row in shown.out.splitlines() if AFTER.id in row]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [AFTER.id, "0", f"{AFTER.id}, {MASTER.id}", YEAR_TWO.id]
    after = line(database, THIRD, first)
    asked = ("tenants", "admin", "shop", "--admin-email", "admin@shop.example", "--admin-password", "new password")
    assert after.good(*asked)["new_account"] is False
    node = commandline.CommandLine(
        DATABASE_APP_URL=database.app_url, BITNEXUS_MASTER_KEY=after.environment["BITNEXUS_MASTER_KEY"]
    )
    refused = node("keys", "rotate", "--json")
    assert refused.code == 2
    assert "owner" in refused.json["error"]
    refused = line(database, SECOND, first)("keys", "rotate", "--json")
    assert refused.code == 2
    assert AFTER.id in refused.json["error"]
