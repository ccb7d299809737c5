"""E-mail addresses: as the person writes one, which is where mail goes, and the one spelling under which an account is found."""

import unicodedata

from domain import refusals

EMAIL_LENGTH_MAX = 254  # what a mail server must accept as an address (RFC 5321)
# What is looked at before normalising, which may shorten a text but is not free.
EMAIL_GIVEN_LENGTH_MAX = 1024

# Nothing invisible in an address: two that look the same would be two accounts.
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})


class EmailInvalid(refusals.Invalid):
    def __init__(self, email: str) -> None:
        super().__init__(
            "This is not an e-mail address",
            email,
            f"Give an address such as ann@example.com, of at most {EMAIL_LENGTH_MAX} characters",
            field="email",
        )


def written_email(email: str) -> str:
    """The address as it is kept and written to: what was given, in NFC, without blanks around it. Raises EmailInvalid.

    Some hosts tell capitals from small letters before the @, so that mail must go to what the person wrote.
    """
    normalise_email(email)
    written = unicodedata.normalize("NFC", email).strip()
    if len(written) > EMAIL_LENGTH_MAX or not _is_visible(written):
        raise EmailInvalid(email)
    return written


def normalise_email(email: str) -> str:
    """The one spelling under which an address is found, and unique: NFKC, no blanks around it, casefolded.

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
        or not _is_visible(normal)
    ):
        raise EmailInvalid(email)
    return normal


def _is_visible(address: str) -> bool:
    return not any(unicodedata.category(character) in _INVISIBLE_CATEGORIES for character in address)
