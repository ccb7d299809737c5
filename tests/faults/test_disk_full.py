"""PostgreSQL out of room while `bitnexus serve` is under commands: they are refused, and go on when there is room again."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from bitnexus.embedded import Embedded, cluster
from tests.bitnexus import embedded_user
from tests.bitnexus.commandline import CommandLine
from tests.faults.room import FileLimit, SmallDisk
from tests.faults.site import Site
from tests.faults.traffic import Traffic

BEFORE = 100
"""Commands acknowledged before room gets scarce, and again after there is room."""
FULL_S = 1.0
"""How long it stays full after the first refusal."""
WITHOUT_LOG_BYTES_MAX = 64 * 1024
"""A file of the write-ahead log has 4 MiB: nearly always the next flush is beyond this, and the one after in any case."""
COMMIT_S_MAX = 3.0
"""How long an appender has to come to a commit; usually the first one does."""
APPENDING = "bitnexus app"
"""Who runs out of room for the log first: an appender, amidst its commit. The others could be a view's or the server's own."""
POLL_S = 0.02
PATIENCE_S = 30.0

# A command that is there by halves: a row of one kind without those that its transaction writes with it.
HALF_WRITTEN = """
SELECT (SELECT count(*) FROM ledger.commands c WHERE NOT EXISTS (
            SELECT FROM ledger.events e WHERE e.tenant_id = c.tenant_id AND e.position = c.position
                AND convert_from(e.metadata, 'UTF8')::jsonb ->> 'command_id' = c.command_id::text)),
       (SELECT count(*) FROM ledger.events e WHERE NOT EXISTS (
            SELECT FROM ledger.commands c WHERE c.tenant_id = e.tenant_id
                AND convert_from(e.metadata, 'UTF8')::jsonb ->> 'command_id' = c.command_id::text)),
       (SELECT count(*) FROM ledger.events e WHERE e.topic = 'product.listed' AND NOT EXISTS (
            SELECT FROM ledger.reservations r WHERE r.tenant_id = e.tenant_id AND r.owner = e.originator_id)),
       (SELECT count(*) FROM ledger.reservations r WHERE r.kind = 'sku' AND NOT EXISTS (
            SELECT FROM ledger.events e WHERE e.tenant_id = r.tenant_id AND e.originator_id = r.owner))
"""


async def test_files_that_may_not_grow_refuse_commands_until_they_may(
    bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """A quota on the database's user. Tables are out of room, the write-ahead log is not."""
    await refuses_while_full(FileLimit(embedded), bitnexus, embedded, tmp_path, "File too large")


async def test_a_full_disk_refuses_commands_until_it_has_room(
    small_disk: Path, bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """A file system that is really full, below the events' table."""
    await refuses_while_full(SmallDisk(embedded, small_disk), bitnexus, embedded, tmp_path, "No space left on device")


async def refuses_while_full(
    room: FileLimit | SmallDisk, bitnexus: CommandLine, embedded: Embedded, tmp_path: Path, said: str
) -> None:
    async with Site(bitnexus, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
        await traffic.acknowledges(BEFORE)
        room.take()
        await traffic.is_refused()
        full_at, refused = len(traffic.acknowledged), traffic.refused
        await asyncio.sleep(FULL_S)
        assert half_written(embedded) == (0, 0, 0, 0)
        refused_while_full = traffic.refused - refused
        succeeded_while_full = len(traffic.acknowledged) - full_at
        room.give()
        await traffic.acknowledges(BEFORE)
        await traffic.finish()
        await traffic.assert_stands(
            bitnexus,
            f"full at {full_at} acknowledged, then {refused_while_full} refused, {succeeded_while_full} acknowledged",
        )
        assert traffic.unanswered == 0
        assert "could not extend file" in log_of(embedded)
        assert said in log_of(embedded)
        assert site.runs
    assert half_written(embedded) == (0, 0, 0, 0)


async def test_without_room_for_the_log_the_database_ends_and_loses_nothing(
    bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """PostgreSQL gives up when it cannot write its log; `serve` starts it again, and goes on when there is room."""
    limit = FileLimit(embedded)
    async with Site(bitnexus, tmp_path / "serve.log") as site, Traffic(site.url) as traffic:
        await traffic.acknowledges(BEFORE)
        pid = embedded_user.postmaster(embedded.data_dir)
        limit.limit(WITHOUT_LOG_BYTES_MAX, APPENDING)
        await asyncio.to_thread(wait_until_ended, embedded, pid)
        ended_at = len(traffic.acknowledged)
        await traffic.acknowledges(BEFORE)  # the new server is under no limit: there is room again
        await traffic.finish()
        await traffic.assert_stands(bitnexus, f"the database ended at {ended_at} acknowledged")
        assert traffic.unanswered == 0
        assert site.runs
    # Its last words do not say whether the commit stands, so no caller is answered by them: the flush is sent again.
    answered = [line for line in site.log().splitlines() if '"api.errors"' in line]
    assert [line for line in answered if "could not write to log file" in line] == []
    assert half_written(embedded) == (0, 0, 0, 0)
    assert "PANIC:  could not write to log file" in log_of(embedded)


def log_of(embedded: Embedded) -> str:
    """What the database says of it."""
    return "".join(path.read_text() for path in (embedded.data_dir / "pg" / "log").glob("*.log"))


def wait_until_ended(embedded: Embedded, pid: int) -> None:
    """By an appender's commit, if one comes that far: else each fails at a table that cannot grow, and writes no log at all.

    `pid`: of the server that has no room. While a look here waits for it to end, `serve` may have started the next one already.
    """
    begun = time.monotonic()
    while embedded_user.runs(embedded.data_dir) and cluster.pid(embedded.data_dir) == pid:
        assert time.monotonic() < begun + PATIENCE_S
        if time.monotonic() > begun + COMMIT_S_MAX:
            with (
                suppress(psycopg.OperationalError, psycopg.InternalError),
                psycopg.connect(embedded.owner_url) as owner,
            ):
                owner.execute("SELECT pg_logical_emit_message(true, 'full', repeat('x', %s))", [WITHOUT_LOG_BYTES_MAX])
        time.sleep(POLL_S)


def half_written(embedded: Embedded) -> tuple[int, ...]:
    """Commands without events, events without commands, products without their SKU's reservation, SKUs of nobody."""
    with psycopg.connect(embedded.owner_url) as owner:
        row = owner.execute(HALF_WRITTEN).fetchone()
    assert row is not None
    return row
