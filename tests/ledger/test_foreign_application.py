"""docs/foreign-applications.md: what a user copies from it runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

from ledger import ids
from tests.world import Database

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "foreign-applications.md"


def test_the_pages_application_runs_as_it_stands(database: Database) -> None:
    text = PAGE.read_text()
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [printed] = re.findall(r"It prints\n\n```\n(.*?)```", text, re.DOTALL)
    settings = {
        "PERSISTENCE_MODULE": "ledger.recorders",
        "LEDGER_URL": database.app_url,
        "LEDGER_TENANT": str(ids.new_id()),
    }
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **settings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stderr, ran.stdout) == ("", printed)
