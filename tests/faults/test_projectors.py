"""What befalls projectors: they say so, nobody else notices, and when it is over the views are as if nothing had been."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from bitnexus.embedded import Embedded
from tests.bitnexus.commandline import CommandLine
from tests.faults.room import PRODUCTS, FileLimit, SmallDisk
from tests.faults.site import Site
from tests.faults.traffic import POLL_S, Traffic

BEFORE = 100
"""Commands acknowledged before something befalls the views, and again while it lasts."""
LEFT_BYTES = 32 * 1024
"""Room that is left to the view: a hundred products."""
HELD_S = 10.0
"""The five attempts at an event take 7.5 s (failures.ATTEMPTS): whatever is taken for its fault is parked by then."""
PATIENCE_S = 60.0
"""A view that has failed for a while is tried again after 30 s at the latest."""

STATE = """
SELECT view, position, stopped, parked, failure FROM views.positions p
WHERE tenant_id = (SELECT tenant_id FROM ledger.heads ORDER BY position DESC LIMIT 1) ORDER BY view
"""
HEAD = "SELECT max(position) FROM ledger.heads"


class Views:
    """What the database says of the shop's views."""

    def __init__(self, embedded: Embedded) -> None:
        self._url = embedded.owner_url

    def state(self) -> dict[str, dict[str, Any]]:
        with psycopg.connect(self._url) as owner:
            names = ("view", "position", "stopped", "parked", "failure")
            found = [dict(zip(names, row, strict=True)) for row in owner.execute(STATE)]
        return {each["view"]: each for each in found}

    def head(self) -> int:
        with psycopg.connect(self._url) as owner:
            ((found,),) = owner.execute(HEAD).fetchall()
        return int(found)

    def assert_whole(self) -> None:
        """Nothing was parked, nothing has stopped, and nothing fails."""
        for each in self.state().values():
            assert (each["stopped"], each["parked"], each["failure"]) == (False, 0, None)
        with psycopg.connect(self._url) as owner:
            assert owner.execute("SELECT count(*) FROM views.parked").fetchall() == [(0,)]


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(what):  # noqa: ASYNC110  another process's doing
            await asyncio.sleep(POLL_S)


async def assert_only_it_waits(views: Views, view: str, failure: str) -> None:
    """The view says why and stands still, and has not given up; all others come to where the head is now."""
    await until(lambda: failure in (views.state()[view]["failure"] or ""))
    await asyncio.sleep(HELD_S)
    head = views.head()
    await until(lambda: all(each["position"] >= head for name, each in views.state().items() if name != view))
    found = views.state()[view]
    assert failure in found["failure"]
    assert (found["stopped"], found["parked"], found["position"] < head) == (False, 0, True)


async def stands_still_while_full(
    room: FileLimit | SmallDisk, bitnexus: CommandLine, embedded: Embedded, tmp_path: Path, failure: str
) -> None:
    views = Views(embedded)
    async with Site(bitnexus, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
        await traffic.acknowledges(BEFORE)
        room.take(LEFT_BYTES)
        await traffic.acknowledges(3 * BEFORE)  # commands need no view
        await assert_only_it_waits(views, "products", failure)
        room.give()
        await traffic.finish()
        assert traffic.refused == 0
        head = views.head()
        await until(lambda: views.state()["products"]["position"] >= head)
        await traffic.assert_stands(bitnexus, f"the view was full until there were {head} events")
        views.assert_whole()
        assert "The view products of tenant" in site.log()
        with psycopg.connect(embedded.owner_url) as owner:
            assert owner.execute("SELECT count(*) FROM views.products").fetchall() == [(len(traffic.acknowledged),)]


async def test_a_view_that_may_not_grow_waits_and_loses_nothing(
    bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """A quota on the database's user. The error is the server's own, and of no class that speaks of room."""
    await stands_still_while_full(FileLimit(embedded, PRODUCTS), bitnexus, embedded, tmp_path, "SQLSTATE")


async def test_a_view_on_a_full_disk_waits_and_loses_nothing(
    small_disk: Path, bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """A file system that is really full, below the view's table."""
    room = SmallDisk(embedded, small_disk, PRODUCTS)
    await stands_still_while_full(room, bitnexus, embedded, tmp_path, "DiskFull (SQLSTATE 53100)")


async def test_a_view_whose_table_is_missing_says_so_and_no_other_waits_for_it(
    bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """A release without its migration. Nothing of it is parked, and once the table is there it goes on by itself."""
    views = Views(embedded)
    async with Site(bitnexus, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
        with psycopg.connect(embedded.owner_url) as owner:
            owner.execute("ALTER TABLE views.products RENAME TO elsewhere")
        await traffic.acknowledges(BEFORE)
        await assert_only_it_waits(views, "products", "UndefinedTable (SQLSTATE 42P01)")
        listed = await asyncio.to_thread(bitnexus.good, "projections", "list", "--by-tenant", "--tenant", "shop")
        (line,) = [each for each in listed["tenants"] if each["view"] == "products"]
        assert line["failure"] == "UndefinedTable (SQLSTATE 42P01)"
        assert "The view products of tenant" in site.log()
        with psycopg.connect(embedded.owner_url) as owner:
            owner.execute("ALTER TABLE views.elsewhere RENAME TO products")
        await traffic.finish()
        await until(lambda: views.state()["products"]["failure"] is None)
        await traffic.assert_stands(bitnexus, "the view had no table for a while")
        views.assert_whole()
