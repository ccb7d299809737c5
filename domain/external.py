"""Where something was known before it came here: a source and its id there, so that an import can be repeated."""

import re
from typing import Annotated, TypeAlias

from domain import refusals, text
from domain.meaning import meaning

# A source is chosen once, by whoever writes an integration; it is part of keys and of addresses.
SOURCE_PATTERN = re.compile(r"[a-z0-9_-]{1,32}")
EXTERNAL_ID_LENGTH_MAX = 128
EXTERNAL_ID_ENCODED_BYTES_MAX = 256

# The types of an event's fields: both are there or neither.
Source: TypeAlias = Annotated[str, meaning("The other system where this was known before, null if there is none")]
ExternalId: TypeAlias = Annotated[str, meaning("Its id in that system, unique within the source")]


class SourceInvalid(refusals.Invalid):
    def __init__(self, value: str) -> None:
        super().__init__(
            "The source is not a name",
            value,
            "Give 1 to 32 characters out of a-z, 0-9, _ and -",
            field="source",
        )


class ExternalIdIncomplete(refusals.Invalid):
    def __init__(self, missing: str, given: str) -> None:
        super().__init__(
            f"The external id is incomplete, {missing} is missing",
            given,
            "Give both source and external_id, or neither",
            field=missing,
        )


def checked(source: str | None, external_id: str | None) -> tuple[str, str] | tuple[None, None]:
    """Both or neither, the external id without blanks around it.

    Raises ExternalIdIncomplete, SourceInvalid, TextBlank, TextTooLong, TextTooWide, TextForbidden.
    """
    if source is None and external_id is None:
        return None, None
    if source is None:
        raise ExternalIdIncomplete("source", external_id or "")
    if external_id is None:
        raise ExternalIdIncomplete("external_id", source)
    if SOURCE_PATTERN.fullmatch(source) is None:
        raise SourceInvalid(source)
    return source, text.line(
        external_id,
        "external_id",
        length_max=EXTERNAL_ID_LENGTH_MAX,
        encoded_bytes_max=EXTERNAL_ID_ENCODED_BYTES_MAX,
    )


def key(source: str, external_id: str) -> str:
    """One text for the pair, unambiguous: neither part may hold the unit separator, a control character."""
    return f"{source}\x1f{external_id}"
