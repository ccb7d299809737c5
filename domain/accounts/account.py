"""A person's way into one tenant."""

from enum import StrEnum
from typing import Annotated, Any
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


class Status(StrEnum):
    """What became of an account. `ERASED` is told of whose person was forgotten."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    ERASED = "erased"


ROLES = tuple(Role)
RUNNING = frozenset({Role.ADMIN, Role.SUPER_ADMIN})
"""The roles without which nobody could run the tenant."""


class PasswordSet(StrEnum):
    """How a password came to be another one."""

    CHANGED = "changed"  # by who knew the one before
    RESET = "reset"  # by who received the mail
    APPOINTED = "appointed"  # by the operator, for an admin


class RoleUnknown(refusals.Invalid):
    def __init__(self, role: str) -> None:
        super().__init__("The role is not known", role, f"Give one of {', '.join(ROLES)}", field="role")


class RoleNotHere(refusals.Invalid):
    def __init__(self, role: str) -> None:
        super().__init__(
            "The role does not exist in this tenant",
            role,
            f"Super admins are accounts of the tenant {tenants.PLATFORM_SLUG}, and admins of every other one; give another role",
            field="role",
        )


class LastAdmin(refusals.Conflict):
    def __init__(self, account_id: UUID) -> None:
        super().__init__(
            "This is the last admin of the tenant, and nobody would be left to run it",
            account_id,
            "Let there be another admin first (bitnexus tenants admin), then send the command again",
        )


class AccountDeactivated(refusals.Conflict):
    def __init__(self, account_id: UUID) -> None:
        super().__init__("The account has been deactivated", account_id, "Reactivate it first")


class Account(aggregates.Aggregate):
    """A person's way into one tenant."""

    TOPIC = "account"

    class Registered(aggregates.Aggregate.Created):
        """A person may log in to the tenant from now on. The hash of the password is not part of it, nor of any event."""

        TOPIC = "account.registered"
        SUBJECT = "originator_id"
        class_version = 2
        tenant_id: tenants.TenantId
        email: Annotated[
            Personal[str],
            meaning("The address as the person wrote it; until version 2 as it is looked up, in small letters"),
        ]
        name: Annotated[Personal[str], meaning("The person's name")]
        role: Annotated[str, meaning(f"What the account may do: {', '.join(ROLES)}")]

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """What was kept normalised is a way to write the address, too: nothing to change."""

    class Renamed(aggregates.Aggregate.Event):
        """The person is called otherwise."""

        TOPIC = "account.renamed"
        SUBJECT = "originator_id"
        name: Annotated[Personal[str], meaning("The person's name")]

    class RoleChanged(aggregates.Aggregate.Event):
        """The account may do other things from now on. The sessions that it had are over."""

        TOPIC = "account.role_changed"
        role: Annotated[str, meaning(f"What the account may do: {', '.join(ROLES)}")]

    class Deactivated(aggregates.Aggregate.Event):
        """Nobody logs in with the account any more. The sessions that it had are over; what it did stays."""

        TOPIC = "account.deactivated"

    class Reactivated(aggregates.Aggregate.Event):
        """The person may log in again, with the password that there was."""

        TOPIC = "account.reactivated"

    class EmailVerified(aggregates.Aggregate.Event):
        """The person has shown to receive mail at the account's address."""

        TOPIC = "account.email_verified"

    class EmailChanged(aggregates.Aggregate.Event):
        """The account has another address, where the person has shown to receive mail."""

        TOPIC = "account.email_changed"
        SUBJECT = "originator_id"
        email: Annotated[Personal[str], meaning("The address from now on, as the person wrote it")]

    class PasswordChanged(aggregates.Aggregate.Event):
        """There is another password. Its hash is not part of the event."""

        TOPIC = "account.password_changed"
        how: Annotated[str, meaning(f"Who set it: {', '.join(PasswordSet)}")]

    class SecondFactorEnabled(aggregates.Aggregate.Event):
        """Logging in takes a code besides the password from now on. The secret behind the codes is no event's."""

        TOPIC = "account.second_factor_enabled"

    class SecondFactorDisabled(aggregates.Aggregate.Event):
        """The password alone is enough again."""

        TOPIC = "account.second_factor_disabled"

    class RecoveryCodeUsed(aggregates.Aggregate.Event):
        """Somebody logged in with one of the codes that were given for the loss of the second factor."""

        TOPIC = "account.recovery_code_used"
        left: Annotated[int, meaning("How many codes can still be used")]

    @event(Registered)
    def __init__(self, id: UUID, tenant_id: UUID, email: str, name: str, role: str) -> None:
        self.tenant_id = tenant_id
        self.email = email
        self.name = name
        self.role = role
        self.active = True
        self.email_verified = False
        self.second_factor = False

    def rename(self, name: str) -> None:
        """The name that it has records nothing. Raises AccountDeactivated, TextBlank, TextTooLong, TextForbidden."""
        self._check_active()
        checked = text.line(name, "name", length_max=NAME_LENGTH_MAX)
        if checked != self.name:
            self._renamed(checked)

    def change_role(self, role: str) -> None:
        """The role that it has records nothing. Raises AccountDeactivated, RoleUnknown, RoleNotHere."""
        self._check_active()
        check_role(role, self.tenant_id)
        if role != self.role:
            self._role_changed(str(role))

    def deactivate(self) -> None:
        """One that is deactivated already records nothing."""
        if self.active:
            self._deactivated()

    def reactivate(self) -> None:
        """One that is active records nothing."""
        if not self.active:
            self._reactivated()

    def verify_email(self) -> None:
        """Once verified it records nothing. Raises AccountDeactivated."""
        self._check_active()
        if not self.email_verified:
            self._email_verified()

    def change_email(self, email: str) -> None:
        """To an address where the person has just shown to receive mail. Raises AccountDeactivated, EmailInvalid."""
        self._check_active()
        written = addresses.written_email(email)
        if written != self.email:
            self._email_changed(written)
        elif not self.email_verified:
            self._email_verified()

    def change_password(self, how: PasswordSet) -> None:
        """Raises AccountDeactivated."""
        self._check_active()
        self._password_changed(str(how))

    def enable_second_factor(self) -> None:
        """A new one for an old one is recorded as well. Raises AccountDeactivated."""
        self._check_active()
        self._second_factor_enabled()

    def disable_second_factor(self) -> None:
        """Where there is none it records nothing. Raises AccountDeactivated."""
        self._check_active()
        if self.second_factor:
            self._second_factor_disabled()

    def use_recovery_code(self, left: int) -> None:
        """Raises AccountDeactivated."""
        self._check_active()
        self._recovery_code_used(left)

    @event(Renamed)
    def _renamed(self, name: str) -> None:
        self.name = name

    @event(RoleChanged)
    def _role_changed(self, role: str) -> None:
        self.role = role

    @event(Deactivated)
    def _deactivated(self) -> None:
        self.active = False

    @event(Reactivated)
    def _reactivated(self) -> None:
        self.active = True

    @event(EmailVerified)
    def _email_verified(self) -> None:
        self.email_verified = True

    @event(EmailChanged)
    def _email_changed(self, email: str) -> None:
        self.email = email
        self.email_verified = True

    @event(PasswordChanged)
    def _password_changed(self, how: str) -> None:
        """That it happened is all there is to know."""

    @event(SecondFactorEnabled)
    def _second_factor_enabled(self) -> None:
        self.second_factor = True

    @event(SecondFactorDisabled)
    def _second_factor_disabled(self) -> None:
        self.second_factor = False

    @event(RecoveryCodeUsed)
    def _recovery_code_used(self, left: int) -> None:
        """The codes are outside the events."""

    def _check_active(self) -> None:
        if not self.active:
            raise AccountDeactivated(self.id)


def register(*, id: UUID, tenant_id: UUID, email: str, name: str, role: str) -> Account:
    """Raises EmailInvalid, TextBlank, TextTooLong, TextForbidden, RoleUnknown, RoleNotHere."""
    check_role(role, tenant_id)
    return Account(
        id=id,
        tenant_id=tenant_id,
        email=addresses.written_email(email),
        name=text.line(name, "name", length_max=NAME_LENGTH_MAX),
        role=str(role),
    )


def check_role(role: str, tenant_id: UUID) -> None:
    """Whether an account of that tenant can have it. Raises RoleUnknown, RoleNotHere."""
    if role not in ROLES:
        raise RoleUnknown(role)
    # An admin gives roles: one of the platform's could make a super admin, of itself too.
    if role in RUNNING and (role == Role.SUPER_ADMIN) != (tenant_id == tenants.PLATFORM_ID):
        raise RoleNotHere(role)
