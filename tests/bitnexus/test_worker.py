"""A worker process by itself, without the parent that starts it again."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bitnexus import orders
from bitnexus.counting import Slot
from bitnexus.settings import Settings
from ledger import ids
from tests.bitnexus.commandline import MASTER_KEY

ROOT = Path(__file__).parents[2]
WAIT_S_MAX = 60.0
PERSON = "ann@shop.example"


def ended(told: orders.Orders) -> "subprocess.CompletedProcess[str]":
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        ours.sendall(orders.encoded(told))
        return subprocess.run(
            [sys.executable, "-m", "bitnexus.worker", str(listener.fileno()), str(theirs.fileno())],
            pass_fds=(listener.fileno(), theirs.fileno()),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=WAIT_S_MAX,
            check=False,
        )


@pytest.mark.parametrize("app_url", [f"postgresql:///{PERSON}?host={{folder}}", f"postgresql://?{PERSON}=x"])
def test_a_worker_that_does_not_start_says_why_in_the_log_and_nowhere_else(tmp_path: Path, app_url: str) -> None:
    """A traceback between the lines of the log is read by no collector, and quotes what the log leaves out."""
    settings = Settings(data_dir=tmp_path, master_key=MASTER_KEY)
    told = orders.Orders(settings, app_url.format(folder=tmp_path), Slot(tmp_path, 0), ids.new_id())
    done = ended(told)
    assert done.returncode == 1
    logged = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in logged if line["level"] == "error"] == ["__main__"]
    assert PERSON not in done.stderr
