"""What super admins do across tenants. Whatever they see of one tenant is recorded in that tenant's stream before it is shown, and
what they see of all of them in the platform's."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from api import answers, bodies, cursors, tenants
from api.asked import Sender
from api.rights import may
from api.routes import delete, get, post, put
from commands import looks, tenant_settings
from commands import tenants as commands
from domain import money
from domain.tenants import PLATFORM_ID, Limits, Registration, Status, Tenant
from ledger.caller import Caller
from ledger.store import Receipt
from projections import platform as view

PATH = "/api/v1/platform/tenants"


class TenantListed(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    slug: str
    name: str
    currency: str
    status: str
    inserted_at: datetime
    updated_at: datetime


class TenantSeen(tenants.Tenant, frozen=True, kw_only=True):
    """With the host names that are its own."""

    hosts: list[str]


class TenantBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    slug: str
    name: str
    admin_email: str
    admin_password: str
    admin_name: str = "Admin"
    currency: str = "EUR"


class LimitsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them: what is left out or null is no limit."""

    users: int | None = None
    requests_per_minute: int | None = None
    events_per_day: int | None = None


class SuspensionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str


class HostsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hosts: list[str]


class Hosts(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    hosts: list[str]


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What all tenants sold in a currency. `count` counts sales; `net` = gross − refunded."""

    currency: str
    count: int
    gross: str
    refunded: str
    net: str


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """`tenants` by status, `users` active ones by role. `events` of all streams."""

    tenants: dict[str, int]
    users: dict[str, int]
    volumes: list[Volume]
    lags: Sequence[view.ViewLag]
    events: int


@dataclasses.dataclass
class Look(answers.PublicOperation):
    """A query that is recorded."""

    statuses = (400, 401, 403, 422, 500, 503)
    open_to_all = False
    position_shown = True


class PlatformController(Controller):
    path = "/platform"
    tags = ("platform",)

    @get("/tenants", operation_id="listTenants", operation_class=Look, guards=[may("platform:read")])
    async def index(
        self,
        sender: NamedDependency[Sender],
        limit: Annotated[int, QueryParameter(ge=1, le=cursors.LIMIT_MAX)] = cursors.LIMIT_DEFAULT,
        cursor: FromQuery[str | None] = None,
        status: FromQuery[Status | None] = None,
    ) -> Response[answers.Page[TenantListed]]:
        """All tenants, the oldest first; of one status only, if it is named."""
        after = cursors.decode(cursor)
        seen = await looks.look(PLATFORM_ID, "listTenants", sender.caller, sender.ledger)
        async with sender.parts.platform.connection() as connection:
            found, following = await view.page(connection, after, limit, status=status)
        rows = [TenantListed(**msgspec.structs.asdict(row)) for row in found]
        return answers.page(rows, following, sender.shown(seen.position), 0)

    @post(
        "/tenants",
        operation_id="createTenant",
        operation_class=answers.Command,
        guards=[may("platform:write")],
        dto=bodies.named("tenant", TenantBody),
    )
    async def create(
        self, data: JSONBody[TenantBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[tenants.Tenant]]:
        """A tenant and its first admin, who should change the password. 409 if the slug is taken."""
        command = commands.Create(**msgspec.structs.asdict(data))
        receipt = await commands.create(command, sender.caller, sender.ledger, sender.parts.passwords)
        tenant = receipt.aggregate
        shown = await _position(sender)
        return answers.created(tenants.of(tenant), shown, f"{PATH}/{tenant.id}", version=tenant.version)

    @get(
        "/tenants/{tenant_id:uuid}",
        operation_id="inspectTenant",
        operation_class=Look,
        guards=[may("platform:read")],
    )
    async def show(
        self, tenant_id: FromPath[UUID], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[TenantSeen]]:
        """One tenant. That it was looked at is recorded in its own stream."""
        registration = await sender.ledger.load(Registration, PLATFORM_ID, tenant_id)
        await looks.look(tenant_id, "inspectTenant", sender.caller, sender.ledger)
        tenant = await commands.show(tenant_id, sender.ledger)
        shown = TenantSeen(**msgspec.structs.asdict(tenants.of(tenant)), hosts=registration.hosts)
        return answers.one(shown, await _position(sender), version=tenant.version)

    @put(
        "/tenants/{tenant_id:uuid}/limits",
        operation_id="limitTenant",
        operation_class=answers.Command,
        guards=[may("platform:write")],
        dto=bodies.named("limits", LimitsBody),
    )
    async def limit(
        self, tenant_id: FromPath[UUID], data: JSONBody[LimitsBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[tenants.Tenant]]:
        """How much it may use. What it has already it keeps."""
        command = tenant_settings.Limit(limits=Limits(**msgspec.structs.asdict(data)), version=sender.version)
        receipt = await tenant_settings.limit(command, _there(tenant_id, sender), sender.ledger)
        return await _changed(receipt, "limitTenant", sender)

    @post(
        "/tenants/{tenant_id:uuid}/suspension",
        operation_id="suspendTenant",
        operation_class=answers.Command,
        guards=[may("platform:write")],
        dto=bodies.named("suspension", SuspensionBody),
        status_code=200,
    )
    async def suspend(
        self, tenant_id: FromPath[UUID], data: JSONBody[SuspensionBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[tenants.Tenant]]:
        """No token of the tenant counts any more, within two seconds everywhere, and its feeds end. Its data stay."""
        command = tenant_settings.Suspend(reason=data.reason, version=sender.version)
        receipt = await tenant_settings.suspend(command, _there(tenant_id, sender), sender.ledger)
        return await _changed(receipt, "suspendTenant", sender)

    @delete(
        "/tenants/{tenant_id:uuid}/suspension",
        operation_id="resumeTenant",
        operation_class=answers.Command,
        guards=[may("platform:write")],
    )
    async def resume(self, tenant_id: FromPath[UUID], sender: NamedDependency[Sender]) -> Response[None]:
        """At work again; tokens that have not expired count again. 409 if it was closed."""
        command = tenant_settings.Resume(version=sender.version)
        await tenant_settings.resume(command, _there(tenant_id, sender), sender.ledger)
        return answers.nothing(await _position(sender))

    @put(
        "/tenants/{tenant_id:uuid}/hosts",
        operation_id="changeHosts",
        operation_class=answers.Command,
        guards=[may("platform:write")],
        dto=bodies.named("tenant", HostsBody),
    )
    async def change_hosts(
        self, tenant_id: FromPath[UUID], data: JSONBody[HostsBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[Hosts]]:
        """The host names whose requests are the tenant's: all of them. 409 if one is another tenant's."""
        command = tenant_settings.ChangeHosts(tenant_id=tenant_id, hosts=data.hosts)
        receipt = await tenant_settings.change_hosts(command, sender.caller, sender.ledger)
        hosts = Hosts(tenant_id=tenant_id, hosts=receipt.aggregate.hosts)
        return answers.one(hosts, sender.shown(receipt.position))

    @get("/figures", operation_id="showFigures", operation_class=Look, guards=[may("platform:read")])
    async def figures(self, sender: NamedDependency[Sender]) -> Response[answers.Data[Figures]]:
        """Tenants, users, volumes and lag, of all tenants together."""
        seen = await looks.look(PLATFORM_ID, "showFigures", sender.caller, sender.ledger)
        async with sender.parts.platform.connection() as connection:
            found = await view.figures(connection)
        shown = Figures(
            tenants=found.tenants,
            users=found.users,
            volumes=[_volume(each) for each in found.volumes],
            lags=found.lags,
            events=found.events,
        )
        return answers.one(shown, sender.shown(seen.position))


def _there(tenant_id: UUID, sender: Sender) -> Caller:
    """The super admin, acting in that tenant's stream."""
    return msgspec.structs.replace(sender.caller, tenant_id=tenant_id)


async def _changed(receipt: Receipt[Tenant], what: str, sender: Sender) -> Response[answers.Data[tenants.Tenant]]:
    """The answer shows the tenant: where nothing of the command is in its stream, because it was so already, the look is."""
    tenant = receipt.aggregate
    if tenant.modified_on != receipt.recorded_at:
        await looks.look(tenant.id, what, sender.caller, sender.ledger)
    return answers.one(tenants.of(tenant), await _position(sender), version=tenant.version)


async def _position(sender: Sender) -> int | str:
    """Of the platform's stream: what stands in another one's is no position for a super admin to ask for."""
    return sender.shown((await sender.ledger.head(PLATFORM_ID)).position)


def _volume(found: view.Volume) -> Volume:
    return Volume(
        currency=found.currency,
        count=found.count,
        gross=money.to_text(found.gross_minor, found.currency),
        refunded=money.to_text(found.refunded_minor, found.currency),
        net=money.to_text(found.gross_minor - found.refunded_minor, found.currency),
    )
