"""Tenants, programs and super admins from the command line."""

import re
from pathlib import Path

import psycopg
import pytest

from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine, create_shop
from tests.world import Database


@pytest.fixture
def bitnexus(database: Database) -> CommandLine:
    return commandline.on(database)


def test_a_program_gets_a_key_and_loses_it(bitnexus: CommandLine) -> None:
    create_shop(bitnexus)
    account = ("service-accounts", "create", "--tenant", "shop", "--name", "Auditor")
    made = bitnexus.good(*account, "--scope", "ledger:read", "--scope", "products:read")
    assert re.fullmatch(r"bnx_[0-9A-Za-z]{92}", made["key"])
    listed = bitnexus.good("service-accounts", "list", "--tenant", "shop")["service_accounts"]
    assert [(each["name"], each["scopes"]) for each in listed] == [("Auditor", ["ledger:read", "products:read"])]
    refused = bitnexus(*account, "--scope", "accounts:write")
    assert (refused.code, "accounts:write" in refused.err) == (2, True)
    closed = bitnexus.good("service-accounts", "close", made["service_account_id"], "--tenant", "shop")
    assert (closed["closed"], closed["keys"]) == (True, [])


def test_a_tenant_is_suspended_resumed_and_closed_with_its_export(bitnexus: CommandLine, tmp_path: Path) -> None:
    """What was closed without a whole export would be lost."""
    create_shop(bitnexus)
    assert bitnexus.good("tenants", "suspend", "shop", "--reason", "unpaid")["status"] == "suspended"
    assert bitnexus.good("tenants", "resume", "shop")["status"] == "active"
    file = tmp_path / "shop.bnx"
    file.write_text("something else")
    refused = bitnexus("tenants", "close", "shop", file)
    assert refused.code == 2
    assert bitnexus.good("tenants", "resume", "shop")["status"] == "active"  # it was suspended, and not closed
    closed = bitnexus.good("tenants", "close", "shop", tmp_path / "whole.bnx")
    assert (closed["status"], closed["bytes"] > 0) == ("closed", True)
    again = bitnexus("tenants", "resume", "shop")
    assert (again.code, "closed for good" in again.err) == (2, True)


def test_the_first_super_admin_is_made_at_the_database(bitnexus: CommandLine) -> None:
    words = ("platform", "admin", "--admin-email", "root@example.com", "--admin-password", "correct horse")
    made = bitnexus.good(*words)
    assert (made["tenant"], made["new_account"]) == ("platform", True)
    assert bitnexus.good(*words)["new_account"] is False


def test_a_password_given_on_the_command_line_costs_what_the_settings_say(database: Database) -> None:
    """An admin's would be the cheapest to guess after it was raised, and take memory that is not there after it was lowered."""
    create_shop(commandline.on(database, BITNEXUS_ARGON2="m=19456,t=1,p=1"))
    with psycopg.connect(database.owner_url) as owner:
        hashes = [
            bytes(value) for (value,) in owner.execute("SELECT value FROM ledger.secrets WHERE kind = 'password'")
        ]
    assert [each.rpartition(b"$")[0].rpartition(b"$")[0] for each in hashes] == [b"$argon2id$v=19$m=19456,t=1,p=1"]
