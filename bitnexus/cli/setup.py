"""`migrate` and `tenants create`."""

import sys
from argparse import Namespace

from rich.text import Text

from bitnexus import cli, installation
from bitnexus.cli import loop
from bitnexus.cli.output import Output, table
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import tenants
from domain.tenants import PLATFORM_ID
from ledger import ids
from ledger.caller import Caller

PASSWORD_LINE_MAX = 1_024
"""Characters read from standard input; a password has 256 at the most."""


def migrate(arguments: Namespace, settings: Settings, output: Output) -> int:
    with installation.opened(settings, output.say, migrate=True) as base:
        applied = base.migrated
    shown = "Applied: " + ", ".join(applied) if applied else "Nothing to apply: the database is up to date."
    output.result({"applied": applied}, Text(shown))
    return cli.GOOD


def secret(given: str) -> str:
    """What was given, or for `-` the line on standard input."""
    return sys.stdin.readline(PASSWORD_LINE_MAX).rstrip("\r\n") if given == "-" else given


def create_tenant(arguments: Namespace, settings: Settings, output: Output) -> int:
    password = secret(arguments.admin_password)
    command = tenants.Create(
        slug=arguments.slug,
        name=arguments.name,
        currency=arguments.currency,
        admin_email=arguments.admin_email,
        admin_name=arguments.admin_name,
        admin_password=password,
    )

    async def create(parts: Process) -> tuple[str, int]:
        await tenants.ensure_platform(parts.ledger)
        caller = Caller(tenant_id=PLATFORM_ID, actor_id=None, role="system", command_id=ids.new_id())
        receipt = await tenants.create(command, caller, parts.ledger, parts.passwords)
        return str(receipt.aggregate.id), receipt.position

    tenant_id, _ = loop.with_process(settings, output, create)
    document = {
        "tenant_id": tenant_id,
        "slug": command.slug,
        "name": command.name,
        "currency": command.currency,
        "admin_email": command.admin_email,
    }
    made = table("tenant", "name", "currency", "admin", "id")
    made.add_row(command.slug, command.name, command.currency, command.admin_email, tenant_id)
    output.result(document, made)
    return cli.GOOD
