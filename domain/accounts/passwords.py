"""What may be a password, after NIST SP 800-63B. Nothing here is ever an event, and no message repeats one."""

import functools
import unicodedata

from domain import refusals
from domain.accounts import addresses

PASSWORD_LENGTH_MIN = 8
# Long enough for any passphrase; hashing must not become a way to spend our CPU.
PASSWORD_LENGTH_MAX = 256
# What is looked at before normalising, which may lengthen or shorten a text and is not free.
PASSWORD_GIVEN_LENGTH_MAX = 1024

_NOT_SHOWN = "(not shown)"


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


class PasswordCommon(refusals.Invalid):
    """Says nothing of the password."""

    def __init__(self) -> None:
        super().__init__(
            "The password is one of those that are tried first, because many people have it",
            _NOT_SHOWN,
            "Choose another one; several words that have nothing to do with each other are good",
            field="password",
        )


class PasswordIsTheirs(refusals.Invalid):
    """Says nothing of the password."""

    def __init__(self) -> None:
        super().__init__(
            "The password is the person's own name or address", _NOT_SHOWN, "Choose another one", field="password"
        )


def normalise_password(given: str) -> str:
    """The characters that are hashed, whichever keyboard made them: NFKC. No rule is asked but that it can be hashed.

    Raises PasswordLengthWrong, PasswordUnreadable.
    """
    if len(given) > PASSWORD_GIVEN_LENGTH_MAX:
        raise PasswordLengthWrong(len(given))
    if any("\ud800" <= character <= "\udfff" for character in given):  # cannot be encoded, so not be hashed
        raise PasswordUnreadable
    password = unicodedata.normalize("NFKC", given)
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise PasswordLengthWrong(len(password))
    return password


def check_password(given: str, *, email: str, name: str) -> None:
    """Whether somebody of that address and name may have it from now on. What it is made of is not asked.

    Raises PasswordLengthWrong, PasswordUnreadable, PasswordCommon, PasswordIsTheirs, EmailInvalid.
    """
    folded = normalise_password(given).casefold()
    if folded in _common():
        raise PasswordCommon
    address = addresses.normalise_email(email)
    called = unicodedata.normalize("NFKC", name).casefold().strip()
    if folded in {address, address.partition("@")[0], called, called.replace(" ", "")}:
        raise PasswordIsTheirs


@functools.cache
def _common() -> frozenset[str]:
    """Those of the 30,000 most common ones that are long enough. Read at the first use: it takes 50 ms."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(each for each in FREQUENCY_LISTS["passwords"] if len(each) >= PASSWORD_LENGTH_MIN)
