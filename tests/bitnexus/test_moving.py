"""A tenant moves to another installation, whole or not at all."""

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg import Connection
from psycopg.rows import TupleRow

from bitnexus import database as connections
from bitnexus import installation, process
from bitnexus.moving import errors, format, passphrase
from bitnexus.moving import export as exporting
from bitnexus.moving import restore as restoring
from bitnexus.process import Process
from commands import accounts, admins, products, tenants, transactions
from domain import catalogue
from domain.accounts import Account
from domain.tenants import PLATFORM_ID
from domain.transactions import Transaction
from ledger import errors as ledger_errors
from ledger import verify
from ledger.codec import ERASED, Codec
from ledger.keys import MasterKey
from projections import catalogue as view_catalogue
from tests.world import MASTER, Database, caller

CODEC = Codec(catalogue.AGGREGATES)
OTHER_MASTER = MasterKey(bytes(range(32, 64)))
PHRASE = "correct horse battery"
PASSWORD = "a good password"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

# In the order of their tables' keys; what the platform has is not the tenant's.
TABLES = {
    "events": "position, originator_id, originator_version, topic, recorded_at, state, metadata, hash",
    "heads": "position, hash, recorded_at",
    "reservations": "kind, key, owner",
    "subjects": "kind, ref, subject_id",
}
ALL_TABLES = (*TABLES, "subject_keys", "secrets", "commands")


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of everything else must not spend their time on it."""
    monkeypatch.setattr(passphrase, "SCRYPT_N", 16)


@dataclass(frozen=True)
class Shop:
    """A tenant at its first home."""

    tenant_id: UUID
    account_id: UUID
    sale_id: UUID
    buyer_id: UUID  # the subject that "17850" names


@dataclass(frozen=True)
class Home:
    """An installation: a database and a master key."""

    database: Database
    master: MasterKey

    def running(self, *, projecting: bool = False) -> AbstractAsyncContextManager[Process]:
        base = installation.Installation(self.database.app_url, self.master, [], self.database.owner_url)
        return process.running(base, projecting=projecting)

    def owner(self) -> AbstractContextManager[Connection[TupleRow]]:
        return connections.connect_owner(self.database.owner_url)

    def rows(self, table: str, tenant_id: UUID, columns: str = "count(*)") -> list[Any]:
        with psycopg.connect(self.database.owner_url) as connection:
            order = columns if columns != "count(*)" else "1"
            query = f"SELECT {columns} FROM ledger.{table} WHERE tenant_id = %s ORDER BY {order}"
            return connection.execute(query.encode(), [tenant_id]).fetchall()

    def holds(self, tenant_id: UUID) -> dict[str, int]:
        """Rows of the tenant by table; those without are left out."""
        counts = {table: self.rows(table, tenant_id)[0][0] for table in ALL_TABLES}
        return {table: count for table, count in counts.items() if count}

    def views(self, tenant_id: UUID) -> dict[str, list[Any]]:
        """All rows of the tenant, as text, by table."""
        with psycopg.connect(self.database.owner_url) as connection:
            return {
                table: connection.execute(
                    f"SELECT v::text FROM views.{table} v WHERE tenant_id = %s ORDER BY 1".encode(), [tenant_id]
                ).fetchall()
                for table in ("products", "transactions", "refunds", "sales_by_day")
            }

    def export(self, tenant_id: UUID, phrase: str | None = None) -> bytes:
        file = io.BytesIO()
        locked = None if phrase is None else exporting.Locked(self.master, phrase)
        with connections.connect_sync(self.database.app_url, "projector") as connection:
            exporting.export(connection, tenant_id, "shop", "The Shop", file, locked)
        return file.getvalue()

    def restore(self, file: bytes, phrase: str | None = None, **how: Any) -> restoring.Restored:
        with self.owner() as connection:
            return restore_on(connection, self.master, file, phrase, **how)

    def verdict(self, tenant_id: UUID) -> verify.Verdict:
        with connections.connect_sync(self.database.app_url, "projector") as connection:
            return verify.verify(connection, tenant_id)


def restore_on(
    connection: Connection[TupleRow], master: MasterKey, file: bytes, phrase: str | None = None, **how: Any
) -> restoring.Restored:
    asked = restoring.Restoring(master=master, codec=CODEC, passphrase=phrase, **how)
    return restoring.restore(connection, io.BytesIO(file), asked)


@pytest.fixture
def home(database: Database) -> Home:
    return Home(database, MASTER)


@pytest.fixture
def away(new_database: Callable[[], AbstractContextManager[Database]]) -> Iterator[Home]:
    """Another installation, with another master key and its platform."""
    with new_database() as database:
        home = Home(database, OTHER_MASTER)

        async def begin() -> None:
            async with home.running() as parts:
                await tenants.ensure_platform(parts.ledger)

        asyncio.run(begin())
        yield home


@pytest_asyncio.fixture
async def parts(home: Home) -> AsyncIterator[Process]:
    async with home.running() as parts:
        yield parts


@pytest_asyncio.fixture
async def shop(parts: Process) -> Shop:
    """Something of everything that reserves, names a person or is a secret."""
    ledger = parts.ledger
    await tenants.ensure_platform(ledger)
    create = tenants.Create(
        slug="shop",
        name="The Shop",
        currency="EUR",
        admin_email="ann@shop.example",
        admin_name="Ann",
        admin_password=PASSWORD,
    )
    made = await tenants.create(create, caller(PLATFORM_ID), ledger, parts.passwords)
    tenant_id = made.aggregate.id
    account_id = (await ledger.find(tenant_id, accounts.EMAIL, ["ann@shop.example"]))["ann@shop.example"]
    for sku in ("MUG", "LAMP"):
        product = products.ListProduct(sku=sku, name=sku.title(), price=Decimal("9.50"))
        await products.list_product(product, caller(tenant_id), ledger)
    mug = transactions.LineOrdered(sku="MUG", quantity=3)
    sale = transactions.Record(
        lines=[mug], sets_prices=False, buyer_ref="17850", source="till", external_id="1", occurred_at=NOW
    )
    recorded = await transactions.record(sale, caller(tenant_id), ledger)
    again = transactions.Record(lines=[mug], sets_prices=False, buyer_ref="17850", occurred_at=NOW)
    await transactions.record(again, caller(tenant_id), ledger)
    refund = transactions.Refund(
        transaction_id=recorded.aggregate.id,
        lines=[transactions.RefundLineOrdered(line_id=1, quantity=1)],
        source="till",
        external_id="2",
        occurred_at=NOW,
    )
    await transactions.refund(refund, caller(tenant_id), ledger)
    unmatched = transactions.RecordRefund(
        lines=[transactions.LineOrdered(sku="GONE", quantity=1, unit_price=Decimal(2))],
        currency="EUR",
        buyer_ref="12345",
        source="till",
        external_id="3",
        occurred_at=NOW,
    )
    await transactions.record_refund(unmatched, caller(tenant_id), ledger)
    buyer_id = await ledger.subject(tenant_id, transactions.BUYER, "17850")
    return Shop(tenant_id, account_id, recorded.aggregate.id, buyer_id)


# Round trips


async def test_a_tenant_arrives_with_every_byte_of_its_stream_and_its_persons(
    home: Home, away: Home, shop: Shop
) -> None:
    """Positions, times and hashes are what auditors and receipts name: none of them may change on the way."""
    restored = away.restore(home.export(shop.tenant_id, PHRASE), PHRASE)
    events = home.rows("events", shop.tenant_id, TABLES["events"])
    assert away.rows("events", shop.tenant_id, TABLES["events"]) == events
    assert away.rows("heads", shop.tenant_id, TABLES["heads"]) == home.rows("heads", shop.tenant_id, TABLES["heads"])
    assert (restored.position, restored.hash) == (len(events), events[-1][-1].hex())
    assert away.verdict(shop.tenant_id).broken is None
    assert (restored.keys, restored.subjects, restored.reservations) == (3, 2, 6)
    async with away.running() as parts:
        assert await tenants.find("shop", parts.ledger) == shop.tenant_id
        account = await parts.ledger.load(Account, shop.tenant_id, shop.account_id)
        assert (account.email, account.name) == ("ann@shop.example", "Ann")
        assert (await parts.ledger.load(Transaction, shop.tenant_id, shop.sale_id)).buyer_ref == "17850"
    wrapped = away.rows("subject_keys", shop.tenant_id, "subject_id, master_key_id")
    assert {key_id for _, key_id in wrapped} == {OTHER_MASTER.id}
    assert [subject for subject, _ in wrapped] == [
        row[0] for row in home.rows("subject_keys", shop.tenant_id, "subject_id")
    ]


async def test_what_the_tenant_reserved_is_reserved_again(
    home: Home, new_database: Callable[[], AbstractContextManager[Database]], shop: Shop
) -> None:
    """Under the same master key the rows have to be the very same, so no command's claim was forgotten."""
    with new_database() as database:
        away = Home(database, MASTER)
        async with away.running() as parts:
            await tenants.ensure_platform(parts.ledger)
        away.restore(home.export(shop.tenant_id, PHRASE), PHRASE)
        for table in ("reservations", "subjects"):
            there = away.rows(table, shop.tenant_id, TABLES[table])
            assert there == home.rows(table, shop.tenant_id, TABLES[table])
            assert there != []


async def test_the_tenant_goes_on_under_its_new_master_key(home: Home, away: Home, shop: Shop) -> None:
    """What was unique stays unique, a known buyer is the same person, and the chain is continued."""
    away.restore(home.export(shop.tenant_id, PHRASE), PHRASE)
    async with away.running() as parts:
        ledger = parts.ledger
        mug = products.ListProduct(sku="MUG", name="Mug", price=Decimal(1))
        with pytest.raises(products.SkuTaken):
            await products.list_product(mug, caller(shop.tenant_id), ledger)
        line = transactions.LineOrdered(sku="LAMP", quantity=1)
        for external_id in ("1", "2", "3"):
            sale = transactions.Record(lines=[line], sets_prices=False, source="till", external_id=external_id)
            with pytest.raises(transactions.ExternalIdTaken):
                await transactions.record(sale, caller(shop.tenant_id), ledger)
        new = transactions.Record(lines=[line], sets_prices=False, buyer_ref="17850", source="till", external_id="4")
        sold = await transactions.record(new, caller(shop.tenant_id), ledger)
        assert sold.aggregate.buyer_subject_id == shop.buyer_id
    assert away.verdict(shop.tenant_id).broken is None
    assert away.verdict(shop.tenant_id).events == sold.position
    assert away.verdict(PLATFORM_ID).broken is None


async def test_the_views_are_filled_from_the_stream(home: Home, away: Home, shop: Shop) -> None:
    """Views do not travel: the runner fills them here, with the same rows, times included."""
    away.restore(home.export(shop.tenant_id, PHRASE), PHRASE)
    views = {}
    for place in (home, away):
        async with place.running(projecting=True) as parts:
            position = (await parts.ledger.head(shop.tenant_id)).position
            await parts.reached.wait(shop.tenant_id, [view.name for view in view_catalogue.VIEWS], position, 20)
        views[place.master.id] = place.views(shop.tenant_id)
    assert views[home.master.id] == views[away.master.id]
    assert all(rows != [] for rows in views[home.master.id].values())


async def test_without_keys_persons_read_as_erased_and_all_else_is_there(home: Home, away: Home, shop: Shop) -> None:
    restored = away.restore(home.export(shop.tenant_id))
    assert (restored.keys, restored.subjects, restored.reservations) == (0, 0, 5)  # no e-mail address
    assert away.rows("subject_keys", shop.tenant_id) == [(0,)]
    async with away.running() as parts:
        assert (await parts.ledger.load(Account, shop.tenant_id, shop.account_id)).email == ERASED
        sale = await parts.ledger.load(Transaction, shop.tenant_id, shop.sale_id)
        assert (sale.buyer_ref, sale.amount_minor, sale.refunded_minor) == (ERASED, 2850, 950)


async def test_keys_in_the_file_can_be_left_out(home: Home, away: Home, shop: Shop) -> None:
    restored = away.restore(home.export(shop.tenant_id, PHRASE), without_keys=True)
    assert (restored.keys, restored.keys_left, restored.subjects) == (0, 3, 0)
    assert away.rows("subject_keys", shop.tenant_id) == [(0,)]


async def test_a_person_who_was_erased_does_not_come_back_with_an_old_file(home: Home, away: Home, shop: Shop) -> None:
    """Their key is refused, and with it what could only be derived by it: the address is free again."""
    asked: set[UUID] = set()

    def erased(tenant_id: UUID, subject_id: UUID) -> bool:
        assert tenant_id == shop.tenant_id
        asked.add(subject_id)
        return subject_id == shop.account_id

    restored = away.restore(home.export(shop.tenant_id, PHRASE), PHRASE, erased=erased)
    assert (restored.keys, restored.keys_refused) == (2, 1)
    assert asked >= {shop.account_id, shop.buyer_id}
    async with away.running() as parts:
        assert (await parts.ledger.load(Account, shop.tenant_id, shop.account_id)).email == ERASED
        assert await parts.ledger.find(shop.tenant_id, accounts.EMAIL, ["ann@shop.example"]) == {}
        assert (await parts.ledger.load(Transaction, shop.tenant_id, shop.sale_id)).buyer_ref == "17850"


async def test_no_password_travels_and_an_admin_is_let_in_again(home: Home, away: Home, shop: Shop) -> None:
    away.restore(home.export(shop.tenant_id, PHRASE), PHRASE)
    assert away.rows("secrets", shop.tenant_id) == [(0,)]
    async with away.running() as parts:
        log_in = accounts.LogIn(email="ann@shop.example", password=PASSWORD)
        with pytest.raises(accounts.CredentialsWrong):
            await accounts.log_in(log_in, caller(shop.tenant_id), parts.ledger, parts.passwords)
        appoint = admins.Appoint(email="Ann@Shop.example", name="", password=PASSWORD)
        appointed = await admins.appoint(appoint, caller(shop.tenant_id), parts.ledger, parts.passwords)
        assert (appointed.new_account, appointed.receipt.aggregate.id) == (False, shop.account_id)
        logged_in = await accounts.log_in(log_in, caller(shop.tenant_id), parts.ledger, parts.passwords)
        assert logged_in.account.id == shop.account_id
        register = accounts.Register(email="u@shop.example", name="U", password=PASSWORD)
        await accounts.register(register, caller(shop.tenant_id), parts.ledger, parts.passwords)
        appoint = admins.Appoint(email="u@shop.example", name="", password=PASSWORD)
        with pytest.raises(admins.NotAnAdmin):
            await admins.appoint(appoint, caller(shop.tenant_id), parts.ledger, parts.passwords)


# What is refused


async def test_no_byte_of_a_file_can_be_changed(home: Home, away: Home, shop: Shop) -> None:
    """Header, framing, keys, events, trailer, digest: whichever byte it is, the import refuses and leaves nothing."""
    file = home.export(shop.tenant_id, PHRASE)
    assert len(file) < 10_000
    platform = away.holds(PLATFORM_ID)
    with away.owner() as connection:
        for offset in range(len(file)):
            changed = bytearray(file)
            changed[offset] ^= 1 << offset % 8
            with pytest.raises((errors.MovingError, ledger_errors.LedgerError)):
                restore_on(connection, OTHER_MASTER, bytes(changed), PHRASE)
        assert away.holds(shop.tenant_id) == {}
        assert away.holds(PLATFORM_ID) == platform
        assert restore_on(connection, OTHER_MASTER, file, PHRASE).position == 8


async def test_no_file_is_too_short_or_too_long(home: Home, away: Home, shop: Shop) -> None:
    """A copy that was cut off, or went on, is not the tenant."""
    file = home.export(shop.tenant_id)
    with away.owner() as connection:
        for length in range(0, len(file), 7):
            with pytest.raises(errors.MovingError):
                restore_on(connection, OTHER_MASTER, file[:length])
        for changed in (file[:-1], file + b"\0", file + file):
            with pytest.raises(errors.FileDamaged):
                restore_on(connection, OTHER_MASTER, changed)
    assert away.holds(shop.tenant_id) == {}


def rewritten(file: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """The file with events changed, and every length, checksum and digest put right again: a forger's work."""
    reader = format.Reader(io.BytesIO(file))
    out = io.BytesIO()
    writer = format.Writer(out)
    writer.header(reader.header)
    number = 0
    for _, block in reader.blocks():
        for row in reader.rows(block):
            number += 1
            writer.event(change(number, row.tail), row.hash)
    writer.end(bytes.fromhex(reader.end().hash))
    return out.getvalue()


async def test_a_forger_who_puts_all_checksums_right_is_stopped_by_the_chain(
    home: Home, away: Home, shop: Shop
) -> None:
    file = home.export(shop.tenant_id)
    assert rewritten(file, lambda number, tail: tail)[-32:] == file[-32:]
    forged = rewritten(file, lambda number, tail: tail.replace(b'"9.50"', b'"0.50"') if number == 3 else tail)
    with pytest.raises(errors.FileDamaged, match="the event at position 3 says its hash is"):
        away.restore(forged)
    assert away.holds(shop.tenant_id) == {}


async def test_a_tenant_that_is_there_is_not_touched(home: Home, away: Home, shop: Shop) -> None:
    file = home.export(shop.tenant_id, PHRASE)
    away.restore(file, PHRASE)
    before = away.holds(shop.tenant_id)
    for target in (away, home):
        with pytest.raises(errors.TenantExists):
            target.restore(file, PHRASE)
    assert away.holds(shop.tenant_id) == before


async def test_a_slug_that_another_tenant_has_is_refused(home: Home, away: Home, shop: Shop) -> None:
    async with away.running() as parts:
        create = tenants.Create(
            slug="shop", name="S", currency="EUR", admin_email="a@b.example", admin_name="A", admin_password=PASSWORD
        )
        await tenants.create(create, caller(PLATFORM_ID), parts.ledger, parts.passwords)
    with pytest.raises(tenants.SlugTaken):
        away.restore(home.export(shop.tenant_id))
    assert away.holds(shop.tenant_id) == {}


async def test_the_passphrase_decides(home: Home, away: Home, shop: Shop) -> None:
    file = home.export(shop.tenant_id, PHRASE)
    with pytest.raises(errors.PassphraseWrong):
        away.restore(file, "incorrect horse")
    with pytest.raises(errors.PassphraseMissing):
        away.restore(file)
    with pytest.raises(errors.KeysAbsent):
        away.restore(home.export(shop.tenant_id), PHRASE)
    with pytest.raises(errors.PassphraseTooShort):
        home.export(shop.tenant_id, "short")
    assert away.holds(shop.tenant_id) == {}


async def test_a_key_in_a_file_is_of_no_use_without_the_passphrase(home: Home, shop: Shop) -> None:
    """Neither the keys nor what they are wrapped by at home are in the file."""
    file = home.export(shop.tenant_id, PHRASE)
    reader = format.Reader(io.BytesIO(file))
    plain = b"".join(block for _, block in reader.blocks())
    stored = home.rows("subject_keys", shop.tenant_id, "subject_id, wrapped")
    for subject, wrapped in stored:
        assert subject.bytes in plain
        assert wrapped not in plain
        assert home.master.unwrap(shop.tenant_id, subject, wrapped) not in plain


async def test_a_broken_chain_is_not_exported(home: Home, shop: Shop) -> None:
    with psycopg.connect(home.database.owner_url) as connection:
        connection.execute(
            "UPDATE ledger.events SET metadata = set_byte(metadata, 20, 65) WHERE tenant_id = %s AND position = 4",
            [shop.tenant_id],
        )
    with pytest.raises(errors.StreamBroken, match="position 4"):
        home.export(shop.tenant_id)


def test_a_file_that_fails_half_way_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "shop.tenant"
    with pytest.raises(ZeroDivisionError), exporting.new_file(path) as file:
        file.write(b"half" * (1 // 0))
    assert list(tmp_path.iterdir()) == []
    with exporting.new_file(path) as file:
        file.write(b"whole")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"whole", 0o600)
    with pytest.raises(errors.FileExists), exporting.new_file(path):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["shop.tenant"]


# Rights


@pytest.mark.parametrize("role", ["app", "projector", "platform"])
def test_no_role_of_a_process_can_import(home: Home, role: connections.Role) -> None:
    """Whoever takes over a process can still choose neither a time nor a hash."""
    calls = {
        "restoring(%(id)s)",
        "restore_begin(%(id)s)",
        "restore_events(%(id)s, '{}', '{}', '{}', '{}', '{}', '{}')",
        "restore_reservations(%(id)s, '{}', '{}', '{}')",
        "restore_subjects(%(id)s, '{}', '{}', '{}')",
        "restore_keys(%(id)s, '{}', '{}', '')",
        "restored_keys(%(id)s, '{}')",
        "restore_finish(%(id)s, 1, '')",
    }
    with home.owner() as owner:
        named = owner.execute(
            "SELECT proname FROM pg_proc WHERE proname ~ '^restor' AND pronamespace = 'ledger'::regnamespace"
        )
        assert {name for (name,) in named} == {call.split("(")[0] for call in calls}
    with connections.connect_sync(home.database.app_url, role) as connection:
        for call in calls:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT ledger.{call}".encode(), {"id": uuid.uuid4()})


async def test_not_even_the_owner_can_add_to_a_tenant_that_is_in_use(home: Home, shop: Shop) -> None:
    """A mistake must not write into a live stream: only the transaction that began the tenant can."""
    with home.owner() as connection:
        for call in ("restored_keys(%s, '{}')", "restore_finish(%s, 1, '')", "restore_keys(%s, '{}', '{}', '')"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                connection.execute(f"SELECT ledger.{call}".encode(), [shop.tenant_id])
        assert connection.execute("SELECT ledger.restore_begin(%s)", [shop.tenant_id]).fetchone() == (False,)


async def test_nobody_sees_an_import_before_it_is_verified(home: Home, away: Home, shop: Shop) -> None:
    """The progress is told in the middle of it: then no reader finds the tenant, and no second import gets through."""
    file = home.export(shop.tenant_id)
    seen: list[Any] = []

    def look(events: int, all: int) -> None:
        seen.append((events, all, away.holds(shop.tenant_id)))
        with pytest.raises(ledger_errors.TenantBusy):
            away.restore(file)

    away.restore(file, progress=look)
    assert seen == [(8, 8, {})]
    assert away.holds(shop.tenant_id)["events"] == 8
