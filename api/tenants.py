"""One's own organisation."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath

from api import answers
from api.asked import Reader
from api.rights import may
from api.routes import get
from commands import tenants as commands
from ledger import errors as ledger_errors


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """`currency` is what prices are in unless they say otherwise."""

    id: UUID
    slug: str
    name: str
    currency: str
    inserted_at: datetime
    updated_at: datetime


class TenantController(Controller):
    path = "/tenants"
    tags = ("tenants",)

    @get("/{tenant_id:uuid}", operation_id="showTenant", operation_class=answers.Query, guards=[may("tenants:read")])
    async def show(self, tenant_id: FromPath[UUID], reader: NamedDependency[Reader]) -> Response[answers.Data[Tenant]]:
        """The caller's own tenant; to every other id the answer is 404."""
        if tenant_id != reader.tenant_id:
            raise ledger_errors.NotFound("tenant", tenant_id)
        head = await reader.head()
        tenant = await commands.show(tenant_id, reader.parts.ledger)
        resource = Tenant(
            id=tenant.id,
            slug=tenant.slug,
            name=tenant.name,
            currency=tenant.currency,
            inserted_at=tenant.created_on,
            updated_at=tenant.modified_on,
        )
        return answers.one(resource, reader.shown(head), version=tenant.version)
