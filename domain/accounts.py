"""Who may act: accounts and their sessions. Hashes of passwords and tokens are secrets, never events."""

import unicodedata
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, refusals, tenants, text
from domain.meaning import meaning
from domain.personal import Personal

EMAIL_LENGTH_MAX = 254  # what a mail server must accept as an address (RFC 5321)
# What is looked at before normalising, which may shorten a text but is not free.
EMAIL_GIVEN_LENGTH_MAX = 1024
NAME_LENGTH_MAX = 200
PASSWORD_LENGTH_MIN = 8
# Long enough for any passphrase; hashing must not become a way to spend our CPU.
PASSWORD_LENGTH_MAX = 256
REASON_LENGTH_MAX = 200

# Nothing invisible in an address: two that look the same would be two accounts.
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})


class Role(StrEnum):
    ADMIN = "admin"
    USER = "user"
    AFFILIATE = "affiliate"
    SUPER_ADMIN = "super_admin"


ROLES = tuple(Role)
RUNNING = frozenset({Role.ADMIN, Role.SUPER_ADMIN})
"""The roles without which nobody could run the tenant."""


class EmailInvalid(refusals.Invalid):
    def __init__(self, email: str) -> None:
        super().__init__(
            "This is not an e-mail address",
            email,
            f"Give an address such as ann@example.com, of at most {EMAIL_LENGTH_MAX} characters",
            field="email",
        )


class PasswordLengthWrong(refusals.Invalid):
    """Says the length, never the password."""

    def __init__(self, length: int) -> None:
        super().__init__(
            "The password's length is wrong",
            f"{length} characters",
            f"Give {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters",
            field="password",
        )


class PasswordUnreadable(refusals.Invalid):
    """Says nothing of the password."""

    def __init__(self) -> None:
        super().__init__(
            "The password holds something that is no character",
            "half of a surrogate pair",
            "Give whole characters",
            field="password",
        )


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


class SessionRevoked(refusals.Conflict):
    def __init__(self, session_id: UUID) -> None:
        super().__init__("The session has been revoked", session_id, "Log in again")


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


class Session(aggregates.Aggregate):
    """One log-in, from its start to its revocation: what a token's `sid` names."""

    TOPIC = "session"

    class Started(aggregates.Aggregate.Created):
        """Somebody logged in. The session's originator id is the `sid` of its tokens."""

        TOPIC = "session.started"
        account_id: Annotated[UUID, meaning("The account that logged in")]

    class Refreshed(aggregates.Aggregate.Event):
        """A refresh token was exchanged for the next one."""

        TOPIC = "session.refreshed"

    class Revoked(aggregates.Aggregate.Event):
        """The session's tokens count no more. For good."""

        TOPIC = "session.revoked"
        reason: Annotated[str, meaning("Why, such as logged out")]

    @event(Started)
    def __init__(self, id: UUID, account_id: UUID) -> None:
        self.account_id = account_id
        self.revoked = False

    def refresh(self) -> None:
        """Raises SessionRevoked."""
        if self.revoked:
            raise SessionRevoked(self.id)
        self._refreshed()

    def revoke(self, reason: str) -> None:
        """One that is revoked already records nothing. Raises TextBlank, TextTooLong, TextForbidden."""
        checked = text.line(reason, "reason", length_max=REASON_LENGTH_MAX)
        if not self.revoked:
            self._revoked(checked)

    @event(Refreshed)
    def _refreshed(self) -> None:
        """That it happened is all there is to know."""

    @event(Revoked)
    def _revoked(self, reason: str) -> None:
        self.revoked = True


def register(*, id: UUID, tenant_id: UUID, email: str, name: str, role: str) -> Account:
    """Raises EmailInvalid, TextBlank, TextTooLong, TextForbidden, RoleUnknown, RoleNotHere."""
    if role not in ROLES:
        raise RoleUnknown(role)
    if role == Role.SUPER_ADMIN and tenant_id != tenants.PLATFORM_ID:
        raise RoleNotHere(role)
    return Account(
        id=id,
        tenant_id=tenant_id,
        email=normalise_email(email),
        name=text.line(name, "name", length_max=NAME_LENGTH_MAX),
        role=str(role),
    )


def start_session(*, id: UUID, account_id: UUID) -> Session:
    return Session(id=id, account_id=account_id)


def normalise_email(email: str) -> str:
    """The one spelling under which an address is kept and found: NFKC, no blanks around it, casefolded.

    Normalising what is normal changes nothing. Raises EmailInvalid.
    """
    if len(email) > EMAIL_GIVEN_LENGTH_MAX:
        raise EmailInvalid(email)
    # Folding the case can undo the normal form and the normal form can bring back a capital: both are done twice, in
    # the order of Unicode's compatibility caseless match (chapter 3.13, D146).
    folded = unicodedata.normalize("NFD", email).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()
    normal = unicodedata.normalize("NFKC", folded).strip()
    local, _, domain = normal.partition("@")
    if (
        len(normal) > EMAIL_LENGTH_MAX
        or not local
        or "@" in domain
        or not all(domain.split("."))
        or any(unicodedata.category(character) in _INVISIBLE_CATEGORIES for character in normal)
    ):
        raise EmailInvalid(email)
    return normal


def check_password(password: str) -> None:
    """Raises PasswordLengthWrong, PasswordUnreadable."""
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise PasswordLengthWrong(len(password))
    if any("\ud800" <= character <= "\udfff" for character in password):  # cannot be encoded, so not be hashed
        raise PasswordUnreadable()
