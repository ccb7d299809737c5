"""A data directory for an embedded server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitnexus import embedded
from tests import databases
from tests.bitnexus import commandline
from tests.world import Database


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data"
    yield path
    if (path / "pg" / "postmaster.pid").exists():  # a test failed half-way: nothing may stay behind
        with embedded.Embedded(path):
            pass


@pytest.fixture(scope="session")
def sold_template(server: str, shop_template: tuple[str, dict[str, Any]]) -> Iterator[str]:
    """The name of a database in which the tenant `shop` has the 1,500 events of the sample."""
    with databases.copy(server, shop_template[0]) as made:
        commandline.on(made).good("import", "retail", commandline.SAMPLE, "--tenant", "shop")
        yield made.name


@pytest.fixture
def sold_database(server: str, sold_template: str) -> Iterator[Database]:
    """A database of this test's own as `sold_template`."""
    with databases.copy(server, sold_template) as made:
        yield made
