"""What an operator does at a shell with keys and tenants' data stands in the audit trail."""

from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from domain.tenants import PLATFORM_ID
from tests.bitnexus import commandline
from tests.world import Database

STATES = """
SELECT convert_from(state, 'UTF8')::json, convert_from(metadata, 'UTF8')::json ->> 'role'
FROM ledger.events WHERE tenant_id = %s AND topic = %s ORDER BY position
"""


def recorded(database: Database, tenant_id: UUID, topic: str) -> list[Any]:
    with psycopg.connect(database.owner_url) as owner:
        rows = owner.execute(STATES, (tenant_id, topic)).fetchall()
    assert {role for _, role in rows} <= {"system"}
    return [state for state, _ in rows]


def test_changes_of_keys_are_recorded_before_they_are_made(database: Database) -> None:
    """A key that somebody slipped in to sign tokens of their own would otherwise look like any other."""
    bitnexus = commandline.on(database)
    keys = bitnexus.good("keys", "rotate-signing")["keys"]
    only = bitnexus.good("keys", "rotate-signing", "--at-once")["keys"]
    master = bitnexus.good("keys", "rotate")["key"]
    assert recorded(database, PLATFORM_ID, "security.key_rotated") == [
        {"of": "tokens", "key_id": keys[-1]["id"], "at_once": False},
        {"of": "tokens", "key_id": only[-1]["id"], "at_once": True},
        {"of": "persons", "key_id": master, "at_once": False},
    ]


def test_an_export_of_a_tenant_is_recorded_in_its_stream_and_is_in_the_file(database: Database, tmp_path: Path) -> None:
    """Whoever holds the file holds everything; one that could not be written was no export."""
    bitnexus = commandline.on(database)
    tenant_id = UUID(commandline.create_shop(bitnexus)["tenant_id"])
    path = tmp_path / "shop.tenant"
    exported = bitnexus.good("tenants", "export", "shop", path)
    assert bitnexus("tenants", "export", "shop", path).code == 2
    bitnexus.good("tenants", "export", "shop", tmp_path / "2", "--with-keys", "--passphrase", "correct horse battery")
    assert recorded(database, tenant_id, "tenant.exported") == [{"with_keys": False}, {"with_keys": True}]
    with psycopg.connect(database.owner_url) as owner:
        first = (
            "SELECT position FROM ledger.events WHERE tenant_id = %s AND topic = 'tenant.exported' ORDER BY 1 LIMIT 1"
        )
        assert owner.execute(first, (tenant_id,)).fetchone() == (exported["events"],)
