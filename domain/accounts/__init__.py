"""Who may act: accounts and their sessions. Hashes of passwords and tokens are secrets, never events."""

from domain.accounts.account import (
    NAME_LENGTH_MAX,
    ROLES,
    RUNNING,
    Account,
    LastAdmin,
    Role,
    RoleNotHere,
    RoleUnknown,
    register,
)
from domain.accounts.addresses import EMAIL_LENGTH_MAX, EmailInvalid, normalise_email
from domain.accounts.passwords import (
    PASSWORD_LENGTH_MAX,
    PASSWORD_LENGTH_MIN,
    PasswordCommon,
    PasswordIsTheirs,
    PasswordLengthWrong,
    PasswordUnreadable,
    check_password,
    normalise_password,
)
from domain.accounts.session import (
    SESSION_LIMITS,
    Session,
    SessionExpired,
    SessionLimits,
    SessionRevoked,
    is_over,
    start_session,
)

__all__ = [
    "EMAIL_LENGTH_MAX",
    "NAME_LENGTH_MAX",
    "PASSWORD_LENGTH_MAX",
    "PASSWORD_LENGTH_MIN",
    "ROLES",
    "RUNNING",
    "SESSION_LIMITS",
    "Account",
    "EmailInvalid",
    "LastAdmin",
    "PasswordCommon",
    "PasswordIsTheirs",
    "PasswordLengthWrong",
    "PasswordUnreadable",
    "Role",
    "RoleNotHere",
    "RoleUnknown",
    "Session",
    "SessionExpired",
    "SessionLimits",
    "SessionRevoked",
    "check_password",
    "is_over",
    "normalise_email",
    "normalise_password",
    "register",
    "start_session",
]
