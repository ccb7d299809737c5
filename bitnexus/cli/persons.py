"""`persons erase`."""

from argparse import Namespace
from datetime import datetime
from uuid import UUID

import msgspec
from rich.text import Text

from bitnexus import cli, erasures
from bitnexus.cli import loop, setup
from bitnexus.cli.output import Output
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import privacy, tenants
from ledger import ids
from ledger.caller import Caller
from projections import catalogue, positions

VIEWS_S_MAX = 60.0
"""How long the command waits until no view shows the person any more: milliseconds, unless the views are far behind."""


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """`views`: "forgotten", or "behind" if one had not come to `position` in time and may show the person until it has."""

    tenant: str
    subject_id: UUID
    erased_at: datetime
    position: int
    views: str


def erase(arguments: Namespace, settings: Settings, output: Output) -> int:
    noted = erasures.of(settings).note
    command = privacy.Erase(
        email=None if arguments.email is None else setup.secret(arguments.email),
        buyer_ref=None if arguments.buyer is None else setup.secret(arguments.buyer),
    )

    async def work(parts: Process) -> Erased:
        tenant_id = await tenants.find(arguments.tenant, parts.ledger)
        caller = Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=ids.new_id())
        receipt = await privacy.erase(command, caller, parts.ledger, noted)
        return Erased(
            tenant=arguments.tenant,
            subject_id=receipt.aggregate.subject_id,
            erased_at=receipt.aggregate.created_on,
            position=receipt.position,
            views=await _views(parts, tenant_id, receipt.position),
        )

    # Views forget at once, also where nothing serves that would keep them up.
    found = loop.with_process(settings, output, work, projecting=True)
    shown = f"Erased, as event {found.position:,} of {found.tenant}: what was kept of {found.subject_id} can be read by nobody."
    if found.views == "behind":
        shown += " Views are behind and may show it until they reach that event: see `bitnexus projections list`."
    output.result(found, Text(shown))
    return cli.GOOD


async def _views(parts: Process, tenant_id: UUID, position: int) -> str:
    views = [view.name for view in catalogue.VIEWS if view.erase is not None]
    try:
        await parts.reached.wait(tenant_id, views, position, VIEWS_S_MAX)
    except positions.ViewBehind:
        return "behind"
    return "forgotten"
