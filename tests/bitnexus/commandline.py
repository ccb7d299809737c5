"""The command line as somebody at a shell has it: a process of its own, on a database of the test's own."""

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import logged
from tests.world import Database

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()  # tests.world.MASTER
COMMAND = [sys.executable, "-m", "bitnexus"]
TIMEOUT_S = 60
SAMPLE = Path(__file__).parents[2] / "bitnexus/data/online-retail-5000.csv.gz"


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which has to be one document and nothing else."""
        return json.loads(self.out)


UNLIMITED = dict.fromkeys(
    ("BITNEXUS_RATE_ADDRESS", "BITNEXUS_RATE_USER", "BITNEXUS_RATE_TENANT", "BITNEXUS_RATE_ACCOUNT"), "off"
)
"""A test asks faster than anybody; those that are about limits set them."""


class CommandLine:
    """`environment` is all that the command knows of where it is."""

    def __init__(self, **environment: str) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "PYTHONPATH") if name in os.environ}
        self.environment = {**kept, **UNLIMITED, **environment}

    def __call__(self, *words: object, stdin: str = "") -> Run:
        done = subprocess.run(
            [*COMMAND, *map(str, words)],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if logged.RUN is not None:
            logged.RUN.of_process(done.stderr)
        return Run(done.returncode, done.stdout, done.stderr)

    def good(self, *words: object) -> Any:
        """The document of a command that has to succeed."""
        run = self(*words, "--json")
        assert run.code == 0, run.err
        return run.json

    def start(self, *words: object) -> "subprocess.Popen[str]":
        """The command under way."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*COMMAND, *map(str, words)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )


def on(database: Database, **environment: str) -> CommandLine:
    """As a developer has it: the owner's URL of a server of one's own."""
    return CommandLine(DATABASE_URL=database.owner_url, BITNEXUS_MASTER_KEY=MASTER_KEY, **environment)


def create_shop(bitnexus: CommandLine, slug: str = "shop") -> dict[str, Any]:
    """A tenant with the admin `admin@SLUG.example`, password "correct horse"."""
    made: dict[str, Any] = bitnexus.good(
        *("tenants", "create", slug, "--name", slug.title(), "--currency", "GBP"),
        *("--admin-email", f"admin@{slug}.example", "--admin-password", "correct horse"),
    )
    return made
