"""The commands of the README, and of the pages in PAGES, work, and the output shown is what they print.

A fenced block of such a page is run by this test if its info string says so:

- ```` ```console run ````: each line that begins with `$ ` is a command, and lines that begin with `> ` continue one that ends
  with a backslash. They run in order, in one bash for the block, and each must end with 0. The other lines are the output that
  is shown: every word of it (four lower-case letters or more) has to be in what the block really prints.
- ```` ```console serve ````: one command that serves, such as `$ scripts/demo` or `$ bitnexus serve`. It is started, and stays
  for the blocks after it; what it prints by then is compared as above.
- any other block is not run.

All blocks share one data directory, which begins empty, and the variables that earlier blocks set (`TOKEN=$(…)`). Port 4000 is
replaced by a free one, `scripts/demo` by `bitnexus demo`: installing is what the test itself stands on.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```console (?P<how>run|serve)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
WORD = re.compile(r"\b[a-z]{4,}\b")
HEX = re.compile(r"[a-f]+")
TIMEOUT_S = 120
PAGES = ("README.md", "docs/tokens.md")
POLL_S = 0.05


class Block(NamedTuple):
    how: str
    commands: list[str]
    words: set[str]  # of the output that is shown


def blocks(readme: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(readme):
        commands: list[str] = []
        output: list[str] = []
        for line in match["text"].splitlines():
            if line.startswith("$ "):
                commands.append(line[2:])
            elif line.startswith("> ") and commands and commands[-1].endswith("\\"):
                commands[-1] += "\n" + line[2:]
            else:
                output.append(line)
        words = {word for word in WORD.findall("\n".join(output)) if not HEX.fullmatch(word)}
        found.append(Block(match["how"], commands, words))
    return found


class Shell:
    """Runs the blocks where the README's reader would: in the checkout, with nothing set."""

    def __init__(self, data_dir: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self._variables = data_dir / "variables"
        self._said = data_dir / "said"
        here = f"{ROOT / '.venv/bin'}:{Path(sys.executable).parent}"
        self._environment = {
            "PATH": f"{here}:{os.environ['PATH']}",
            "HOME": str(data_dir),
            "BITNEXUS_DATA_DIR": str(data_dir / "data"),
            "NO_PROXY": "*",
        }

    def _here(self, command: str) -> str:
        return re.sub(r"\b4000\b", str(self._port), command.replace("scripts/demo", "bitnexus demo"))

    def run(self, block: Block) -> str:
        """What it prints. Variables are kept for the next block."""
        script = "\n".join(
            ["set -e", f"touch {self._variables}", f". {self._variables}", *map(self._here, block.commands)]
        )
        script += (
            f"\nset | grep -E '^[A-Z][A-Z0-9_]*=' | grep -vE '^(BASH|EUID|PPID|SHELLOPTS|UID)' > {self._variables}"
        )
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{block.commands} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def serve(self, block: Block) -> Iterator[str]:
        """What it prints until it is ready."""
        (command,) = block.commands
        with self._said.open("w") as said:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(command)} --port {self._port}"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while f"http://127.0.0.1:{self._port}" not in self._said.read_text():
                assert process.poll() is None, self._said.read_text()
                assert time.monotonic() < deadline, self._said.read_text()
                time.sleep(POLL_S)
            yield self._said.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=TIMEOUT_S)


def check(block: Block, printed: str) -> None:
    missing = sorted(word for word in block.words if word not in printed)
    assert not missing, f"The README shows {missing} after {block.commands}, which print: {printed}"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_that_are_written_down_work(page: str, tmp_path: Path) -> None:
    """A newcomer types them one after another, on a machine that knows nothing of us yet."""
    found = blocks((ROOT / page).read_text())
    assert [block.how for block in found].count("serve") >= 1
    assert [block.how for block in found].count("run") >= 1
    _walk(Shell(tmp_path), found)


def _walk(shell: Shell, found: list[Block]) -> None:
    if not found:
        return
    block, *others = found
    if block.how == "serve":
        with shell.serve(block) as printed:
            check(block, printed)
            _walk(shell, others)
    else:
        check(block, shell.run(block))
        _walk(shell, others)


TOUR = """
```console serve
$ scripts/demo
│ the tenant demo with 1,721 products
```
```console run
$ curl -s http://127.0.0.1:4000/health
{"status":"healthy"}
$ SHOP=demo; echo \\
> "one $SHOP"
```
```console run
$ bitnexus audit verify --tenant "$SHOP"
demo  1,234  good
```
```console
$ never run
```
"""


def test_a_tour_is_walked_as_it_is_written(tmp_path: Path) -> None:
    """Later blocks use the server and the variables of earlier ones; what is shown and not printed is found."""
    found = blocks(TOUR)
    assert [block.how for block in found] == ["serve", "run", "run"]
    _walk(Shell(tmp_path), found)
    (stale,) = blocks("```console run\n$ echo one\nsomething that nobody prints\n```\n")
    with pytest.raises(AssertionError, match="nobody"):
        check(stale, Shell(tmp_path).run(stale))
