"""Migrations: each once, in order, and nothing guessed when files and database disagree."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from migrations import errors, files, runner
from tests.migrations.conftest import Folder

PASSWORD = "pass'word-4711"
TABLE = "-- Why: a table.\nCREATE TABLE public.a (n int); INSERT INTO public.a VALUES (1);\n"


def migrate(owner_url: str, folder: Folder) -> list[str]:
    return runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path)


def rows(owner_url: str, query: bytes) -> list[tuple[object, ...]]:
    with psycopg.connect(owner_url) as connection:
        return connection.execute(query).fetchall()


def test_files_are_applied_once_in_order_and_recorded(owner_url: str, folder: Folder) -> None:
    """A second start must not run a migration again."""
    folder.write("0002_pre_a.sql", TABLE)
    assert runner.pending(owner_url, folder=folder.path) == ["0001_pre_roles.sql", "0002_pre_a.sql"]
    assert migrate(owner_url, folder) == ["0001_pre_roles.sql", "0002_pre_a.sql"]
    folder.write("0003_post_b.sql", "INSERT INTO public.a VALUES (2);")
    assert runner.pending(owner_url, folder=folder.path) == ["0003_post_b.sql"]
    assert migrate(owner_url, folder) == ["0003_post_b.sql"]
    assert migrate(owner_url, folder) == []
    assert rows(owner_url, b"SELECT n FROM public.a ORDER BY n") == [(1,), (2,)]
    recorded = rows(owner_url, b"SELECT name, phase, length(checksum) FROM migrations.applied ORDER BY name")
    assert recorded == [
        ("0001_pre_roles.sql", "pre", 64),
        ("0002_pre_a.sql", "pre", 64),
        ("0003_post_b.sql", "post", 64),
    ]


def test_processes_that_start_together_apply_each_once(owner_url: str, folder: Folder) -> None:
    """Nodes of a deployment all migrate at their start. The concurrent index is the trap: its build waits for every
    open snapshot, so a start that waited for its turn inside a statement would stop both."""
    folder.write("0002_pre_a.sql", TABLE)
    folder.write("0003_pre_i.sql", "-- transaction: none\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_n ON public.a (n);")
    together = threading.Barrier(4)

    def start(_: int) -> list[str]:
        together.wait(timeout=30)
        return migrate(owner_url, folder)

    with ThreadPoolExecutor(4) as pool:
        applied = sorted(pool.map(start, range(4)))
    assert applied == [[], [], [], ["0001_pre_roles.sql", "0002_pre_a.sql", "0003_pre_i.sql"]]
    assert rows(owner_url, b"SELECT n FROM public.a") == [(1,)]


def test_a_start_that_waits_too_long_names_who_holds_it_up(owner_url: str, folder: Folder) -> None:
    with psycopg.connect(owner_url, application_name="stuck", autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [runner.LOCK_KEY])
        with pytest.raises(errors.LockHeld, match=rf'backend {other.info.backend_pid} \("stuck"') as raised:
            runner.migrate(owner_url, login_password=PASSWORD, folder=folder.path, lock_wait_s=0.3)
    assert "longer than 0.3 s" in str(raised.value)


def test_a_migration_that_fails_leaves_nothing_and_can_be_repaired(owner_url: str, folder: Folder) -> None:
    folder.write("0002_pre_a.sql", TABLE + "SELECT nonsense;\n")
    with pytest.raises(errors.MigrationFailed, match=r"0002_pre_a\.sql: .*nonsense.* \(SQLSTATE 42703, line 3\)"):
        migrate(owner_url, folder)
    assert rows(owner_url, b"SELECT to_regclass('public.a')") == [(None,)]
    folder.write("0002_pre_a.sql", TABLE)
    assert migrate(owner_url, folder) == ["0002_pre_a.sql"]


def test_a_migration_that_commits_by_itself_is_refused(owner_url: str, folder: Folder) -> None:
    """It would be half done after a crash, and recorded as if it were not."""
    folder.write("0002_pre_a.sql", TABLE + "COMMIT;\n")
    with pytest.raises(errors.MigrationFailed, match="ends the transaction that it runs in"):
        migrate(owner_url, folder)
    assert runner.pending(owner_url, folder=folder.path) == ["0002_pre_a.sql"]


def test_a_migration_outside_a_transaction_runs_statement_by_statement(owner_url: str, folder: Folder) -> None:
    """Several statements in one message would be one transaction, which CREATE INDEX CONCURRENTLY refuses."""
    folder.write("0002_pre_a.sql", TABLE)
    folder.write(
        "0003_pre_index.sql",
        "-- Why: semicolons; in comments, strings and bodies are no ends.\n-- transaction: none\n"
        "/* one; /* inner; */ it's two; */\nCREATE INDEX CONCURRENTLY a_n ON public.a (n);\n"
        "DO $body$ BEGIN PERFORM ';'; END $body$;\n"
        "INSERT INTO public.a SELECT length('it''s;') + length(E'\\';') AS \"a;b\" -- end; here\n;\n;",
    )
    assert migrate(owner_url, folder)[-1] == "0003_pre_index.sql"
    assert rows(owner_url, b"SELECT n FROM public.a ORDER BY n") == [(1,), (7,)]
    assert rows(owner_url, b"SELECT to_regclass('public.a_n')::text") == [("a_n",)]


def test_an_edited_old_migration_is_refused(owner_url: str, folder: Folder) -> None:
    """Else two databases of the same release would differ."""
    folder.write("0002_pre_a.sql", TABLE)
    migrate(owner_url, folder)
    before = rows(owner_url, b"SELECT checksum FROM migrations.applied WHERE name = '0002_pre_a.sql'")[0][0]
    folder.write("0002_pre_a.sql", TABLE + "-- edited")
    with pytest.raises(errors.MigrationEdited, match=rf"0002_pre_a\.sql .*{before}.*now has [0-9a-f]{{64}}"):
        migrate(owner_url, folder)
    with pytest.raises(errors.MigrationEdited):
        runner.pending(owner_url, folder=folder.path)
    folder.write("0002_pre_a.sql", TABLE.replace("\n", "\r\n"))
    assert migrate(owner_url, folder) == []  # a checkout on Windows is no edit


def test_an_older_release_bears_a_newer_pre_migration(
    owner_url: str, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """A node of the running release that restarts during an upgrade must come up."""
    folder.write("0002_pre_a.sql", TABLE)
    migrate(owner_url, folder)
    folder.remove("0002_pre_a.sql")
    with caplog.at_level(logging.INFO, logger="migrations"):
        assert migrate(owner_url, folder) == []
    assert "0002_pre_a.sql" in caplog.text


def test_an_older_release_refuses_a_newer_post_migration(owner_url: str, folder: Folder) -> None:
    """What it needs may be gone: it must not start and find out request by request."""
    folder.write("0002_post_a.sql", TABLE)
    migrate(owner_url, folder)
    folder.remove("0002_post_a.sql")
    with pytest.raises(errors.PostMigrationUnknown, match=r"0002_post_a\.sql"):
        migrate(owner_url, folder)


def test_a_migration_that_another_of_its_number_overtook_is_refused(owner_url: str, folder: Folder) -> None:
    folder.write("0002_pre_a.sql", TABLE)
    migrate(owner_url, folder)
    folder.remove("0002_pre_a.sql")
    folder.write("0002_pre_other.sql", "SELECT 1;")
    with pytest.raises(errors.OutOfOrder, match=r"0002_pre_other\.sql is missing, 0002_pre_a\.sql is there"):
        migrate(owner_url, folder)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("0003_pre_gap.sql", r"missing before: 0003_pre_gap\.sql"),
        ("0001_pre_twice.sql", r"given twice: 0001_pre_twice\.sql"),
        ("0002_a.sql", r"not of the form: 0002_a\.sql"),
    ],
)
def test_files_out_of_order_are_refused(owner_url: str, folder: Folder, name: str, problem: str) -> None:
    folder.write(name, TABLE)
    with pytest.raises(errors.FilesInvalid, match=problem):
        migrate(owner_url, folder)
    assert rows(owner_url, b"SELECT to_regclass('migrations.applied')") == [(None,)]


def test_an_old_server_is_refused(owner_url: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests have one server only, so the limit is moved instead of the server."""
    monkeypatch.setattr(runner, "SERVER_VERSION_MIN", 990_000)
    with pytest.raises(errors.ServerTooOld, match=r"it is version \d+"):
        migrate(owner_url, folder)


def test_the_packaged_files_are_in_order() -> None:
    """A gap or a double would stop every start."""
    assert [migration.number for migration in files.read(files.packaged())][:1] == [1]
