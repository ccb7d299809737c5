"""What may be a password. Nothing here is ever an event, and no message repeats one."""

from domain import refusals

PASSWORD_LENGTH_MIN = 8
# Long enough for any passphrase; hashing must not become a way to spend our CPU.
PASSWORD_LENGTH_MAX = 256


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


def check_password(password: str) -> None:
    """Raises PasswordLengthWrong, PasswordUnreadable."""
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise PasswordLengthWrong(len(password))
    if any("\ud800" <= character <= "\udfff" for character in password):  # cannot be encoded, so not be hashed
        raise PasswordUnreadable()
