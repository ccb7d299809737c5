"""Accounts: one module for each use. Their sessions are commands/sessions."""

from commands.accounts.logging_in import CredentialsWrong, LogIn, log_in, start_session
from commands.accounts.registering import (
    ADMIN_PREFIX,
    EMAIL,
    PASSWORD,
    EmailTaken,
    Register,
    admin_kind,
    admins_of,
    passworded,
    register,
    show,
)

__all__ = [
    "ADMIN_PREFIX",
    "EMAIL",
    "PASSWORD",
    "CredentialsWrong",
    "EmailTaken",
    "LogIn",
    "Register",
    "admin_kind",
    "admins_of",
    "log_in",
    "passworded",
    "register",
    "show",
    "start_session",
]
