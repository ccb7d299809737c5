"""Tenants: make sure of the platform, create one, find one by its slug."""

from uuid import UUID

import msgspec

from commands import accounts as account_commands
from commands import repeats
from commands.passwords import Passwords
from commands.repeats import repeatable
from domain import accounts, refusals, tenants
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt

SLUG = "slug"
"""The kind of reservation, in the platform's tenant, that makes a slug unique; its owner is the tenant."""


BEGIN_MAX = 1_000
"""Events among which a tenant's first account is looked for. Nobody looks so often into one that was not finished."""


class SlugTaken(refusals.Conflict):
    def __init__(self, slug: str) -> None:
        super().__init__("There is a tenant with this slug", slug, "Choose another one", field="slug")


class SlugUnknown(refusals.Invalid):
    def __init__(self, slug: str) -> None:
        super().__init__("There is no tenant with this slug", slug, "Check its spelling", field="tenant")


class Create(msgspec.Struct, frozen=True, kw_only=True):
    slug: str
    name: str
    currency: str
    admin_email: str
    admin_name: str
    admin_password: str


async def ensure_platform(ledger: Ledger) -> None:
    """Let the platform's tenant be there. Doing it again changes nothing: its command id says so across processes, and when
    that is forgotten, a day later, the version of the aggregate."""
    await ledger.open_stream(tenants.PLATFORM_ID)
    await _create_once(tenants.PLATFORM_SLUG, "Platform", "EUR", tenants.PLATFORM_ID, ledger)


async def create(command: Create, caller: Caller, ledger: Ledger, passwords: Passwords) -> Receipt[tenants.Tenant]:
    """The tenant with its first admin. One that was begun and not finished (the process was killed) is finished.

    Raises SlugTaken and what `tenants.create`, `accounts.check_password` and `accounts.register` raise.
    """
    try:
        return await _create(command, caller, ledger, passwords)
    except refusals.Refusal as refused:
        await repeats.before(refused, tenants.Registration, caller, ledger)
        raise  # of a repeat, too: its first sending was not finished, and now cannot be


async def _create(command: Create, caller: Caller, ledger: Ledger, passwords: Passwords) -> Receipt[tenants.Tenant]:
    accounts.check_password(command.admin_password, email=command.admin_email, name=command.admin_name)
    email = accounts.written_email(command.admin_email)
    tenant_id = ids.new_id()
    registration = tenants.register(id=tenant_id, slug=command.slug, name=command.name)
    tenants.create(
        id=tenant_id, slug=command.slug, name=command.name, currency=command.currency
    )  # checks before writing
    accounts.register(id=tenant_id, tenant_id=tenant_id, email=email, name=command.admin_name, role=accounts.Role.ADMIN)
    repeated = False
    try:
        registered = await ledger.append(caller, registration, claims=[Claim(SLUG, command.slug, tenant_id)])
        tenant_id, repeated = registered.aggregate.id, registered.replayed
    except errors.ReservationTaken as taken:
        tenant_id = taken.owner
        if await _is_complete(tenant_id, ledger):
            raise SlugTaken(command.slug) from None
    await ledger.open_stream(tenant_id)
    receipt = await _create_once(command.slug, command.name, command.currency, tenant_id, ledger)
    admin = account_commands.Register(
        email=email, name=command.admin_name, password=command.admin_password, role=accounts.Role.ADMIN
    )
    first = await account_commands.register(admin, _system(tenant_id, b"admin"), ledger, passwords)
    if first.replayed and not repeated:  # somebody else finished it meanwhile: the tenant is theirs
        raise SlugTaken(command.slug)
    return receipt


async def find(slug: str, ledger: Ledger) -> UUID:
    """The tenant's id. Raises SlugUnknown."""
    if slug == tenants.PLATFORM_SLUG:
        return tenants.PLATFORM_ID
    found = await ledger.find(tenants.PLATFORM_ID, SLUG, [slug])
    if slug not in found:
        raise SlugUnknown(slug)
    return found[slug]


class ConfigureSignIn(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: the one that this was decided upon, None if any will do."""

    registration: tenants.RegistrationMode
    second_factor: tenants.SecondFactor
    version: int | None = None


@repeatable(tenants.Tenant)
async def configure_sign_in(command: ConfigureSignIn, caller: Caller, ledger: Ledger) -> Receipt[tenants.Tenant]:
    """Of the caller's tenant. Raises NotFound, VersionConflict."""
    tenant = await show(caller.tenant_id, ledger)
    if command.version is not None and tenant.version != command.version:
        raise errors.VersionConflict(tenant.id)
    tenant.configure_sign_in(command.registration, command.second_factor)
    return await ledger.append(caller, tenant)


async def show(tenant_id: UUID, ledger: Ledger) -> tenants.Tenant:
    """Raises NotFound."""
    return await ledger.load(tenants.Tenant, tenant_id, tenant_id)


async def _create_once(slug: str, name: str, currency: str, tenant_id: UUID, ledger: Ledger) -> Receipt[tenants.Tenant]:
    tenant = tenants.create(id=tenant_id, slug=slug, name=name, currency=currency)
    try:
        return await ledger.append(_system(tenant_id, b"create"), tenant)
    except errors.VersionConflict:  # it was made longer ago than commands are remembered
        made = await ledger.load(tenants.Tenant, tenant_id, tenant_id)
        return Receipt(made, (await ledger.head(tenant_id)).position, made.created_on, True)


async def _is_complete(tenant_id: UUID, ledger: Ledger) -> bool:
    """Whether the tenant has its admin, or had one: before that there is only what the platform recorded of it. Not whether somebody
    can log in: nobody can to a tenant that was imported, and it is whose it is."""
    begin = await ledger.entries(tenant_id, 0, BEGIN_MAX)
    return len(begin) == BEGIN_MAX or any(each.topic == accounts.Account.Registered.TOPIC for each in begin)


def _system(tenant_id: UUID, step: bytes) -> Caller:
    """The system itself; one id for each step of a tenant's making, so that a step is never done twice."""
    return Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=ids.derived_id(tenant_id.bytes, step))
