"""Two installations and a tenant to move between them."""

import io
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from bitnexus import installation, process
from bitnexus.moving import export as exporting
from bitnexus.moving import format, passphrase
from bitnexus.moving import restore as restoring
from bitnexus.process import Process
from domain import catalogue
from ledger import verify
from ledger.codec import Codec
from ledger.keys import MasterKey
from tests.world import Database

SCRYPT_N = passphrase.SCRYPT_N  # as it is, tests have a cheap one
CODEC = Codec(catalogue.AGGREGATES)
OTHER_MASTER = MasterKey(bytes(range(32, 64)))
PHRASE = "correct horse battery"
PASSWORD = "a good password"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

# In the order of their tables' keys; what the platform has is not the tenant's.
TABLES = {
    "events": "position, originator_id, originator_version, topic, recorded_at, state, metadata, hash",
    "heads": "position, hash, recorded_at",
    "reservations": "kind, key, owner",
    "subjects": "kind, ref, subject_id",
}
ALL_TABLES = (*TABLES, "subject_keys", "secrets", "commands", "erased_subjects")


@dataclass(frozen=True)
class Shop:
    """A tenant at its first home."""

    tenant_id: UUID
    account_id: UUID
    sale_id: UUID
    buyer_id: UUID  # the subject that "17850" names


@dataclass(frozen=True)
class Home:
    """An installation: a database and a master key."""

    database: Database
    master: MasterKey

    def running(self, *, projecting: bool = False) -> AbstractAsyncContextManager[Process]:
        base = installation.Installation(self.database.app_url, self.master, [], self.database.owner_url)
        return process.running(base, projecting=projecting)

    def owner(self) -> AbstractContextManager[Connection[TupleRow]]:
        return connections.connect_owner(self.database.owner_url)

    def rows(self, table: str, tenant_id: UUID, columns: str = "count(*)") -> list[Any]:
        with psycopg.connect(self.database.owner_url) as connection:
            order = columns if columns != "count(*)" else "1"
            query = f"SELECT {columns} FROM ledger.{table} WHERE tenant_id = %s ORDER BY {order}"
            return connection.execute(query.encode(), [tenant_id]).fetchall()

    def holds(self, tenant_id: UUID) -> dict[str, int]:
        """Rows of the tenant by table; those without are left out."""
        counts = {table: self.rows(table, tenant_id)[0][0] for table in ALL_TABLES}
        return {table: count for table, count in counts.items() if count}

    def views(self, tenant_id: UUID) -> dict[str, list[Any]]:
        """All rows of the tenant, as text, by table."""
        with psycopg.connect(self.database.owner_url) as connection:
            return {
                table: connection.execute(
                    f"SELECT v::text FROM views.{table} v WHERE tenant_id = %s ORDER BY 1".encode(), [tenant_id]
                ).fetchall()
                for table in ("products", "transactions", "refunds", "sales_by_day")
            }

    def export(self, tenant_id: UUID, phrase: str | None = None) -> bytes:
        file = io.BytesIO()
        locked = None if phrase is None else exporting.Locked(self.master, phrase)
        with connections.connect_sync(self.database.app_url, "projector") as connection:
            exporting.export(connection, tenant_id, "shop", "The Shop", file, locked)
        return file.getvalue()

    def restore(self, file: bytes, phrase: str | None = None, **how: Any) -> restoring.Restored:
        with self.owner() as connection:
            return restore_on(connection, self.master, file, phrase, **how)

    def verdict(self, tenant_id: UUID) -> verify.Verdict:
        with connections.connect_sync(self.database.app_url, "projector") as connection:
            return verify.verify(connection, tenant_id)


def restore_on(
    connection: Connection[TupleRow], master: MasterKey, file: bytes, phrase: str | None = None, **how: Any
) -> restoring.Restored:
    asked = restoring.Restoring(master=master, codec=CODEC, passphrase=phrase, **how)
    return restoring.restore(connection, io.BytesIO(file), asked)


def rewritten(file: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """The file with events changed, and every length, checksum and digest put right again: a forger's work."""
    reader = format.Reader(io.BytesIO(file))
    out = io.BytesIO()
    writer = format.Writer(out)
    writer.header(reader.header)
    number = 0
    for _, block in reader.blocks():
        for row in reader.rows(block):
            number += 1
            writer.event(change(number, row.tail), row.hash)
    writer.end(bytes.fromhex(reader.end().hash))
    return out.getvalue()
