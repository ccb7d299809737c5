"""`tenants suspend`, `tenants resume` and `tenants close`."""

from argparse import Namespace
from collections.abc import Awaitable, Callable

from rich.text import Text

from bitnexus import cli
from bitnexus.cli import loop, moving
from bitnexus.cli.output import Output
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import tenant_settings, tenants
from domain.tenants import Tenant
from ledger import ids
from ledger.caller import Caller
from ledger.store import Ledger, Receipt

Decided = Callable[[Caller, Ledger], Awaitable[Receipt[Tenant]]]


def suspend(arguments: Namespace, settings: Settings, output: Output) -> int:
    command = tenant_settings.Suspend(reason=arguments.reason)
    found = _decide(arguments.slug, settings, output, lambda *about: tenant_settings.suspend(command, *about))
    return _told(found, output, "Suspended: within two seconds no token counts any more. Its data stay.")


def resume(arguments: Namespace, settings: Settings, output: Output) -> int:
    command = tenant_settings.Resume()
    found = _decide(arguments.slug, settings, output, lambda *about: tenant_settings.resume(command, *about))
    return _told(found, output, "At work again.")


def close(arguments: Namespace, settings: Settings, output: Output) -> int:
    """Suspended first, so that the export has all; closed only if it was written."""
    before = tenant_settings.Suspend(reason=arguments.reason)
    _decide(arguments.slug, settings, output, lambda *about: tenant_settings.suspend(before, *about))
    exported = moving.exporting_to(arguments, settings, output)
    if exported is None:
        return cli.FINDING
    document, shown = exported
    command = tenant_settings.Close()
    closed = _decide(arguments.slug, settings, output, lambda *about: tenant_settings.close(command, *about))
    output.result({**document, "status": str(closed.status)}, shown, Text("Closed for good; its export is complete."))
    return cli.GOOD


def _decide(slug: str, settings: Settings, output: Output, decided: Decided) -> Tenant:
    async def work(parts: Process) -> Tenant:
        tenant_id = await tenants.find(slug, parts.ledger)
        caller = Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=ids.new_id())
        return (await decided(caller, parts.ledger)).aggregate

    return loop.with_process(settings, output, work)


def _told(tenant: Tenant, output: Output, shown: str) -> int:
    output.result({"tenant_id": str(tenant.id), "slug": tenant.slug, "status": str(tenant.status)}, Text(shown))
    return cli.GOOD
