"""The view `tenants`: one row in each tenant's own rows, of which the platform makes its list (`projections.platform`)."""

from collections.abc import Sequence
from typing import Any, LiteralString

from domain.tenants import Status, Tenant
from ledger import read
from projections import changes, failures
from projections.columns import Int8s, Texts, Times, Uuids
from projections.view import Batch, Cursor, Table, View

NAME = "tenants"

INSERT: LiteralString = """
INSERT INTO views.tenants (tenant_id, generation, id, slug, name, currency, status, inserted_at, updated_at, position)
SELECT %b, %b, x.id, x.slug, x.name, x.currency, 'active', x.at, x.at, x.position
FROM unnest(%b, %b, %b, %b, %b, %b) AS x (id, slug, name, currency, at, position)
ON CONFLICT (tenant_id, generation, id) DO NOTHING
"""

# NULL leaves a column as it is. The guard on position makes a repeat harmless.
UPDATE_CHANGED: LiteralString = """
UPDATE views.tenants p
SET name = coalesce(x.name, p.name), currency = coalesce(x.currency, p.currency), status = coalesce(x.status, p.status),
    updated_at = x.at, position = x.position
FROM unnest(%b, %b, %b, %b, %b, %b) AS x (id, name, currency, status, at, position)
WHERE p.tenant_id = %b AND p.generation = %b AND p.id = x.id AND p.position < x.position
"""

_STATUSES = {Tenant.Suspended: Status.SUSPENDED, Tenant.Resumed: Status.ACTIVE, Tenant.Closed: Status.CLOSED}


async def project(batch: Batch, cursor: Cursor) -> None:
    """The tenant by one statement; what happened to it by another one, folded to one change."""
    if created := batch.of(Tenant.Created):
        await cursor.execute(INSERT, _created_columns(batch, created), prepare=True)
    if changed := batch.by_originator(Tenant.Branded, Tenant.Configured, *_STATUSES):
        columns = changes.columns(changed, _said, "name", "currency", "status")
        await cursor.execute(UPDATE_CHANGED, [*columns, batch.tenant_id, batch.generation], prepare=True)


def _created_columns(batch: Batch, created: Sequence[read.Recorded]) -> list[object]:
    events = [recorded.event for recorded in created]
    return [
        batch.tenant_id,
        batch.generation,
        Uuids.of([event.originator_id for event in events]),
        Texts.of([event.slug for event in events]),
        Texts.of([event.name for event in events]),
        Texts.of([event.currency for event in events]),
        Times.of([recorded.recorded_at for recorded in created]),
        Int8s.of([recorded.position for recorded in created]),
    ]


def _said(event: Any) -> dict[str, str]:
    match event:
        case Tenant.Branded():
            return {"name": event.name}
        case Tenant.Configured():
            return {"currency": event.currency}
        case _:
            return {"status": _STATUSES[type(event)]}


VIEW = View(
    name=NAME,
    version=1,
    tables=(Table(name="tenants", key=("id",)),),
    topics=(
        Tenant.Created,
        Tenant.Branded,
        Tenant.Configured,
        Tenant.Suspended,
        Tenant.Resumed,
        Tenant.Closed,
    ),
    project=project,
    on_failure=failures.park_after(failures.ATTEMPTS),
    commutes=True,
)
