"""Installations that may be broken: a data directory, its PostgreSQL, and the tenant `shop` on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bitnexus.embedded import Embedded
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine


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
