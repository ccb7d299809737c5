"""Who was erased stays so when an older backup is restored: by the list that lies outside the database."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx
import msgspec
import psycopg
import pytest
from psycopg import sql

from bitnexus import erasures, process, settings
from bitnexus.erasures import Entry, ErasureList
from bitnexus.installation import Installation
from bitnexus.process import Process
from commands import accounts, privacy, transactions
from domain import accounts as domain_accounts
from ledger import codec, ids
from projections import refunds
from tests.bitnexus import commandline
from tests.bitnexus.test_serve import WAIT_S_MAX, serving
from tests.commands.test_privacy import ANN, REFERENCE, refund_unmatched, register
from tests.world import MASTER, Database, World, caller

ONE, TWO = Entry(ids.new_id(), ids.new_id()), Entry(ids.new_id(), ids.new_id())


@pytest.fixture
def listed(tmp_path: Path) -> ErasureList:
    return ErasureList(tmp_path / "elsewhere" / "erasures.jsonl")


async def test_the_list_gives_back_what_was_noted(listed: ErasureList) -> None:
    assert list(listed.entries()) == []
    await listed.note(ONE.tenant_id, ONE.subject_id)
    await listed.note(TWO.tenant_id, TWO.subject_id)
    assert list(listed.entries()) == [ONE, TWO]
    assert listed.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [1, 30, 80])
def test_a_line_that_a_crash_cut_off_spoils_no_other(listed: ErasureList, cut: int) -> None:
    listed.append(ONE)
    listed.path.write_bytes(listed.path.read_bytes() + listed.path.read_bytes()[:cut])
    assert list(listed.entries()) == [ONE]
    listed.append(TWO)
    assert list(listed.entries()) == [ONE, TWO]


def test_a_line_that_lacks_only_its_end_counts(listed: ErasureList) -> None:
    """When in doubt the list forgets."""
    listed.append(ONE)
    listed.path.write_bytes(listed.path.read_bytes()[:-1])
    assert list(listed.entries()) == [ONE]
    listed.append(TWO)
    assert list(listed.entries()) == [ONE, TWO]


def test_a_line_is_on_the_disk_when_the_erasure_begins(listed: ErasureList, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's name too, when it is new: a power cut must not lose it."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(os.readlink(f"/proc/self/fd/{file}"))))
    listed.append(ONE)
    listed.append(TWO)
    assert synced == [listed.path, listed.path.parent, listed.path]


async def test_a_line_waits_for_the_one_that_somebody_else_is_writing(listed: ErasureList) -> None:
    listed.append(ONE)
    with listed.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        written = asyncio.create_task(asyncio.to_thread(listed.append, TWO))
        await asyncio.wait([written], timeout=0.2)
        assert list(listed.entries()) == [ONE]
    await written
    assert list(listed.entries()) == [ONE, TWO]


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b"{}\n",
        b"x" * 5_000,
        b'{"tenant_id":1,"subject_id":2}' + b" " * 90 + b"\n",
        msgspec.json.encode(TWO).replace(b"-", b"?") + b"\n",
        msgspec.json.encode(TWO)[:-1] + b',"name":"Ann"}\n',
    ],
)
def test_what_is_no_erasure_is_not_passed_over(listed: ErasureList, line: bytes) -> None:
    """Serving all the same would show a person who was erased."""
    listed.append(ONE)
    listed.path.write_bytes(listed.path.read_bytes() + line)
    with pytest.raises(erasures.ErasureListUnusable, match="line 2"):
        list(listed.entries())


def test_a_list_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(erasures.ErasureListUnusable, match="cannot be read"):
        list(ErasureList(tmp_path).entries())


def test_who_cannot_be_listed_is_told_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(erasures.ErasureListUnusable, match="nobody is erased"):
        ErasureList(tmp_path / "file" / "erasures.jsonl").append(ONE)


def test_the_list_is_where_the_setting_says(tmp_path: Path) -> None:
    given = {"BITNEXUS_DATA_DIR": str(tmp_path)}
    assert erasures.of(settings.read(given)).path == tmp_path / "erasures.jsonl"
    elsewhere = {**given, "BITNEXUS_ERASURE_LIST": "/mnt/shared/list"}
    assert erasures.of(settings.read(elsewhere)).path == Path("/mnt/shared/list")


async def test_nobody_is_erased_who_could_not_be_listed(world: World, tenant_id: UUID, tmp_path: Path) -> None:
    account = await register(world, tenant_id)
    (tmp_path / "file").write_text("")
    broken = ErasureList(tmp_path / "file" / "list")
    with pytest.raises(privacy.NotNoted):
        await privacy.erase(privacy.Erase(account_id=account.id), caller(tenant_id), world.ledger, broken.note)
    assert (await world.ledger.load(domain_accounts.Account, tenant_id, account.id)).name == ANN.name


@asynccontextmanager
async def restored(server: str, backup: str, database: Database) -> AsyncIterator[Process]:
    """A process on a copy of the database that was made before."""
    with psycopg.connect(server, autocommit=True) as connection:
        names = sql.Identifier(database.name), sql.Identifier(backup)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        connection.execute(sql.SQL("DROP DATABASE {}").format(names[1]))
    async with process.running(Installation(database.app_url, MASTER), projecting=True) as parts:
        yield parts


async def test_a_restored_backup_forgets_again_before_it_serves(
    server: str, database: Database, listed: ErasureList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasures, "ENTRIES_PER_QUERY_MAX", 3)
    backup = f"{database.name}_backup"
    tenant_id = ids.new_id()
    async with process.running(Installation(database.app_url, MASTER), projecting=True) as parts:
        await parts.ledger.open_stream(tenant_id)
        account = (await accounts.register(ANN, caller(tenant_id), parts.ledger, parts.passwords)).aggregate
        bob = accounts.Register(email="bob@example.com", name="Bob", password=ANN.password)
        other = (await accounts.register(bob, caller(tenant_id), parts.ledger, parts.passwords)).aggregate
        await refund_unmatched(parts, tenant_id)  # type: ignore[arg-type]  # it needs a ledger only
        position = (await parts.ledger.head(tenant_id)).position
        await parts.reached.wait(tenant_id, [refunds.NAME], position, 20.0)
    with psycopg.connect(server, autocommit=True) as connection:
        names = sql.Identifier(backup), sql.Identifier(database.name)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    async with process.running(Installation(database.app_url, MASTER), projecting=False) as parts:
        for command in (privacy.Erase(account_id=account.id), privacy.Erase(buyer_ref=REFERENCE)):
            await privacy.erase(command, caller(tenant_id), parts.ledger, listed.note)
    first, second = listed.entries()
    listed.path.unlink()
    for each in (
        ONE,
        first,
        first,
        second,
    ):  # a tenant that is not here; asked for twice; more than are looked up at once
        listed.append(each)
    written = listed.path.read_bytes()

    async with restored(server, backup, database) as parts:
        assert (await parts.ledger.load(domain_accounts.Account, tenant_id, account.id)).name == ANN.name
        done = await asyncio.gather(
            *(erasures.apply(parts, listed) for _ in range(2))
        )  # as two nodes that start at once
        assert max(done) <= 2 <= sum(done)
        assert (await parts.ledger.load(domain_accounts.Account, tenant_id, account.id)).name == codec.ERASED
        assert (await parts.ledger.load(domain_accounts.Account, tenant_id, other.id)).name == "Bob"
        assert await parts.ledger.find(tenant_id, accounts.EMAIL, [account.email]) == {}
        assert await parts.ledger.known_subject(tenant_id, transactions.BUYER, REFERENCE) is None
        async with parts.app.connection() as connection:
            (row,) = (await refunds.page(connection, tenant_id, None, 100)).rows
        assert row.buyer_ref == codec.ERASED
        assert await erasures.apply(parts, listed) == 0
        assert listed.path.read_bytes() == written


def test_a_server_lists_whom_it_erases_and_erases_at_its_start_whom_the_list_names(
    database: Database, listed: ErasureList
) -> None:
    """From the request to the file, and from the file to whoever asks first."""
    bitnexus = commandline.on(database, BITNEXUS_ERASURE_LIST=str(listed.path))
    tenant_id = UUID(commandline.create_shop(bitnexus)["tenant_id"])
    with psycopg.connect(database.owner_url) as owner:
        (admin_id,) = owner.execute("SELECT subject_id FROM ledger.subject_keys").fetchone() or ()
    with (
        serving(bitnexus) as served,
        httpx.Client(base_url=f"{served.url}/api/v1", trust_env=False, timeout=WAIT_S_MAX) as client,
    ):
        ann = {"email": "ann@shop.example", "name": "Ann", "password": "correct horse", "tenant": "shop"}
        session = client.post("/auth/register", json=ann).json()["data"]
        headers = {"Authorization": f"Bearer {session['access_token']}"}
        assert client.post(f"/users/{session['user']['id']}/erasure", headers=headers).status_code == 200
    assert list(listed.entries()) == [Entry(tenant_id, UUID(session["user"]["id"]))]
    listed.append(Entry(tenant_id, admin_id))
    with (
        serving(bitnexus) as served,
        httpx.Client(base_url=f"{served.url}/api/v1", trust_env=False, timeout=WAIT_S_MAX) as client,
    ):
        admin = {"email": "admin@shop.example", "password": "correct horse", "tenant": "shop"}
        assert client.post("/auth/login", json=admin).status_code == 401
