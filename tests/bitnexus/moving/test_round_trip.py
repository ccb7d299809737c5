"""A tenant moves to another installation, whole."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from bitnexus.moving import format, passphrase, restore
from bitnexus.process import Process
from commands import accounts, admins, privacy, products, tenants, transactions
from domain.accounts import Account
from domain.tenants import PLATFORM_ID
from domain.transactions import Transaction
from ledger.codec import ERASED
from ledger.store import Claim
from projections import catalogue as view_catalogue
from tests.bitnexus.moving.homes import OTHER_MASTER, PASSWORD, PHRASE, SCRYPT_N, TABLES, Home, Shop, rewritten
from tests.world import MASTER, Database, caller


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


@pytest.mark.parametrize("events_per_batch", [1, 1_000])
async def test_an_address_that_was_changed_is_free_there_too(
    home: Home,
    new_database: Callable[[], AbstractContextManager[Database]],
    parts: Process,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    events_per_batch: int,
) -> None:
    """Ann gave hers up and Bob took it: the import must neither stumble nor give it back to Ann."""
    monkeypatch.setattr(restore, "EVENTS_PER_BATCH_MAX", events_per_batch)
    ledger, tenant_id = parts.ledger, shop.tenant_id
    ann = await ledger.load(Account, tenant_id, shop.account_id)
    old = ann.email
    ann.change_email("Ann@New.example")
    claims = [[Claim(accounts.EMAIL, each, ann.id)] for each in ("ann@new.example", old)]
    await ledger.append(caller(tenant_id), ann, claims=claims[0], releases=claims[1])
    bob = accounts.Register(email=old, name="Bob", password=PASSWORD)
    await accounts.register(bob, caller(tenant_id), ledger, parts.passwords)
    with new_database() as database:
        away = Home(database, MASTER)
        async with away.running() as there:
            await tenants.ensure_platform(there.ledger)
        away.restore(home.export(tenant_id, PHRASE), PHRASE)
        columns = TABLES["reservations"]
        assert away.rows("reservations", tenant_id, columns) == home.rows("reservations", tenant_id, columns)


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


async def test_an_erasure_in_the_stream_holds_at_the_new_home_too(home: Home, away: Home, shop: Shop) -> None:
    """The tombstone is what keeps every process from making the person a new key."""
    async with home.running() as parts:
        erase = privacy.Erase(subject_id=shop.account_id)  # by its name the last admin could not be erased
        await privacy.erase(erase, caller(shop.tenant_id), parts.ledger, privacy.noted_nowhere)
    restored = away.restore(home.export(shop.tenant_id, PHRASE), PHRASE)
    assert (restored.keys, restored.keys_refused) == (2, 0)
    assert away.rows("erased_subjects", shop.tenant_id, "subject_id") == [(shop.account_id,)]
    async with away.running() as parts:
        assert (await parts.ledger.load(Account, shop.tenant_id, shop.account_id)).email == ERASED
        again = privacy.Erase(account_id=shop.account_id)
        await privacy.erase(again, caller(shop.tenant_id), parts.ledger, privacy.noted_nowhere)
    assert away.verdict(shop.tenant_id).events == restored.position


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


async def test_the_reader_in_the_documentation_verifies_a_file(home: Home, shop: Shop, tmp_path: Path) -> None:
    """An auditor without our code has the same answer; the page says the format that is written."""
    page = (Path(__file__).parents[3] / "docs/tenant-files.md").read_text()
    reader = page.split("```python\n")[1].split("```")[0]
    path = tmp_path / "shop.tenant"
    path.write_bytes(home.export(shop.tenant_id, PHRASE))
    done = _read(reader, path)
    head = home.verdict(shop.tenant_id)
    assert (done.stdout, done.stderr) == (f"{head.events} {head.hash.hex()}\n", "")
    path.write_bytes(rewritten(home.export(shop.tenant_id), lambda number, tail: tail.replace(b"MUG", b"JUG")))
    assert _read(reader, path).returncode == 1


def _read(reader: str, path: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", reader, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_the_page_names_the_bounds_of_the_format() -> None:
    page = (Path(__file__).parents[3] / "docs/tenant-files.md").read_text()
    for number in (format.BLOCK_BYTES_MAX, format.BLOCK_BYTES):
        assert f"{number:,}" in page
    assert f"N = 2^{SCRYPT_N.bit_length() - 1}" in page
    assert f"at least {passphrase.LENGTH_MIN}" in page
