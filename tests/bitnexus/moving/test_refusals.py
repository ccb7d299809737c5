"""A tenant moves whole or not at all: what is refused, and who may not ask."""

import io
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from bitnexus import database as connections
from bitnexus.moving import errors, format
from bitnexus.moving import export as exporting
from commands import tenants
from domain.tenants import PLATFORM_ID
from ledger import errors as ledger_errors
from tests.bitnexus.moving.homes import OTHER_MASTER, PASSWORD, PHRASE, Home, Shop, restore_on, rewritten
from tests.world import caller


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
    stored = home.rows("subject_keys", shop.tenant_id, "subject_id, wrapped, master_key_id")
    for subject, wrapped, master_key_id in stored:
        assert subject.bytes in plain
        assert wrapped not in plain
        assert home.master.unwrap(shop.tenant_id, subject, wrapped, master_key_id) not in plain


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
        "restore_releases(%(id)s, '{}', '{}')",
        "restore_keys(%(id)s, '{}', '{}', '')",
        "restore_erased(%(id)s, '{}')",
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


async def test_an_owner_who_is_no_superuser_can_import(home: Home, away: Home, shop: Shop) -> None:
    """Managed databases give nobody a superuser, and under forced row-level security such an owner sees no row itself."""
    name, owner = away.database.name, sql.Identifier(f"{away.database.name}_owner")
    with psycopg.connect(away.database.owner_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(owner))
        try:
            connection.execute(sql.SQL("GRANT bitnexus_writer TO {}").format(owner))
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA ledger TO {}").format(owner))
            connection.execute(sql.SQL("ALTER TABLE ledger.events OWNER TO {}").format(owner))
            url = conninfo.make_conninfo(away.database.owner_url, user=f"{name}_owner", password="x")
            file = home.export(shop.tenant_id, PHRASE)
            with connections.connect_owner(url) as low:
                assert restore_on(low, OTHER_MASTER, file, PHRASE).keys == 3
        finally:
            connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(owner))
            connection.execute(sql.SQL("DROP OWNED BY {}").format(owner))
            connection.execute(sql.SQL("DROP ROLE {}").format(owner))
    assert away.verdict(shop.tenant_id).broken is None


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
