"""`tenants export`, `import` and `admin` as somebody at a shell has them: exit codes, documents, being killed, memory."""

import base64
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from bitnexus.moving import format
from ledger import ids
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.world import Database

OTHER_KEY = base64.b64encode(bytes(range(32, 64))).decode()
PHRASE = "correct horse battery"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAIT_S_MAX = 30.0
GROWTH_KIB_MAX = 10 * 1024
"""What the largest file may need beyond a small one: less than half of it compressed, a sixth of it as it is."""
TABLES = ("heads", "events", "reservations", "subjects", "subject_keys", "secrets", "commands")


@pytest.fixture
def bitnexus(database: Database) -> CommandLine:
    return commandline.on(database)


@pytest.fixture
def elsewhere(new_database: Callable[[], AbstractContextManager[Database]]) -> Iterator[Database]:
    with new_database() as database:
        yield database


@pytest.fixture
def other(elsewhere: Database) -> CommandLine:
    """The command line of another installation."""
    return CommandLine(DATABASE_URL=elsewhere.owner_url, BITNEXUS_MASTER_KEY=OTHER_KEY)


def holds(database: Database, tenant_id: UUID) -> int:
    """Rows of the tenant in all tables."""
    counts = " + ".join(f"(SELECT count(*) FROM ledger.{table} WHERE tenant_id = %(tenant)s)" for table in TABLES)
    with psycopg.connect(database.owner_url) as connection:
        row = connection.execute(f"SELECT {counts}".encode(), {"tenant": tenant_id}).fetchone()
    assert row is not None
    return int(row[0])


def _synthetic(tenant_id: UUID, events: int, slug: str) -> Iterator[tuple[bytes, bytes]]:
    """The same events whenever they are asked for, each with its hash: a product that is renamed over and over."""
    chance, product_id = random.Random(events), UUID(int=events)
    chained = format.Chain(tenant_id)
    state = json.dumps({"slug": slug, "name": "Big", "currency": "EUR"}).encode()
    tail = format.tail(tenant_id, 1, NOW, "tenant.created", state, b"{}")
    for version in range(1, events + 1):
        hash = format.leaf_hash(chained.hash, tenant_id, version, tail)
        assert chained.step(tail, hash) is None
        yield tail, hash
        state = json.dumps({"name": f"Mug {version}"}).encode()
        metadata = json.dumps({"event_id": chance.randbytes(200).hex()}).encode()
        tail = format.tail(product_id, version, NOW, "product.renamed", state, metadata)


def write_synthetic(path: Path, events: int, slug: str = "big") -> UUID:
    """A tenant's file, about 0.6 kB an event, hardly compressible. The tenant's id."""
    tenant_id = ids.new_id()
    for _, hash in _synthetic(tenant_id, events, slug):
        head = hash
    header = format.Header(
        tenant_id=tenant_id,
        slug=slug,
        name="Big",
        position=events,
        hash=head.hex(),
        exported_at=NOW,
        release="0",
        salt=None,
    )
    with path.open("wb") as file:
        writer = format.Writer(file)
        writer.header(header)
        for tail, hash in _synthetic(tenant_id, events, slug):
            writer.event(tail, hash)
        writer.end(head)
    return tenant_id


# What is told, and how it ends


def test_a_tenant_moves_with_its_persons(bitnexus: CommandLine, other: CommandLine, tmp_path: Path) -> None:
    """Both ends name the same hash, a replay gives the same state, and what was imported before is known again."""
    tenant_id = commandline.create_shop(bitnexus)["tenant_id"]
    bitnexus.good("import", "retail", commandline.SAMPLE, "--tenant", "shop")
    path = tmp_path / "shop.tenant"
    exported = bitnexus.good("tenants", "export", "shop", path, "--with-keys", "--passphrase", PHRASE)
    assert exported["tenant_id"] == tenant_id
    assert (exported["with_keys"], exported["bytes"]) == (True, path.stat().st_size)
    assert path.stat().st_mode & 0o777 == 0o600
    imported = other.good("tenants", "import", path, "--passphrase", PHRASE)["imported"]
    assert (imported["tenant_id"], imported["slug"]) == (tenant_id, "shop")
    for name in ("hash", "keys"):
        assert imported[name] == exported[name]
    assert imported["position"] == exported["events"]
    assert (imported["keys_refused"], imported["keys_left"]) == (0, 0)
    verified = other.good("audit", "verify", "--tenant", "shop")["tenants"]
    assert [(each["verdict"], each["hash"]) for each in verified] == [("good", exported["hash"])]
    replays = [line.good("audit", "replay", "--tenant", "shop") for line in (bitnexus, other)]
    assert replays[0] == replays[1]
    appointed = other.good(
        "tenants", "admin", "shop", "--admin-email", "admin@shop.example", "--admin-password", "new password"
    )
    assert appointed["new_account"] is False
    again = other.good("import", "retail", commandline.SAMPLE, "--tenant", "shop")
    assert (again["added"]["transactions"], again["added"]["refunds"], again["added"]["products"]) == (0, 0, 0)


def test_who_is_on_the_list_of_erasures_is_forgotten_here_too(
    bitnexus: CommandLine, elsewhere: Database, database: Database, tmp_path: Path
) -> None:
    """The file is older than the erasure: the key is refused, and the erasure recorded before anybody serves."""
    tenant_id = commandline.create_shop(bitnexus)["tenant_id"]
    path, erasures = tmp_path / "shop.tenant", tmp_path / "erasures.jsonl"
    exported = bitnexus.good("tenants", "export", "shop", path, "--with-keys", "--passphrase", PHRASE)
    with psycopg.connect(database.owner_url) as connection:
        row = connection.execute(
            "SELECT subject_id FROM ledger.subject_keys WHERE tenant_id = %s", [tenant_id]
        ).fetchone()
    assert row is not None
    erasures.write_text(f'{{"tenant_id":"{tenant_id}","subject_id":"{row[0]}"}}\n')
    other = CommandLine(
        DATABASE_URL=elsewhere.owner_url, BITNEXUS_MASTER_KEY=OTHER_KEY, BITNEXUS_ERASURE_LIST=str(erasures)
    )
    imported = other.good("tenants", "import", path, "--passphrase", PHRASE)["imported"]
    assert (imported["keys"], imported["keys_refused"]) == (0, 1)
    with psycopg.connect(elsewhere.owner_url) as connection:
        gone = connection.execute("SELECT subject_id FROM ledger.erased_subjects WHERE tenant_id = %s", [tenant_id])
        assert gone.fetchall() == [row]
    verified = other.good("audit", "verify", "--tenant", "shop")["tenants"]
    assert [(each["verdict"], each["events"]) for each in verified] == [("good", exported["events"] + 1)]


def test_what_a_person_reads(bitnexus: CommandLine, other: CommandLine, tmp_path: Path) -> None:
    commandline.create_shop(bitnexus)
    path = tmp_path / "shop.tenant"
    exported = bitnexus("tenants", "export", "shop", path)
    assert (exported.code, exported.err) == (0, "")
    imported = other("tenants", "import", path)
    assert imported.code == 0
    assert "bitnexus tenants admin shop --admin-email E --admin-password -" in imported.out
    admin = other(
        *("tenants", "admin", "shop", "--admin-email", "new@shop.example", "--admin-password", "-"),
        stdin="read from here\n",
    )
    assert admin.code == 0
    assert "new@shop.example" in admin.out


def test_what_goes_wrong_is_told_and_ends_with_2(
    bitnexus: CommandLine, other: CommandLine, elsewhere: Database, tmp_path: Path
) -> None:
    tenant_id = UUID(commandline.create_shop(bitnexus)["tenant_id"])
    path = tmp_path / "shop.tenant"
    locked = tmp_path / "locked.tenant"
    bitnexus.good("tenants", "export", "shop", path)
    bitnexus.good("tenants", "export", "shop", locked, "--with-keys", "--passphrase", PHRASE)
    damaged = tmp_path / "damaged.tenant"
    damaged.write_bytes(path.read_bytes()[:-1] + b"\0")

    def refused(line: CommandLine, says: str, *words: object) -> None:
        run = line("tenants", *words, "--json")
        assert run.code == 2, run.err
        assert says in run.json["error"]
        assert "Traceback" not in run.err

    refused(bitnexus, "There is a file of this name already", "export", "shop", path)
    refused(bitnexus, "There is no tenant with this slug: 'nobody'", "export", "nobody", tmp_path / "new")
    refused(bitnexus, "platform's own tenant cannot be moved", "export", "platform", tmp_path / "new")
    refused(bitnexus, "--with-keys without --passphrase", "export", "shop", tmp_path / "new", "--with-keys")
    refused(bitnexus, "--passphrase without --with-keys", "export", "shop", tmp_path / "new", "--passphrase", PHRASE)
    refused(bitnexus, "No such file or directory", "export", "shop", tmp_path / "no" / "folder")
    refused(bitnexus, f"The tenant is here already: {tenant_id}", "import", path)
    refused(other, "No such file or directory", "import", tmp_path / "none")
    refused(other, "Is a directory", "import", tmp_path)
    refused(other, "The file is damaged", "import", damaged)
    refused(other, "This is no tenant's file", "import", commandline.SAMPLE)
    refused(other, "The passphrase is missing", "import", locked)
    refused(other, "does not open the file's keys", "import", locked, "--passphrase", "incorrect horse")
    refused(other, "--passphrase with --without-keys", "import", locked, "--passphrase", PHRASE, "--without-keys")
    refused(other, "holds no keys of persons", "import", path, "--passphrase", PHRASE)
    refused(
        other,
        "There is no tenant with this slug",
        "admin",
        "shop",
        "--admin-email",
        "a@b.c",
        "--admin-password",
        PHRASE,
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["damaged.tenant", "locked.tenant", "shop.tenant"]
    assert holds(elsewhere, tenant_id) == 0


def test_a_broken_chain_is_a_finding_and_ends_with_1(bitnexus: CommandLine, database: Database, tmp_path: Path) -> None:
    tenant_id = commandline.create_shop(bitnexus)["tenant_id"]
    with psycopg.connect(database.owner_url) as connection:
        connection.execute("DELETE FROM ledger.events WHERE tenant_id = %s AND position = 1", [tenant_id])
    run = bitnexus("tenants", "export", "shop", tmp_path / "shop.tenant")
    assert run.code == 1
    assert "The tenant's chain is broken" in run.err
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_the_owners_url_cannot_import(bitnexus: CommandLine, database: Database, tmp_path: Path) -> None:
    commandline.create_shop(bitnexus)
    path = tmp_path / "shop.tenant"
    bitnexus.good("tenants", "export", "shop", path)
    node = CommandLine(DATABASE_APP_URL=database.app_url, BITNEXUS_MASTER_KEY=commandline.MASTER_KEY)
    run = node("tenants", "import", path)
    assert run.code == 2
    assert "DATABASE_URL is not set" in run.err


# Killed, and large


def _until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_import_killed_in_the_middle_leaves_nothing_and_can_be_begun_again(
    other: CommandLine, elsewhere: Database, tmp_path: Path
) -> None:
    """It is fed through a pipe that stops short of the end, so that it is known to be in the middle."""
    assert other("projections", "list").code == 0  # the master key's id is known from now on
    path, pipe = tmp_path / "big.tenant", tmp_path / "pipe"
    tenant_id = write_synthetic(path, 3_000)
    os.mkfifo(pipe)
    running = other.start("tenants", "import", pipe)
    with psycopg.connect(elsewhere.owner_url, autocommit=True) as connection, pipe.open("wb", buffering=0) as feed:

        def value(query: str) -> Any:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return row[0]

        before = value("SELECT pg_relation_size('ledger.events')")
        feed.write(path.read_bytes()[:-100])
        _until(lambda: value("SELECT pg_relation_size('ledger.events')") > before + 500_000)
        assert holds(elsewhere, tenant_id) == 0
        running.kill()
        running.communicate()
        owners = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bitnexus owner'"
        _until(lambda: value(owners) == 0)
    assert holds(elsewhere, tenant_id) == 0
    assert other("tenants", "admin", "big", "--admin-email", "a@b.example", "--admin-password", PHRASE).code == 2
    assert other.good("tenants", "import", path)["imported"]["position"] == 3_000


LAUNCHER = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def _peak_kib(line: CommandLine, *words: object) -> int:
    """The most memory that the command had, in KiB. Started by a small process: a child's peak counts what its parent had."""
    command = [sys.executable, "-c", LAUNCHER, *commandline.COMMAND, *map(str, words)]
    done = subprocess.run(
        command, env=line.environment, capture_output=True, text=True, timeout=commandline.TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_does_not_grow_with_the_stream(other: CommandLine, elsewhere: Database, tmp_path: Path) -> None:
    """100,000 events are 60 MB here; a tenant may have ten million. Neither way may take more than two batches of them."""
    sizes = {"small": 2_500, "big": 100_000}
    assert other("projections", "list").code == 0
    import_kib, export_kib = {}, {}
    for slug, events in sizes.items():
        file, again = tmp_path / f"{slug}.tenant", tmp_path / f"{slug}.again"
        tenant_id = write_synthetic(file, events, slug)
        import_kib[slug] = _peak_kib(other, "tenants", "import", file)
        assert holds(elsewhere, tenant_id) == events + 1
        export_kib[slug] = _peak_kib(other, "tenants", "export", slug, again)
        assert abs(again.stat().st_size - file.stat().st_size) < 1_000
    assert file.stat().st_size > 20_000_000
    for peaks in (import_kib, export_kib):
        assert peaks["big"] - peaks["small"] < GROWTH_KIB_MAX, peaks
