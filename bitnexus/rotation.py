"""Changing keys: wrapping those of persons by the newest master key, so that masters between it and the root can be thrown away;
and making a new one to sign access tokens with.

As the owner, who becomes the writer for it: no role of a process may change a key, only make and destroy one.
"""

from collections.abc import Callable
from typing import LiteralString

import msgspec
import psycopg
from psycopg.rows import TupleRow

from ledger import token_keys
from ledger.keys import MasterKey

KEYS_PER_BATCH_MAX = 1_000
"""Each batch is a transaction of its own: who is stopped goes on where it was, and an erasure waits for one batch at most."""
PASSES_MAX = 5
"""Each wraps what was made under another key during the one before: a node that still has an older newest key makes more."""
LOCK_TIMEOUT_MS = 2_000
"""How long who makes a person's key waits behind this while it waits for a transaction that made some: an import is one."""

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
# Whoever is making a key at this moment is waited for, so that the next statement sees it, and the others wait.
LOCK: LiteralString = "LOCK TABLE ledger.subject_keys IN SHARE MODE"
NAMED = "SELECT DISTINCT master_key_id FROM ledger.subject_keys"
FORGET: LiteralString = """
DELETE FROM ledger.master_keys m WHERE m.id <> ALL (%s) RETURNING m.id
"""
KNOWN = "SELECT id FROM ledger.master_keys ORDER BY created_at DESC, id"

SIGNING_KEYS: LiteralString = """
SELECT id, extract(epoch FROM signs_from - clock_timestamp())::float8,
       CASE WHEN verifies_until < 'infinity' THEN extract(epoch FROM verifies_until - clock_timestamp())::float8 END
FROM ledger.token_keys WHERE verifies_until > clock_timestamp() ORDER BY ledger.token_keys.signs_from, id
"""

Progress = Callable[[int, int], None]
"""Called with how many keys are done and how many there are to do."""


class Rotated(msgspec.Struct, frozen=True):
    """Ids of master keys: those that must still be given, newest first, and those that need not any more."""

    rewrapped: int
    needed: list[str]
    not_needed: list[str]


def rotate(owner_url: str, master: MasterKey, progress: Progress = lambda done, total: None) -> Rotated:
    """Every node must have the newest key by now. Done again it does nothing.

    A key under which somebody goes on to make persons' keys, or holds one that is not committed, stays needed: do it again later.

    Raises MasterKeyMissing, cryptography's InvalidTag (a wrapped key was tampered with), psycopg.Error.
    """
    done = 0
    with psycopg.connect(owner_url, autocommit=True) as connection:
        for passes_left in reversed(range(PASSES_MAX)):
            done += _rewrap(connection, master, done, progress)
            forgotten = _forget(connection, master, whole=not passes_left)
            if forgotten is not None:
                break
        needed = [id for (id,) in connection.execute(KNOWN).fetchall()]
    needed = list(dict.fromkeys([master.id, *needed, master.root_id]))
    return Rotated(done, needed, sorted({*(forgotten or ()), *master.ids} - {*needed}))


def _rewrap(connection: psycopg.Connection[TupleRow], master: MasterKey, before: int, progress: Progress) -> int:
    done = 0
    connection.execute("SET ROLE bitnexus_writer")
    row = connection.execute(COUNT, [master.id]).fetchone()
    assert row is not None
    total: int = row[0]
    if total or not before:
        progress(before, before + total)
    while moved := _batch(connection, master):
        done += moved
        progress(before + done, before + max(done, total))
    connection.execute("RESET ROLE")
    return done


def _forget(connection: psycopg.Connection[TupleRow], master: MasterKey, *, whole: bool) -> list[str] | None:
    """The ids that the database needs no more, as no person's key names them. None: some still do, and it was not `whole`."""
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            connection.execute(LOCK)
            connection.execute("SET LOCAL ROLE bitnexus_writer")  # row-level security lets the owner see none
            named = {id for (id,) in connection.execute(NAMED).fetchall()}
            if named - {master.id} and not whole:
                return None
            connection.execute("RESET ROLE")
            kept = [master.id, master.root_id, *named]
            return [id for (id,) in connection.execute(FORGET, [kept]).fetchall()]
    except psycopg.errors.LockNotAvailable:
        return []


class SigningKey(msgspec.Struct, frozen=True):
    """In seconds from now, both below zero for what is past; `verifies_s` None: until a later key is made."""

    id: str
    signs_in_s: int
    verifies_s: int | None


def rotate_signing(owner_url: str, new: token_keys.NewKey, *, at_once: bool = False) -> list[SigningKey]:
    """All keys for access tokens, `new` as the last one. Every process learns it within a second.

    It signs when everybody can have it, and the others verify until their tokens have expired; `at_once` it signs now and the
    others verify no more: all clients have to refresh. Raises psycopg.Error.
    """
    after_s, overlap_s = (0, 0) if at_once else (token_keys.PUBLISHED_S, token_keys.OVERLAP_S)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("SET ROLE bitnexus_writer")
        connection.execute(token_keys.ROTATE, (new.id, new.wrapped, after_s, overlap_s))
        rows = connection.execute(SIGNING_KEYS).fetchall()
    return [
        SigningKey(id, round(signs_in_s), None if verifies_s is None else round(verifies_s))
        for id, signs_in_s, verifies_s in rows
    ]


def _batch(connection: psycopg.Connection[TupleRow], master: MasterKey) -> int:
    with connection.transaction():
        rows = connection.execute(NEXT, [master.id, KEYS_PER_BATCH_MAX]).fetchall()
        wrapped = [
            master.wrap(tenant_id, subject_id, master.unwrap(tenant_id, subject_id, bytes(old), key_id))
            for tenant_id, subject_id, old, key_id in rows
        ]
        connection.execute(REWRAP, [master.id, [row[0] for row in rows], [row[1] for row in rows], wrapped])
    return len(rows)
