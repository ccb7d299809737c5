"""Whether the database fits this process: all migrations applied, and begun with this process's master key.

A process looks at that with its own login. Only what is missing then is done as the owner, so a node that does not have
the owner's password starts all the same once `bitnexus migrate` has been run.
"""

from typing import NamedTuple

import psycopg
from psycopg import conninfo, pq

from bitnexus import database
from ledger.keys import MasterKey
from migrations import errors, runner

KEY_IDS = "SELECT id FROM ledger.master_keys ORDER BY created_at, id"
HAS_KEYS = "SELECT pg_catalog.to_regclass('ledger.master_keys') IS NOT NULL"
# The lock: of two processes that begin a database with two keys, one has to see the other's.
LOCK_KEYS = "LOCK TABLE ledger.master_keys IN SHARE ROW EXCLUSIVE MODE"
INSERT_KEY = "INSERT INTO ledger.master_keys (id) VALUES (%s) ON CONFLICT DO NOTHING"


class MasterKeyWrong(Exception):
    """Says ids, never keys."""

    def __init__(self, given: str, wanted: list[str]) -> None:
        super().__init__(
            f"The database was begun with another master key: it needs the key with the id {' or '.join(wanted)}, and the "
            f"one given has the id {given}. Give that key (BITNEXUS_MASTER_KEY, or the file master.key in the data directory)."
        )
        self.given, self.wanted = given, wanted


class MasterKeyOrderWrong(Exception):
    """Says ids, never keys."""

    def __init__(self, given: str, wanted: str) -> None:
        super().__init__(
            f"The last of the master keys must be the one that the database was begun with, its id is {wanted}: the last one "
            f"given has the id {given}. Write the keys newest first, that one at the end."
        )
        self.given, self.wanted = given, wanted


class NotMigrated(Exception):
    """`missing` None: the login role cannot even log in, so that nobody can say here which key the database needs."""

    def __init__(self, missing: list[str] | None, why_not_now: str, given: str) -> None:
        lacks = "the login role or its password" if missing is None else ", ".join(missing) or "its master key's id"
        perhaps = (
            f" That password follows from the master key, the one given has the id {given}: if the database was begun with "
            "another key, give that one instead."
        )
        super().__init__(
            f"The database is not ready for this release: it lacks {lacks}, and this process cannot change that: "
            f"{why_not_now} Run `bitnexus migrate` with the owner's DATABASE_URL and this master key, then start again."
            f"{perhaps if missing is None else ''}"
        )


def ensure(owner_url: str | None, app_url: str, master: MasterKey) -> list[str]:
    """Migrations applied now; none if all was well.

    Raises MasterKeyWrong, MasterKeyOrderWrong, NotMigrated, migrations.errors.MigrationError, psycopg.OperationalError (the server
    takes no connections).
    """
    found = _as_login(app_url)
    if found is not None:
        check(found.key_ids, master)
        if not found.missing and master.id in found.key_ids:
            return []
    missing = None if found is None else found.missing
    if owner_url is None:
        _check_there(app_url)
        raise NotMigrated(missing, "it was not given the owner's DATABASE_URL.", master.root_id)
    try:
        return migrate(owner_url, master)
    except errors.DatabaseUnreachable as error:
        _check_there(app_url)
        raise NotMigrated(missing, str(error), master.root_id) from None


def _check_there(app_url: str) -> None:
    """A server that starts, stops or is away says nothing about what it holds, nor about the master key."""
    parameters = {**conninfo.conninfo_to_dict(app_url), "connect_timeout": database.CONNECT_TIMEOUT_S}
    found = pq.Ping(pq.PGconn.ping(conninfo.make_conninfo("", **parameters).encode()))
    if found in (pq.Ping.REJECT, pq.Ping.NO_RESPONSE):
        where = f"{parameters.get('host') or 'its socket'}, port {parameters.get('port') or 5432}"
        raise psycopg.OperationalError(f"the server takes no connections now ({found.name}) at {where}")


class _Found(NamedTuple):
    missing: list[str]  # migrations that are not applied
    key_ids: list[str]


def _as_login(app_url: str) -> _Found | None:
    """What the login role sees; None if it cannot log in, or may not look, because an early migration is missing."""
    parameters = database.parameters(app_url, "platform")
    try:
        missing = runner.pending(conninfo.make_conninfo("", **parameters))
        with psycopg.connect(autocommit=True, **parameters) as connection:
            return _Found(missing, _ids(connection))
    except (errors.DatabaseUnreachable, psycopg.Error):
        return None


def migrate(owner_url: str, master: MasterKey) -> list[str]:
    """As the owner: names of the files applied now. The database learns the newest key's id.

    Raises MasterKeyWrong, MasterKeyOrderWrong, migrations.errors.MigrationError.
    """
    check(key_ids(owner_url), master)  # before the login role gets a password that no other process knows
    applied = runner.migrate(owner_url, login_password=database.login_password(master))
    with psycopg.connect(owner_url) as connection:
        connection.execute(LOCK_KEYS)
        check(_ids(connection), master)
        for id in (master.root_id, master.id):  # in this order: the root's row is the oldest
            connection.execute(INSERT_KEY, [id])
    return applied


def key_ids(owner_url: str) -> list[str]:
    """Ids of the master keys that the database knows; none if it is new. Raises DatabaseUnreachable."""
    try:
        with psycopg.connect(owner_url, connect_timeout=database.CONNECT_TIMEOUT_S) as connection:
            row = connection.execute(HAS_KEYS).fetchone()
            return _ids(connection) if row is not None and row[0] else []
    except psycopg.OperationalError as error:
        raise errors.DatabaseUnreachable(str(error).strip()) from None


def check(ids: list[str], master: MasterKey) -> None:
    """The given keys against the database's ids, oldest first.

    Raises MasterKeyWrong if one that the database needs is not given, MasterKeyOrderWrong if the root is not the last.
    """
    missing = [id for id in ids if id not in master.ids]
    if missing:
        raise MasterKeyWrong(master.id, missing)
    if ids and ids[0] != master.root_id:
        raise MasterKeyOrderWrong(master.root_id, ids[0])


def _ids(connection: psycopg.Connection) -> list[str]:
    return [id for (id,) in connection.execute(KEY_IDS)]
