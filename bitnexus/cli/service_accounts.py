"""`service-accounts create|list|close`."""

from argparse import Namespace
from typing import Any

from rich.text import Text

from api import roles
from bitnexus import cli
from bitnexus.cli import loop
from bitnexus.cli.output import Output, table
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import service_accounts, tenants
from domain.accounts import Role
from domain.service_accounts import ServiceAccount
from domain.tenants import PLATFORM_ID
from ledger import ids
from ledger.caller import Caller


def create(arguments: Namespace, settings: Settings, output: Output) -> int:
    """The operator gives what the tenant's admins could."""

    async def work(parts: Process) -> service_accounts.Made:
        caller = await _caller(arguments.tenant, parts)
        role = Role.SUPER_ADMIN if caller.tenant_id == PLATFORM_ID else Role.ADMIN
        command = service_accounts.Create(
            name=arguments.name, scopes=arguments.scope, may_give=roles.RIGHTS[role] & roles.SCOPES
        )
        return await service_accounts.make(command, caller, parts.ledger)

    made = loop.with_process(settings, output, work)
    account = made.receipt.aggregate
    document = {**_document(account), "key_id": str(made.key_id), "key": made.key}
    output.result(document, Text(f"The key of {account.name} ({account.id}), shown this once:\n{made.key}"))
    return cli.GOOD


def show(arguments: Namespace, settings: Settings, output: Output) -> int:
    async def work(parts: Process) -> list[ServiceAccount]:
        tenant_id = await tenants.find(arguments.tenant, parts.ledger)
        ids = await service_accounts.all_ids(tenant_id, parts.ledger)
        return list((await parts.ledger.load_many(ServiceAccount, tenant_id, ids)).values())

    found = loop.with_process(settings, output, work)
    shown = table("service account", "scopes", "keys", "id")
    for account in found:
        shown.add_row(account.name, ", ".join(account.scopes), str(len(account.keys)), str(account.id))
    output.result({"service_accounts": [_document(account) for account in found]}, shown)
    return cli.GOOD


def close(arguments: Namespace, settings: Settings, output: Output) -> int:
    async def work(parts: Process) -> ServiceAccount:
        caller = await _caller(arguments.tenant, parts)
        command = service_accounts.Close(account_id=arguments.id)
        return (await service_accounts.close(command, caller, parts.ledger)).aggregate

    closed = loop.with_process(settings, output, work)
    output.result(_document(closed), Text(f"Closed: no key of {closed.name} counts any more, within two seconds."))
    return cli.GOOD


async def _caller(slug: str, parts: Process) -> Caller:
    tenant_id = await tenants.find(slug, parts.ledger)
    return Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=ids.new_id())


def _document(account: ServiceAccount) -> dict[str, Any]:
    return {
        "service_account_id": str(account.id),
        "name": account.name,
        "scopes": account.scopes,
        "keys": [str(key) for key in account.keys],
        "closed": account.closed,
    }
