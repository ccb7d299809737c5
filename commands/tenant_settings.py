"""What a tenant decides about itself, and what the platform decides about it: branding, configuration, limits, host names; suspended,
resumed, closed."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from commands.repeats import repeatable
from domain import refusals
from domain.tenants import PLATFORM_ID, Branding, Limits, Registration, Tenant, checked_host
from ledger import errors
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt

HOST = "host"
"""The kind of reservation, in the platform's tenant, that makes a host name one tenant's, its owner."""


class HostTaken(refusals.Conflict):
    def __init__(self, hosts: Sequence[str]) -> None:
        super().__init__(
            "A host name is another tenant's", ", ".join(hosts), "Take it away from that one first", field="hosts"
        )


class PlatformStays(refusals.Conflict):
    def __init__(self) -> None:
        super().__init__("The platform's own tenant cannot be suspended or limited", PLATFORM_ID, "Name another one")


class Brand(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `version`: the one that this was decided upon, None if any will do; the same in the others."""

    branding: Branding
    version: int | None = None


class Configure(msgspec.Struct, frozen=True, kw_only=True):
    currency: str
    flags: Sequence[str]
    version: int | None = None


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    limits: Limits
    version: int | None = None


class Suspend(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    version: int | None = None


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    version: int | None = None


class Close(msgspec.Struct, frozen=True, kw_only=True):
    version: int | None = None


class ChangeHosts(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    hosts: Sequence[str]


@repeatable(Tenant)
async def brand(command: Brand, caller: Caller, ledger: Ledger) -> Receipt[Tenant]:
    """Of the caller's tenant, as all of these but `change_hosts`. Raises VersionConflict and what `Tenant.brand` raises."""
    tenant = await _load(command.version, caller, ledger)
    tenant.brand(command.branding)
    return await ledger.append(caller, tenant)


@repeatable(Tenant)
async def configure(command: Configure, caller: Caller, ledger: Ledger) -> Receipt[Tenant]:
    """Raises VersionConflict and what `Tenant.configure` raises."""
    tenant = await _load(command.version, caller, ledger)
    tenant.configure(command.currency, command.flags)
    return await ledger.append(caller, tenant)


@repeatable(Tenant)
async def limit(command: Limit, caller: Caller, ledger: Ledger) -> Receipt[Tenant]:
    """Raises PlatformStays, NotFound, TenantUnknown, VersionConflict and what `Tenant.limit` raises."""
    if (
        caller.tenant_id == PLATFORM_ID and command.limits != Limits()
    ):  # no super admin could lift it: all are its callers
        raise PlatformStays
    tenant = await _load(command.version, caller, ledger)
    tenant.limit(command.limits)
    return await ledger.append(caller, tenant)


@repeatable(Tenant)
async def suspend(command: Suspend, caller: Caller, ledger: Ledger) -> Receipt[Tenant]:
    """No token of the tenant counts any more, within two seconds everywhere, and its feeds end; its data stay.

    Raises PlatformStays, NotFound, TenantUnknown, TenantClosed, VersionConflict and what a reason may be refused for.
    """
    if caller.tenant_id == PLATFORM_ID:
        raise PlatformStays
    tenant = await _load(command.version, caller, ledger)
    tenant.suspend(command.reason)
    return await ledger.append(caller, tenant, revokes=[tenant.id])


@repeatable(Tenant)
async def resume(command: Resume, caller: Caller, ledger: Ledger) -> Receipt[Tenant]:
    """The tokens that have not expired count again. Raises NotFound, TenantUnknown, TenantClosed, VersionConflict."""
    tenant = await _load(command.version, caller, ledger)
    tenant.resume()
    return await ledger.append(caller, tenant, restores=[tenant.id])


@repeatable(Tenant)
async def close(command: Close, caller: Caller, ledger: Ledger) -> Receipt[Tenant]:
    """For good; its slug and its host names stay taken. Raises NotFound, TenantUnknown, TenantNotSuspended, VersionConflict."""
    tenant = await _load(command.version, caller, ledger)
    tenant.close()
    return await ledger.append(caller, tenant, revokes=[tenant.id])


@repeatable(Registration)
async def change_hosts(command: ChangeHosts, caller: Caller, ledger: Ledger) -> Receipt[Registration]:
    """All of them: those that are left out are anybody's again. The caller's tenant is the platform.

    Raises NotFound, HostTaken, SettingInvalid, VersionConflict.
    """
    registration = await ledger.load(Registration, PLATFORM_ID, command.tenant_id)
    before = set(registration.hosts)
    registration.change_hosts(command.hosts)
    after = set(registration.hosts)
    try:
        return await ledger.append(
            caller,
            registration,
            claims=[Claim(HOST, host, registration.id) for host in sorted(after - before)],
            releases=[Claim(HOST, host, registration.id) for host in sorted(before - after)],
        )
    except errors.ReservationTaken:
        raise HostTaken(sorted(after - before)) from None


async def of_host(host: str, ledger: Ledger) -> UUID | None:
    """The tenant that the host name (without a port) was given to."""
    try:
        normal = checked_host(host)
    except refusals.Invalid:
        return None
    return (await ledger.find(PLATFORM_ID, HOST, [normal])).get(normal)


async def check_open(tenant_id: UUID, ledger: Ledger) -> None:
    """Whether anybody may log in to the tenant. Raises TenantSuspended, TenantClosed, NotFound."""
    (await ledger.load(Tenant, tenant_id, tenant_id)).check_open()


async def _load(version: int | None, caller: Caller, ledger: Ledger) -> Tenant:
    tenant = await ledger.load(Tenant, caller.tenant_id, caller.tenant_id)
    if version is not None and tenant.version != version:
        raise errors.VersionConflict(tenant.id)
    return tenant
