"""The machine of the database is gone, and nothing says so: no packet comes back, and no connection is closed."""

import json
import os
import subprocess
import sys

import pytest
from psycopg import conninfo

from tests.faults import vanishing
from tests.world import Database

LOST_S_MAX = 3 * 20.0
"""Promised are 20 s (bitnexus.database.SILENCE)."""


def network(*words: str) -> "subprocess.CompletedProcess[str]":
    """In a network of its own."""
    return subprocess.run(
        ["unshare", "--net", *words], capture_output=True, text=True, check=False, timeout=vanishing.WAIT_S_MAX + 30
    )


def test_a_database_that_vanished_is_known_to_be_lost(database: Database) -> None:
    """By default TCP would try for a quarter of an hour, and who waits for an answer would wait for ever: feeds, leases and commands
    would stand still long after another machine has taken the database's place."""
    able = network("true")
    if able.returncode != 0:
        text = f"No network of its own can be made here: {able.stderr.strip()}. Run the tests as root."
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    if not str(conninfo.conninfo_to_dict(database.app_url).get("host", "")).startswith("/"):
        pytest.skip("The server has no socket that another network reaches. Leave DATABASE_URL out.")
    done = network(sys.executable, "-m", "tests.faults.vanishing", database.app_url)
    assert done.returncode == 0, done.stderr
    seconds = json.loads(done.stdout)
    print(f"known to be lost after {seconds}")
    assert seconds.keys() == {"asked", "waits", "projects"}
    assert max(seconds.values()) < LOST_S_MAX
