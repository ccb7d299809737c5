"""A person's way into one tenant."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, refusals, tenants, text
from domain.accounts import addresses
from domain.meaning import meaning
from domain.personal import Personal

NAME_LENGTH_MAX = 200


class Role(StrEnum):
    ADMIN = "admin"
    USER = "user"
    AFFILIATE = "affiliate"
    SUPER_ADMIN = "super_admin"


ROLES = tuple(Role)
RUNNING = frozenset({Role.ADMIN, Role.SUPER_ADMIN})
"""The roles without which nobody could run the tenant."""


class RoleUnknown(refusals.Invalid):
    def __init__(self, role: str) -> None:
        super().__init__("The role is not known", role, f"Give one of {', '.join(ROLES)}", field="role")


class RoleNotHere(refusals.Invalid):
    def __init__(self, role: str) -> None:
        super().__init__(
            "The role does not exist in this tenant",
            role,
            f"Super admins are accounts of the tenant {tenants.PLATFORM_SLUG}; give another role",
            field="role",
        )


class LastAdmin(refusals.Conflict):
    def __init__(self, account_id: UUID) -> None:
        super().__init__(
            "This is the last admin of the tenant, and nobody would be left to run it",
            account_id,
            "Let there be another admin first (bitnexus tenants admin), then send the command again",
        )


class Account(aggregates.Aggregate):
    """A person's way into one tenant. The e-mail address is kept normalised; it is how the account is found."""

    TOPIC = "account"

    class Registered(aggregates.Aggregate.Created):
        """A person may log in to the tenant from now on. The hash of the password is not part of it, nor of any event."""

        TOPIC = "account.registered"
        SUBJECT = "originator_id"
        tenant_id: tenants.TenantId
        email: Annotated[Personal[str], meaning("The address under which the account is found, normalised")]
        name: Annotated[Personal[str], meaning("The person's name")]
        role: Annotated[str, meaning(f"What the account may do: {', '.join(ROLES)}")]

    @event(Registered)
    def __init__(self, id: UUID, tenant_id: UUID, email: str, name: str, role: str) -> None:
        self.tenant_id = tenant_id
        self.email = email
        self.name = name
        self.role = role


def register(*, id: UUID, tenant_id: UUID, email: str, name: str, role: str) -> Account:
    """Raises EmailInvalid, TextBlank, TextTooLong, TextForbidden, RoleUnknown, RoleNotHere."""
    if role not in ROLES:
        raise RoleUnknown(role)
    if role == Role.SUPER_ADMIN and tenant_id != tenants.PLATFORM_ID:
        raise RoleNotHere(role)
    return Account(
        id=id,
        tenant_id=tenant_id,
        email=addresses.normalise_email(email),
        name=text.line(name, "name", length_max=NAME_LENGTH_MAX),
        role=str(role),
    )
