"""Who does the rebuilds that are wanted, beside everything else."""

import logging

import psycopg
import pytest

from bitnexus import database as connections
from ledger import ids
from projections import filling, rebuilder, sales, stream
from projections.rebuild import Job
from tests.world import World


@pytest.mark.parametrize(
    ("error", "level"),
    [(psycopg.errors.AdminShutdown("the server stops"), logging.WARNING), (ValueError("a bug"), logging.ERROR)],
)
async def test_a_rebuild_goes_on_after_the_database_was_away_which_is_no_bug(
    error: Exception,
    level: int,
    world: World,
    source: stream.Source,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each restart of the database would put a trace into the log, for which somebody is called at night."""
    raised = [error, filling.Lost(sales.NAME, ids.new_id())]

    async def work(*_: object, **__: object) -> None:
        raise raised.pop(0)

    monkeypatch.setattr(filling, "work", work)
    monkeypatch.setattr(rebuilder, "RETRY_S", 0.0)
    made = rebuilder.Rebuilder(
        ids.new_id(), [sales.VIEW], connections.projecting_connector(world.database.app_url), source
    )
    await made._do(Job(sales.NAME, ids.new_id(), 2, 0, compare_only=False))
    assert raised == []
    assert [each.levelno for each in caplog.records if each.name == "projections.rebuilder"] == [level]
