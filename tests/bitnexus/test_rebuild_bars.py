"""What somebody at a terminal sees of a rebuild."""

import os
import pty
import re
import subprocess
from contextlib import suppress

from tests.bitnexus import commandline
from tests.world import Database

ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
WAIT_S_MAX = 60.0
BAR = r"^transactions {0} \S+ +([0-9]+)/([0-9]+) +[0-9:]+ +([0-9,]+)/s +[0-9:-]+ *$"
"""View and tenant, how far of how far, for how long, events in a second, the time that is left."""


def test_a_rebuild_shows_a_bar_for_each_tenant_with_its_rate_and_the_time_left(sold_database: Database) -> None:
    """A large tenant takes minutes: whether to wait for it is what an operator wants to know."""
    bitnexus = commandline.on(sold_database)
    mall = commandline.create_shop(bitnexus, "mall")
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [*commandline.COMMAND, "projections", "rebuild", "transactions", "--all"],
        env={**bitnexus.environment, "COLUMNS": "200", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # how a terminal ends
        while more := os.read(terminal, 65_536):
            said += more
    assert process.wait(WAIT_S_MAX) == 0
    os.close(terminal)
    lines = re.split(r"[\r\n]+", ESCAPES.sub(b"", said).decode())
    assert any(mall["tenant_id"] in line and "━" in line for line in lines)
    bars = [found for line in lines for found in re.findall(BAR.format("[0-9a-f-]{36}"), line)]
    at = [int(position) for position, end, rate in bars if int(end) > 1_000 and int(rate.replace(",", "")) > 0]
    assert len(set(at)) > 1, lines
    assert at == sorted(at)
