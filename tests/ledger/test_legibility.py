"""A ciphertext that is corrupt costs its field and nothing else: everybody reads on, and the audit names it."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg import Connection
from psycopg.rows import TupleRow

from commands import accounts, privacy
from domain import accounts as domain_accounts
from domain import catalogue
from ledger import errors, legibility, read, verify
from ledger.codec import ERASED, UNREADABLE, Codec
from ledger.keyring import Keyring, Keys, SubjectKeyUnusable
from ledger.keys import MasterKey
from ledger.legibility import Legibility, Unreadable
from ledger.store import Ledger
from tests.world import MASTER, World, caller

Owner = Connection[TupleRow]
Corrupt = Callable[[bytes], str]

ANN, BOB, CAT = (
    accounts.Register(email=f"{name}@example.com", name=name.title(), password="correct horse battery")
    for name in ("ann", "bob", "cat")
)
STRANGER = MasterKey(bytes([9] * 32))

# What may have become of nonce ‖ ciphertext ‖ tag before it was recorded.
CORRUPTIONS: dict[str, Corrupt] = {
    "a byte of the nonce is changed": lambda sealed: written(bytes([sealed[0] ^ 1]) + sealed[1:]),
    "a byte of the ciphertext is changed": lambda sealed: written(sealed[:15] + bytes([sealed[15] ^ 1]) + sealed[16:]),
    "the tag is another": lambda sealed: written(sealed[:-16] + bytes(16)),
    "the tag is cut": lambda sealed: written(sealed[:-1]),
    "too short for a nonce": lambda sealed: written(sealed[:7]),
    "too short for a tag": lambda sealed: written(sealed[:20]),
    "empty": lambda sealed: "",
    "no base64": lambda sealed: "*" + written(sealed)[1:],
    "base64 with a line break": lambda sealed: written(sealed)[:20] + "\n" + written(sealed)[20:],
    "in the clear": lambda sealed: "bob@example.com",
}


def written(sealed: bytes) -> str:
    return base64.b64encode(sealed).decode()


class Careless(Codec):
    """Writes one event's e-mail address corrupt, and is none the wiser."""

    def __init__(self, corrupt: Corrupt) -> None:
        super().__init__(catalogue.AGGREGATES)
        self._corrupt = corrupt

    def encode(self, tenant_id: UUID, event: Any, keys: Keys) -> bytes:
        state = json.loads(super().encode(tenant_id, event, keys))
        return json.dumps({**state, "email": self._corrupt(base64.b64decode(state["email"]))}).encode()


@pytest.fixture
def owner(world: World) -> Iterator[Owner]:
    with psycopg.connect(world.database.owner_url, autocommit=True) as connection:
        yield connection


@pytest_asyncio.fixture
async def projector(world: World) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
    async with world.projector.connection() as connection:
        yield connection


async def register(world: World, tenant_id: UUID, command: accounts.Register, codec: Codec | None = None) -> UUID:
    """The account's id; its event was written by `codec`, if that is given."""
    ledger = world.ledger
    if codec is not None:
        ledger = Ledger(world.app, world.appender, world.lookups, codec, world.ledger.keyring)
    return (await accounts.register(command, caller(tenant_id), ledger, world.passwords)).aggregate.id


async def seen(world: World, tenant_id: UUID, keyring: Keyring | None = None) -> list[tuple[str, str, str]]:
    """E-mail address, name and role of each event, as feeds and views get them."""
    async with world.projector.connection() as connection:
        entries = await read.entries(connection, tenant_id, 0, 100)
        ring = Keyring(MASTER) if keyring is None else keyring
        recorded = await read.decode(world.ledger.codec, ring, connection, tenant_id, entries)
    return [(each.event.email, each.event.name, each.event.role) for each in recorded]


async def check(world: World, tenant_id: UUID) -> Legibility:
    async with world.projector.connection() as connection:
        return await legibility.check(connection, world.ledger.codec, Keyring(MASTER), tenant_id)


ANN_SEEN, CAT_SEEN = ("ann@example.com", "Ann", "user"), ("cat@example.com", "Cat", "user")
BOB_SEEN = (UNREADABLE, "Bob", "user")
BOBS_EMAIL = Unreadable(2, "account.registered", "email")


@pytest.mark.parametrize("corruption", CORRUPTIONS)
async def test_recorded_corrupt_it_costs_its_field_only_and_the_chain_is_good(
    world: World, tenant_id: UUID, owner: Owner, corruption: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The chain proves that nobody changed the bytes, not that they can be deciphered: that is another check."""
    ann = await register(world, tenant_id, ANN)
    bob = await register(world, tenant_id, BOB, Careless(CORRUPTIONS[corruption]))
    cat = await register(world, tenant_id, CAT)
    assert verify.verify(owner, tenant_id).broken is None
    for _ in range(3):
        assert await seen(world, tenant_id) == [ANN_SEEN, BOB_SEEN, CAT_SEEN]
        loaded = await world.ledger.load_many(domain_accounts.Account, tenant_id, [ann, bob, cat])
        assert [(loaded[id].email, loaded[id].name, loaded[id].role) for id in (ann, bob, cat)] == [
            ANN_SEEN,
            BOB_SEEN,
            CAT_SEEN,
        ]
    assert await check(world, tenant_id) == Legibility(clear=5, unreadable=1, named=[BOBS_EMAIL])
    (line,) = [line for line in caplog.messages if "deciphered" in line]
    assert str(bob) in line
    assert "email" in line
    assert "example.com" not in line


async def test_another_persons_ciphertext_is_not_shown_as_ones_own(world: World, tenant_id: UUID, owner: Owner) -> None:
    """Not even if somebody who may append copies it there."""
    await register(world, tenant_id, ANN)
    (stolen,) = (
        owner.execute("SELECT convert_from(state, 'utf8')::json ->> 'email' FROM ledger.events").fetchone() or ()
    )
    await register(world, tenant_id, BOB, Careless(lambda sealed: stolen))
    assert await seen(world, tenant_id) == [ANN_SEEN, BOB_SEEN]
    assert (await check(world, tenant_id)).named == [BOBS_EMAIL]


@pytest.mark.parametrize("byte", [ord("A"), ord("*"), ord(" "), 0xFF])
async def test_changed_afterwards_the_chain_is_broken_and_everything_else_is_readable(
    world: World, tenant_id: UUID, owner: Owner, byte: int
) -> None:
    for command in (ANN, BOB, CAT):
        await register(world, tenant_id, command)
    place = 'position(\'"email":"\'::bytea IN state) + 30'
    changed = owner.execute(
        f"UPDATE ledger.events SET state = set_byte(state, {place}, CASE get_byte(state, {place}) WHEN %s THEN 66 ELSE %s END)"
        " WHERE tenant_id = %s AND position = 2".encode(),
        (byte, byte, tenant_id),
    )
    assert changed.rowcount == 1
    broken = verify.verify(owner, tenant_id).broken
    assert broken is not None
    assert broken.position == 2
    assert await seen(world, tenant_id) == [ANN_SEEN, BOB_SEEN, CAT_SEEN]
    assert await check(world, tenant_id) == Legibility(clear=5, unreadable=1, named=[BOBS_EMAIL])


async def test_an_event_that_is_no_json_any_more_is_named_without_a_field(
    world: World, tenant_id: UUID, owner: Owner
) -> None:
    for command in (ANN, BOB, CAT):
        await register(world, tenant_id, command)
    owner.execute("UPDATE ledger.events SET state = '{' WHERE position = 2")
    found = await check(world, tenant_id)
    assert found == Legibility(clear=4, unreadable=1, named=[Unreadable(2, "account.registered", None)])


async def test_who_was_erased_is_counted_as_erased_and_is_no_finding(world: World, tenant_id: UUID) -> None:
    """Else every erasure would be an alarm, and nobody would look any more."""
    ann = await register(world, tenant_id, ANN)
    await register(world, tenant_id, BOB)
    erase = privacy.Erase(account_id=ann)
    await privacy.erase(erase, caller(tenant_id), world.ledger, privacy.noted_nowhere)
    assert await check(world, tenant_id) == Legibility(clear=2, erased=2)


async def test_all_are_counted_page_after_page_and_the_first_are_named(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legibility, "EVENTS_PER_READ", 2)
    monkeypatch.setattr(legibility, "UNREADABLE_NAMED_MAX", 3)
    careless = Careless(lambda sealed: "")
    for number in range(5):
        someone = accounts.Register(email=f"p{number}@example.com", name="P", password="correct horse battery")
        await register(world, tenant_id, someone, careless)
    reached: list[int] = []
    async with world.projector.connection() as connection:
        found = await legibility.check(connection, world.ledger.codec, Keyring(MASTER), tenant_id, reached.append)
    assert (found.clear, found.unreadable, [each.position for each in found.named]) == (5, 5, [1, 2, 3])
    assert reached == [2, 4, 5]


# Keys


async def test_a_tampered_key_makes_its_persons_fields_unreadable_not_erased(
    world: World, tenant_id: UUID, owner: Owner
) -> None:
    """`[erased]` would say that the person asked for it. And nothing new is encrypted under what is no key."""
    ann = await register(world, tenant_id, ANN)
    await register(world, tenant_id, BOB)
    change = "UPDATE ledger.subject_keys SET wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) WHERE subject_id = %s"
    owner.execute(change.encode(), (ann,))
    ring = Keyring(MASTER)
    assert await seen(world, tenant_id, ring) == [(UNREADABLE, UNREADABLE, "user"), ("bob@example.com", "Bob", "user")]
    async with world.app.connection() as connection:
        (key,) = (await ring.make(connection, tenant_id, [ann])).values()
    with pytest.raises(SubjectKeyUnusable, match=str(ann)):
        key.encrypt(bytes(12), b"", None)
    owner.execute(change.encode(), (ann,))
    assert (await seen(world, tenant_id, ring))[0] == ANN_SEEN


@pytest.mark.parametrize("wrapped", [b"", b"short", bytes(60), bytes(61)])
async def test_a_key_that_is_none_at_all_too(world: World, tenant_id: UUID, owner: Owner, wrapped: bytes) -> None:
    await register(world, tenant_id, ANN)
    owner.execute("UPDATE ledger.subject_keys SET wrapped = %s", (wrapped,))
    assert await seen(world, tenant_id) == [(UNREADABLE, UNREADABLE, "user")]
    assert (await check(world, tenant_id)).unreadable == 2


async def test_an_unknown_master_key_is_an_error_that_names_it_for_whoever_needs_it(
    world: World, tenant_id: UUID, projector: psycopg.AsyncConnection[TupleRow]
) -> None:
    """A marker would go into views for good; with the key put back, the process works as it did."""
    ann = await register(world, tenant_id, ANN)
    ring = Keyring(STRANGER)
    async with world.app.connection() as app:
        for use in (
            lambda: seen(world, tenant_id, ring),
            lambda: ring.find(projector, tenant_id, [ann]),
            lambda: ring.find_now(projector, tenant_id, [ann]),
            lambda: ring.find_as_tenant(app, tenant_id, [ann]),
            lambda: ring.make(app, tenant_id, [ann]),
        ):
            with pytest.raises(errors.MasterKeyMissing, match=f"The master key {MASTER.id} is missing") as missing:
                await use()
            assert missing.value.key_id == MASTER.id
            assert "BITNEXUS_MASTER_KEY" in str(missing.value)
    assert len(ring) == 0
    assert await seen(world, tenant_id, Keyring(MasterKey(bytes([9] * 32), [MASTER]))) == [ANN_SEEN]
    assert ERASED not in str(await seen(world, tenant_id))
