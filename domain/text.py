"""What text may be kept: trimmed, bounded, and free of what breaks PostgreSQL, JSON, a log or a terminal."""

import unicodedata

import msgspec

from domain import refusals

# Control characters (NUL among them, which PostgreSQL cannot store), lone surrogates (which UTF-8 cannot encode), and
# the line and paragraph separators, which are line breaks to some readers and not to others.
FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
PARAGRAPH_CONTROLS = frozenset("\n\r\t")


class TextBlank(refusals.Invalid):
    def __init__(self, field: str, value: str) -> None:
        super().__init__(f"The field {field} is blank", value, "Give at least one visible character", field=field)


class TextTooLong(refusals.Invalid):
    def __init__(self, field: str, value: str, length_max: int) -> None:
        super().__init__(
            f"The field {field} is {len(value)} characters long",
            value,
            f"Give at most {length_max} characters",
            field=field,
        )


class TextTooWide(refusals.Invalid):
    def __init__(self, field: str, value: str, encoded_bytes: int, encoded_bytes_max: int) -> None:
        super().__init__(
            f"The field {field} takes {encoded_bytes} bytes when it is recorded",
            value,
            f"Give at most {encoded_bytes_max} bytes; a letter beyond ASCII takes 2 to 4, a quote or backslash 2",
            field=field,
        )


class TextForbidden(refusals.Invalid):
    def __init__(self, field: str, value: str, character: str) -> None:
        super().__init__(
            f"The field {field} holds the character U+{ord(character):04X}",
            value,
            "Leave out control characters, line breaks and halves of surrogate pairs",
            field=field,
        )


def line(value: str, field: str, *, length_max: int, encoded_bytes_max: int | None = None) -> str:
    """The text without blanks around it: 1 to `length_max` characters in one line.

    `encoded_bytes_max` also bounds what the text takes inside a JSON string, for fields that stand many times in one
    event. Raises TextBlank, TextTooLong, TextTooWide, TextForbidden.
    """
    kept = _checked(value, field, length_max, frozenset())
    if encoded_bytes_max is not None:
        encoded_bytes = encoded_length(kept)
        if encoded_bytes > encoded_bytes_max:
            raise TextTooWide(field, kept, encoded_bytes, encoded_bytes_max)
    return kept


def paragraphs(value: str, field: str, *, length_max: int) -> str:
    """As `line`, but tabs and line breaks may be inside. Raises TextBlank, TextTooLong, TextForbidden."""
    return _checked(value, field, length_max, PARAGRAPH_CONTROLS)


def optional_line(value: str | None, field: str, *, length_max: int) -> str | None:
    """As `line`, but None and blanks give None: a form sends an empty string for what was not filled in."""
    return None if value is None or not value.strip() else line(value, field, length_max=length_max)


def optional_paragraphs(value: str | None, field: str, *, length_max: int) -> str | None:
    """As `paragraphs`, but None and blanks give None."""
    return None if value is None or not value.strip() else paragraphs(value, field, length_max=length_max)


def encoded_length(value: str) -> int:
    """Bytes inside the quotes of a JSON string: UTF-8, quotes and backslashes escaped."""
    return len(msgspec.json.encode(value)) - 2


def forbidden_character(value: str, allowed: frozenset[str] = frozenset()) -> str | None:
    """The first character that may not be kept, or None."""
    if value.isprintable():  # one pass in C; nothing forbidden is printable
        return None
    for character in value:
        if character not in allowed and unicodedata.category(character) in FORBIDDEN_CATEGORIES:
            return character
    return None


def _checked(value: str, field: str, length_max: int, allowed: frozenset[str]) -> str:
    kept = value.strip()
    if not kept:
        raise TextBlank(field, value)
    if len(kept) > length_max:
        raise TextTooLong(field, kept, length_max)
    character = forbidden_character(kept, allowed)
    if character is not None:
        raise TextForbidden(field, kept, character)
    return kept
