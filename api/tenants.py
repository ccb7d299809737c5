"""One's own organisation: what it is, how it shows itself, what it wants."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from api import answers, bodies
from api.accounts import meant_tenant
from api.asked import HttpRequest, Reader, Sender
from api.parts import Parts
from api.rights import Who, may, open_to_all
from api.routes import get, put
from commands import tenant_settings
from commands import tenants as commands
from domain import tenants
from ledger import errors as ledger_errors

BRANDING_CACHED_S = 60


class Branding(msgspec.Struct, frozen=True, kw_only=True):
    """Colours as #rrggbb. `sender_address`: whom mails are from."""

    name: str
    logo_url: str | None
    primary_colour: str | None
    accent_colour: str | None
    sender_address: str | None


class PublicBranding(Branding, frozen=True, kw_only=True):
    """What a sign-in page shows before anybody has logged in."""

    slug: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Null: no limit."""

    users: int | None
    requests_per_minute: int | None
    events_per_day: int | None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """`currency` is what prices are in unless they say otherwise. `status`: active, suspended, closed."""

    id: UUID
    slug: str
    name: str
    currency: str
    flags: list[str]
    branding: Branding
    limits: Limits
    status: str
    registration: str
    second_factor: str
    inserted_at: datetime
    updated_at: datetime


class BrandingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it: what is left out is none. `logo_url` begins with https://."""

    name: str
    logo_url: str | None = None
    primary_colour: str | None = None
    accent_colour: str | None = None
    sender_address: str | None = None


class ConfigurationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. `flags`: the features that are switched on."""

    currency: str
    flags: list[str]


class SignInBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may make an account, and whether an account has to have a second factor."""

    registration: tenants.RegistrationMode
    second_factor: tenants.SecondFactor


class TenantController(Controller):
    path = "/tenants"
    tags = ("tenants",)

    @get("/{tenant_id:uuid}", operation_id="showTenant", operation_class=answers.Query, guards=[may("tenants:read")])
    async def show(self, tenant_id: FromPath[UUID], reader: NamedDependency[Reader]) -> Response[answers.Data[Tenant]]:
        """The caller's own tenant; to every other id the answer is 404."""
        _check(reader.who, tenant_id)
        head = await reader.head()
        tenant = await commands.show(tenant_id, reader.parts.ledger)
        return answers.one(of(tenant), reader.shown(head), version=tenant.version)

    @put(
        "/{tenant_id:uuid}/branding",
        operation_id="brandTenant",
        operation_class=answers.Command,
        guards=[may("tenants:write")],
        dto=bodies.named("branding", BrandingBody),
    )
    async def brand(
        self, tenant_id: FromPath[UUID], data: JSONBody[BrandingBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[Tenant]]:
        """How the tenant shows itself, before log-in and in mails."""
        _check(sender.who, tenant_id)
        wanted = tenants.Branding(**msgspec.structs.asdict(data))
        command = tenant_settings.Brand(branding=wanted, version=sender.version)
        receipt = await tenant_settings.brand(command, sender.caller, sender.ledger)
        return answers.one(of(receipt.aggregate), sender.shown(receipt.position), version=receipt.aggregate.version)

    @put(
        "/{tenant_id:uuid}/configuration",
        operation_id="configureTenant",
        operation_class=answers.Command,
        guards=[may("tenants:write")],
        dto=bodies.named("configuration", ConfigurationBody),
    )
    async def configure(
        self, tenant_id: FromPath[UUID], data: JSONBody[ConfigurationBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[Tenant]]:
        """Currency and features. Prices that there are keep their currency."""
        _check(sender.who, tenant_id)
        command = tenant_settings.Configure(currency=data.currency, flags=data.flags, version=sender.version)
        receipt = await tenant_settings.configure(command, sender.caller, sender.ledger)
        return answers.one(of(receipt.aggregate), sender.shown(receipt.position), version=receipt.aggregate.version)

    @put(
        "/{tenant_id:uuid}/sign-in",
        operation_id="configureSignIn",
        operation_class=answers.Command,
        guards=[may("tenants:write")],
        dto=bodies.named("sign_in", SignInBody),
    )
    async def configure_sign_in(
        self, tenant_id: FromPath[UUID], data: JSONBody[SignInBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[Tenant]]:
        """Who may make an account in one's own tenant, and whether a second factor is needed. It counts from the next log-in on."""
        _check(sender.who, tenant_id)
        command = commands.ConfigureSignIn(
            registration=data.registration, second_factor=data.second_factor, version=sender.version
        )
        receipt = await commands.configure_sign_in(command, sender.caller, sender.ledger)
        tenant = receipt.aggregate
        return answers.one(of(tenant), sender.shown(receipt.position), version=tenant.version)


@get(
    "/tenant/branding",
    operation_id="showBranding",
    operation_class=answers.PublicOperation,
    tags=["tenants"],
    opt=open_to_all("the sign-in page shows it before anybody has logged in"),
)
async def branding(
    request: HttpRequest, parts: NamedDependency[Parts], slug: FromQuery[str | None] = None
) -> Response[answers.Data[PublicBranding]]:
    """How the tenant shows itself that the host name means, or `slug`. 422 if there is none."""
    tenant_id = await meant_tenant.found(slug, request, parts)
    tenant = await commands.show(tenant_id, parts.ledger)
    if tenant.status is tenants.Status.CLOSED:
        raise commands.SlugUnknown(tenant.slug)
    shown = PublicBranding(slug=tenant.slug, **tenant.branding._asdict())
    return Response(
        answers.Data(shown), headers={"Cache-Control": f"public, max-age={BRANDING_CACHED_S}", "Vary": "Host, Origin"}
    )


def of(tenant: tenants.Tenant) -> Tenant:
    return Tenant(
        id=tenant.id,
        slug=tenant.slug,
        name=tenant.name,
        currency=tenant.currency,
        flags=tenant.flags,
        branding=Branding(**tenant.branding._asdict()),
        limits=Limits(**tenant.limits._asdict()),
        status=str(tenant.status),
        registration=tenant.registration,
        second_factor=tenant.second_factor,
        inserted_at=tenant.created_on,
        updated_at=tenant.modified_on,
    )


def _check(who: Who, tenant_id: UUID) -> None:
    """Raises NotFound: of other tenants nothing is said, not even that they are there."""
    if who.tenant_id != tenant_id:
        raise ledger_errors.NotFound("tenant", tenant_id)
