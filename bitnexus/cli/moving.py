"""`tenants export`, `tenants import`, `tenants admin` and `platform admin`."""

from argparse import Namespace
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.table import Table
from rich.text import Text

from bitnexus import cli, database, erasures, installation
from bitnexus.cli import loop, setup
from bitnexus.cli.output import Output, table
from bitnexus.moving import errors, passphrase
from bitnexus.moving import export as exporting
from bitnexus.moving import restore as restoring
from bitnexus.process import Process, running
from bitnexus.settings import Settings
from commands import admins, exports, tenants
from domain import catalogue
from domain.accounts import Role
from domain.tenants import PLATFORM_ID, PLATFORM_SLUG, Registration
from ledger import ids
from ledger.caller import Caller
from ledger.codec import Codec


class PassphraseNeeded(loop.InputWrong):
    def __init__(self, given: str, missing: str) -> None:
        super().__init__("Keys travel under a passphrase only", f"{given} without {missing}", "Give both or neither")


class KeysContradictory(loop.InputWrong):
    def __init__(self) -> None:
        super().__init__(
            "A passphrase opens keys that are not wanted", "--passphrase with --without-keys", "Give one of them"
        )


def export(arguments: Namespace, settings: Settings, output: Output) -> int:
    """A broken chain is a finding."""
    exported = exporting_to(arguments, settings, output)
    if exported is None:
        return cli.FINDING
    output.result(*exported)
    return cli.GOOD


def exporting_to(arguments: Namespace, settings: Settings, output: Output) -> tuple[dict[str, Any], Table] | None:
    """What became of the export, for programs and for people; None if the chain is broken, which was told."""
    phrase = _export_passphrase(arguments)
    path: Path = arguments.file

    async def begin(base: installation.Installation) -> tuple[UUID, str]:
        async with running(base, projecting=False) as parts:
            tenant_id = await tenants.find(arguments.slug, parts.ledger)
            if tenant_id == PLATFORM_ID:
                raise errors.PlatformStays(arguments.slug)
            caller = Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=ids.new_id())
            await exports.of_tenant(caller, parts.ledger, with_keys=phrase is not None)
            return tenant_id, (await parts.ledger.load(Registration, PLATFORM_ID, tenant_id)).name

    with installation.opened(settings, output.say) as base:
        locked = None if phrase is None else exporting.Locked(base.master, phrase)
        try:
            with (
                exporting.new_file(path) as file,
                database.connect_sync(base.app_url, "projector") as connection,
                output.progress() as bars,
            ):
                tenant_id, name = loop.run(begin(base))
                exported = exporting.export(
                    connection,
                    tenant_id,
                    arguments.slug,
                    name,
                    file,
                    locked,
                    lambda events, all: bars.move(arguments.slug, events, all),
                )
        except errors.StreamBroken as error:
            output.error(str(error))
            return None
    size = path.stat().st_size
    made = table("tenant", "events", "keys", "bytes", "hash", right=("events", "keys", "bytes"))
    made.add_row(exported.slug, f"{exported.position:,}", f"{exported.keys:,}", f"{size:,}", exported.hash)
    document = {
        "tenant_id": exported.tenant_id,
        "slug": exported.slug,
        "file": str(path),
        "bytes": size,
        "events": exported.position,
        "hash": exported.hash,
        "with_keys": locked is not None,
        "keys": exported.keys,
    }
    return document, made


def import_tenant(arguments: Namespace, settings: Settings, output: Output) -> int:
    path: Path = arguments.file
    if arguments.passphrase is not None and arguments.without_keys:
        raise KeysContradictory
    phrase = None if arguments.passphrase is None else setup.secret(arguments.passphrase)
    try:
        file = path.open("rb")
    except OSError as error:
        raise errors.FileUnusable(path, error) from None
    with file, installation.opened(settings, output.say) as base:
        if base.owner_url is None:
            raise errors.OwnerUnknown
        erasure_list = erasures.of(settings)
        listed = {(entry.tenant_id, entry.subject_id) for entry in erasure_list.entries()}
        loop.run(_platform(base))
        with database.connect_owner(base.owner_url) as connection, output.progress() as bars:
            how = restoring.Restoring(
                master=base.master,
                codec=Codec(catalogue.AGGREGATES),
                passphrase=phrase,
                without_keys=arguments.without_keys,
                erased=lambda tenant_id, subject_id: (tenant_id, subject_id) in listed,
                progress=lambda events, all: bars.move(path.name, events, all),
            )
            try:
                restored = restoring.restore(connection, file, how)
            except OSError as error:
                raise errors.FileUnusable(path, error) from None
        if any(tenant_id == restored.tenant_id for tenant_id, _ in listed):
            loop.run(_erase_again(base, erasure_list))
    numbers = ("events", "keys", "keys refused", "reservations")
    made = table("tenant", *numbers, "hash", right=numbers)
    counts = (restored.position, restored.keys, restored.keys_refused, restored.reservations)
    made.add_row(restored.slug, *(f"{count:,}" for count in counts), restored.hash)
    output.result({"file": str(path), "imported": restored}, made, Text(_next(restored)))
    return cli.GOOD


def appoint(arguments: Namespace, settings: Settings, output: Output) -> int:
    return _appoint(arguments, arguments.slug, Role.ADMIN, settings, output)


def appoint_super_admin(arguments: Namespace, settings: Settings, output: Output) -> int:
    return _appoint(arguments, PLATFORM_SLUG, Role.SUPER_ADMIN, settings, output)


def _appoint(arguments: Namespace, slug: str, role: Role, settings: Settings, output: Output) -> int:
    command = admins.Appoint(
        email=arguments.admin_email,
        name=arguments.admin_name,
        password=setup.secret(arguments.admin_password),
        role=role,
    )

    async def work(parts: Process) -> admins.Appointed:
        await tenants.ensure_platform(parts.ledger)
        tenant_id = await tenants.find(slug, parts.ledger)
        caller = Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=ids.new_id())
        return await admins.appoint(command, caller, parts.ledger, parts.passwords)

    appointed = loop.with_process(settings, output, work)
    account = appointed.receipt.aggregate
    document = {
        "tenant": slug,
        "admin_id": account.id,
        "admin_email": account.email,
        "new_account": appointed.new_account,
    }
    made = table("tenant", "admin", "account", "id")
    made.add_row(slug, account.email, "new" if appointed.new_account else "new password", str(account.id))
    output.result(document, made)
    return cli.GOOD


def _export_passphrase(arguments: Namespace) -> str | None:
    if arguments.with_keys and arguments.passphrase is None:
        raise PassphraseNeeded("--with-keys", "--passphrase")
    if arguments.passphrase is None:
        return None
    if not arguments.with_keys:
        raise PassphraseNeeded("--passphrase", "--with-keys")
    return passphrase.checked(setup.secret(arguments.passphrase))


async def _platform(base: installation.Installation) -> None:
    """Let the platform be there: the tenant is registered on its stream."""
    async with running(base, projecting=False) as parts:
        await tenants.ensure_platform(parts.ledger)


async def _erase_again(base: installation.Installation, erasure_list: erasures.ErasureList) -> None:
    """Those of the list whose erasure the file is older than: their keys were refused, here it is recorded why."""
    async with running(base, projecting=True) as parts:
        await erasures.apply(parts, erasure_list)


def _next(restored: restoring.Restored) -> str:
    """What is left to do: no password travels."""
    return (
        "Nobody can log in yet, passwords do not travel. Let an admin in:\n"
        f"bitnexus tenants admin {restored.slug} --admin-email E --admin-password -"
    )
