"""What deciphering costs: 1,000 events of 1,000 persons with two personal fields each, against the same events in the clear.

The personal events are `account.registered` as it is; those in the clear are of a twin class with the same fields and values.
Warm: the keyring has all keys. Cold: a new keyring, so the wrapped keys are read from the database and unwrapped. All three
are taken in every round, one after the other, so that a machine that becomes slower does so for all of them; the ratios are
medians over the rounds.

`reader` is what the targets are about: from the rows in the database to the events. `projector` is the same for what is to
be stored, which asks the database each time who is erased. `decoding_alone` leaves out the query of the events, and so sets
what deciphering costs against the least that there is. `of_which` are the ciphers' own calls, which no Python gets below.

    scripts/bench decipher [--rounds 201]
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from uuid import UUID

import uvloop
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.domain import event
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bench import server
from bitnexus import database
from domain import accounts, aggregates
from ledger import appender, ids, lookups, read
from ledger.caller import Caller
from ledger.codec import Codec
from ledger.keyring import Keyring
from ledger.store import Ledger
from ledger.waker import Waker

EVENTS = 1_000
FIELDS = 2
TARGETS = {"warm": 2.0, "cold": 3.0}
ROUNDS_UNCOUNTED = 5
"""The first ones find caches of the processor and of the database empty."""

Connection = AsyncConnection[TupleRow]
Read = Callable[[Keyring, list[read.Entry]], Awaitable[object]]


class Open(aggregates.Aggregate):
    """An account as it would be if nothing about persons were personal."""

    TOPIC = "open"

    class Registered(aggregates.Aggregate.Created):
        TOPIC = "open.registered"
        tenant_id: UUID
        email: str
        name: str
        role: str

    @event(Registered)
    def __init__(self, id: UUID, tenant_id: UUID, email: str, name: str, role: str) -> None:
        self.tenant_id, self.email, self.name, self.role = tenant_id, email, name, role


CODEC = Codec([accounts.Account, Open])


def _people(tenant_id: UUID) -> Iterator[tuple[accounts.Account, Open]]:
    for n in range(EVENTS):
        email, name = f"person.{n}@example.com", f"Person Number {n}"
        account = accounts.register(id=ids.new_id(), tenant_id=tenant_id, email=email, name=name, role="user")
        yield account, Open(ids.new_id(), tenant_id, email, name, "user")


async def _fill(app_url: str, tenant_id: UUID) -> None:
    """The personal events at the positions 1 to EVENTS, the others after them."""
    appends = appender.Appender(database.connector(app_url, "app"), Waker())
    await appends.start()
    connect, keyring = database.connector(app_url, "app"), Keyring(server.MASTER)
    async with database.pool(app_url, "app", 2) as pool, lookups.running(connect, pool, CODEC, keyring) as looks:
        ledger = Ledger(pool, appends, looks, CODEC, keyring)
        await ledger.open_stream(tenant_id)

        def caller() -> Caller:
            return Caller(tenant_id=tenant_id, actor_id=None, role="admin", command_id=ids.new_id())

        for kind in zip(*_people(tenant_id), strict=True):
            await asyncio.gather(*(ledger.append(caller(), aggregate) for aggregate in kind))
    await appends.close()


def _new_keyring(tenant_id: UUID) -> Keyring:
    """Without keys, as a process has it for which somebody has been erased before."""
    fresh = Keyring(server.MASTER)
    fresh.drop([(tenant_id, ids.new_id())])
    return fresh


async def _compare(
    tenant_id: UUID, personal: list[read.Entry], clear: list[read.Entry], rounds: int, read_batch: Read
) -> dict[str, float]:
    """Microseconds an event, and how many times those of the clear ones."""
    warm = _new_keyring(tenant_id)
    await read_batch(warm, personal)
    times: dict[str, list[float]] = {"clear": [], "warm": [], "cold": []}
    for _ in range(ROUNDS_UNCOUNTED + rounds):
        for name, ring, batch in (("clear", warm, clear), ("warm", warm, personal), ("cold", None, personal)):
            used = _new_keyring(tenant_id) if ring is None else ring
            warm.looked(time.monotonic())  # as its watcher would say
            begun = time.perf_counter()
            await read_batch(used, batch)
            times[name].append(time.perf_counter() - begun)
    counted = {name: seconds[ROUNDS_UNCOUNTED:] for name, seconds in times.items()}
    found = {f"{name}_us": round(statistics.median(seconds) / EVENTS * 1e6, 2) for name, seconds in counted.items()}
    for name in TARGETS:
        pairs = zip(counted[name], counted["clear"], strict=True)
        found[f"{name}_ratio"] = round(statistics.median(mine / peer for mine, peer in pairs), 2)
    return found


def _ciphers_alone(tenant_id: UUID, rounds: int) -> dict[str, float]:
    """Microseconds an event: FIELDS fields decrypted, and a key unwrapped and made ready."""
    key, nonce, about = AESGCM(os.urandom(32)), os.urandom(12), bytes(105)
    field = key.encrypt(nonce, b'"person.500@example.com"', about)
    subject_id = ids.new_id()
    wrapped = server.MASTER.wrap(tenant_id, subject_id, os.urandom(32))

    def decrypting() -> None:
        for _ in range(FIELDS):
            key.decrypt(nonce, field, about)

    def unwrapping() -> None:
        AESGCM(server.MASTER.unwrap(tenant_id, subject_id, wrapped, server.MASTER.id))

    def median_us(work: Callable[[], None]) -> float:
        seconds = []
        for _ in range(rounds):
            begun = time.perf_counter()
            for _ in range(EVENTS):
                work()
            seconds.append(time.perf_counter() - begun)
        return round(statistics.median(seconds) / EVENTS * 1e6, 2)

    return {"decrypting_us": median_us(decrypting), "unwrapping_us": median_us(unwrapping)}


async def _measure(app_url: str, rounds: int) -> dict[str, object]:
    tenant_id = ids.new_id()
    await _fill(app_url, tenant_id)
    async with await database.connect(app_url, "projector") as connection:
        personal = await read.entries(connection, tenant_id, 0, EVENTS)
        clear = await read.entries(connection, tenant_id, EVENTS, EVENTS)
        assert {each.topic for each in personal} == {"account.registered"}

        async def reader(ring: Keyring, batch: list[read.Entry]) -> object:
            rows = await read.entries(connection, tenant_id, batch[0].position - 1, EVENTS)
            return await read.decode(CODEC, ring, connection, tenant_id, rows)

        async def projector(ring: Keyring, batch: list[read.Entry]) -> object:
            rows = await read.entries(connection, tenant_id, batch[0].position - 1, EVENTS)
            return await read.decode(CODEC, ring, connection, tenant_id, rows, to_store=True)

        async def decoding_alone(ring: Keyring, batch: list[read.Entry]) -> object:
            return await read.decode(CODEC, ring, connection, tenant_id, batch)

        ways: tuple[Read, ...] = (reader, projector, decoding_alone)
        figures = {way.__name__: await _compare(tenant_id, personal, clear, rounds, way) for way in ways}
    return {**figures, "of_which": _ciphers_alone(tenant_id, rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=201, help="of each measurement (default 201)")
    arguments = parser.parse_args()
    machine = server.machine()  # before the load that is made here
    with server.fresh() as app_url:
        figures = uvloop.run(_measure(app_url, arguments.rounds))
    print(json.dumps({"benchmark": "decipher", **machine, "targets": TARGETS, **figures}, indent=2))


if __name__ == "__main__":
    main()
