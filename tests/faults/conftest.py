"""Installations that may be broken: a data directory, its PostgreSQL, and the tenant `shop` on it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitnexus.embedded import Embedded
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine

DISK = "8m"


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    """In use by the test as well, so that it can be started again, and ends with it."""
    with Embedded(tmp_path / "data") as server:
        yield server


@pytest.fixture
def bitnexus(embedded: Embedded) -> CommandLine:
    """As a newcomer has it: a data directory and no setting more."""
    made = CommandLine(BITNEXUS_DATA_DIR=str(embedded.data_dir))
    commandline.create_shop(made)
    return made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Asked for before `embedded` by a test, so that it is there until the server has stopped."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    why_not = mount(mounted)
    if why_not:
        text = f"A full disk was not tested, no file system can be mounted here: {why_not}. Run the tests as root."
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def mount(target: Path) -> str:
    """A file system of DISK bytes; why it cannot be, "" if it is there."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"mount: {error.strerror}"
    return "" if done.returncode == 0 else done.stderr.partition("\n")[0] or f"mount ended with {done.returncode}"
