"""A data directory for an embedded server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bitnexus import embedded


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data"
    yield path
    if (path / "pg" / "postmaster.pid").exists():  # a test failed half-way: nothing may stay behind
        with embedded.Embedded(path):
            pass
