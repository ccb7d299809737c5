"""`audit verify --personal`: the chain says that the bytes are those that were recorded, this that they can be deciphered."""

from typing import Any
from uuid import UUID

import psycopg
import pytest

from ledger import chain
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.world import Database


@pytest.fixture
def bitnexus(database: Database) -> CommandLine:
    return commandline.on(database)


def record_corrupt(database: Database, tenant_id: UUID) -> None:
    """The tenant's last event, its admin's, as if it had been recorded with a wrong tag: hashed as it is."""
    at = "tenant_id = %s AND position = 2"
    with psycopg.connect(database.owner_url) as owner:
        owner.execute(
            "UPDATE ledger.events SET state = replace(convert_from(state, 'utf8'), '\",\"name\"', 'AAAA\",\"name\"')::bytea"
            f" WHERE {at}".encode(),
            [tenant_id],
        )
        columns = "tenant_id, position, originator_id, originator_version, recorded_at, topic, state, metadata"
        row: Any = owner.execute(f"SELECT {columns} FROM ledger.events WHERE {at}".encode(), [tenant_id]).fetchone()
        ((previous,),) = owner.execute(
            "SELECT hash FROM ledger.events WHERE tenant_id = %s AND position = 1", [tenant_id]
        ).fetchall()
        hash = chain.leaf_hash(previous, *row)
        owner.execute(f"UPDATE ledger.events SET hash = %s WHERE {at}".encode(), [hash, tenant_id])
        owner.execute("UPDATE ledger.heads SET hash = %s WHERE tenant_id = %s", [hash, tenant_id])


def test_an_unreadable_field_is_named_with_its_position_and_ends_with_1(
    bitnexus: CommandLine, database: Database
) -> None:
    tenant_id = UUID(commandline.create_shop(bitnexus)["tenant_id"])
    commandline.create_shop(bitnexus, "other")
    counted = {"clear": 2, "erased": 0, "unreadable": 0, "named": []}
    before = bitnexus.good("audit", "verify", "--personal")
    assert {each["tenant"]: each["personal"] for each in before["tenants"]} == {
        "platform": {**counted, "clear": 0},
        "shop": counted,
        "other": counted,
    }
    record_corrupt(database, tenant_id)
    chains = bitnexus.good("audit", "verify")
    assert (chains["verdict"], {each["personal"] for each in chains["tenants"]}) == ("good", {None})
    run = bitnexus("audit", "verify", "--personal", "--json")
    assert (run.code, run.json["verdict"]) == (1, "unreadable")
    (shop,) = [each for each in run.json["tenants"] if each["tenant"] == "shop"]
    finding = {"position": 2, "topic": "account.registered", "field": "email"}
    assert (shop["verdict"], shop["personal"]) == (
        "good",
        {"clear": 1, "erased": 0, "unreadable": 1, "named": [finding]},
    )
    shown = bitnexus("audit", "verify", "--personal")
    assert shown.code == 1
    assert "shop: the field email of account.registered at position 2 is unreadable." in shown.out
    assert bitnexus.good("audit", "verify", "--personal", "--tenant", "other")["verdict"] == "good"


def test_a_broken_chain_does_not_keep_it_from_looking(bitnexus: CommandLine, database: Database) -> None:
    """The damage may be just there, and whoever repairs it wants to know all of it."""
    tenant_id = commandline.create_shop(bitnexus)["tenant_id"]
    with psycopg.connect(database.owner_url) as owner:
        owner.execute(
            "UPDATE ledger.events SET state = replace(convert_from(state, 'utf8'), '\"email\":\"', '\"email\":\"*')::bytea"
            " WHERE tenant_id = %s AND position = 2",
            [tenant_id],
        )
    run = bitnexus("audit", "verify", "--personal", "--json")
    assert (run.code, run.json["verdict"]) == (1, "broken")
    (shop,) = [each for each in run.json["tenants"] if each["tenant"] == "shop"]
    assert (shop["verdict"], shop["broken_position"]) == ("broken", 2)
    assert shop["personal"]["named"] == [{"position": 2, "topic": "account.registered", "field": "email"}]
    shown = bitnexus("audit", "verify", "--personal", "--tenant", "shop").out
    assert "shop is broken at position 2" in shown
    assert "shop: the field email of account.registered at position 2 is unreadable." in shown
