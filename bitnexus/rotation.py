"""Wrapping the keys of persons by the newest master key, so that those between it and the root can be thrown away.

As the owner, who becomes the writer for it: no role of a process may change a key, only make and destroy one.
"""

from collections.abc import Callable
from typing import LiteralString

import msgspec
import psycopg
from psycopg.rows import TupleRow

from ledger.keys import MasterKey

KEYS_PER_BATCH_MAX = 1_000
"""Each batch is a transaction of its own: who is stopped goes on where it was, and an erasure waits for one batch at most."""

COUNT = "SELECT count(*) FROM ledger.subject_keys WHERE master_key_id <> %s"
NEXT: LiteralString = """
SELECT tenant_id, subject_id, wrapped, master_key_id FROM ledger.subject_keys WHERE master_key_id <> %s
ORDER BY tenant_id, subject_id LIMIT %s FOR UPDATE
"""
# A key that was destroyed meanwhile is not there, and an update makes no row.
REWRAP: LiteralString = """
UPDATE ledger.subject_keys k SET wrapped = x.wrapped, master_key_id = %s
FROM unnest(%s::uuid[], %s::uuid[], %s::bytea[]) AS x (tenant, subject, wrapped)
WHERE k.tenant_id = x.tenant AND k.subject_id = x.subject
"""
FORGET: LiteralString = """
DELETE FROM ledger.master_keys m WHERE m.id <> ALL (%s) RETURNING m.id
"""

Progress = Callable[[int, int], None]
"""Called with how many keys are done and how many there are to do."""


class Rotated(msgspec.Struct, frozen=True):
    """Ids of master keys: those that must still be given, and those that need not any more."""

    rewrapped: int
    needed: list[str]
    not_needed: list[str]


def rotate(owner_url: str, master: MasterKey, progress: Progress = lambda done, total: None) -> Rotated:
    """Every node must have the newest key by now. Done again it does nothing.

    Raises MasterKeyMissing, cryptography's InvalidTag (a wrapped key was tampered with), psycopg.Error.
    """
    done = 0
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("SET ROLE bitnexus_writer")
        row = connection.execute(COUNT, [master.id]).fetchone()
        assert row is not None
        total: int = row[0]
        progress(done, total)
        while moved := _batch(connection, master):
            done += moved
            progress(done, max(done, total))
        connection.execute("RESET ROLE")
        needed = list(dict.fromkeys([master.id, master.root_id]))
        forgotten = {id for (id,) in connection.execute(FORGET, [needed]).fetchall()}
    return Rotated(done, needed, sorted({*forgotten, *master.ids} - {*needed}))


def _batch(connection: psycopg.Connection[TupleRow], master: MasterKey) -> int:
    with connection.transaction():
        rows = connection.execute(NEXT, [master.id, KEYS_PER_BATCH_MAX]).fetchall()
        wrapped = [
            master.wrap(tenant_id, subject_id, master.unwrap(tenant_id, subject_id, bytes(old), key_id))
            for tenant_id, subject_id, old, key_id in rows
        ]
        connection.execute(REWRAP, [master.id, [row[0] for row in rows], [row[1] for row in rows], wrapped])
    return len(rows)
