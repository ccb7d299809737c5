"""Free metadata: a JSON object of the caller's own, kept as it is, within bounds."""

import math
from typing import Annotated, Any, TypeAlias

import msgspec

from domain import refusals, text
from domain.meaning import meaning

# Metadata travels in every copy of its event; 4 KiB leave room for the 250 lines of a transaction (docs/money.md).
ENCODED_BYTES_MAX = 4096
# The object itself is level 1. Deep nesting is what breaks naive readers, and nobody filters on it.
DEPTH_MAX = 4
# Whole numbers that every reader of the ledger can hold.
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

# The type of an event's field.
Metadata: TypeAlias = Annotated[
    dict[str, Any],
    meaning("Free data of whoever recorded it, kept as they are; not encrypted, so not for personal data"),
]


class MetadataTooLarge(refusals.Invalid):
    def __init__(self, encoded_bytes: int) -> None:
        super().__init__(
            "The metadata are too large",
            f"{encoded_bytes} bytes",
            f"Give at most {ENCODED_BYTES_MAX} bytes of JSON",
            field="metadata",
        )


class MetadataTooDeep(refusals.Invalid):
    def __init__(self, path: str) -> None:
        super().__init__(
            "The metadata are nested too deeply", path, f"Nest at most {DEPTH_MAX} levels", field="metadata"
        )


class MetadataUnkeepable(refusals.Invalid):
    def __init__(self, path: str, value: object) -> None:
        super().__init__(
            f"The metadata at {refusals.shown(path)} cannot be kept as they are",
            value,
            "Give JSON values only: no control characters but tabs and line breaks in texts, finite numbers, "
            "whole numbers within 64 bits (a larger one as text)",
            field="metadata",
        )


def checked(value: dict[str, Any]) -> dict[str, Any]:
    """A copy, equal to what replay will give back. Raises MetadataTooLarge, MetadataTooDeep, MetadataUnkeepable."""
    if not value:
        return {}
    _check(value, "metadata", depth=1)
    encoded = msgspec.json.encode(value)
    if len(encoded) > ENCODED_BYTES_MAX:
        raise MetadataTooLarge(len(encoded))
    copy: dict[str, Any] = msgspec.json.decode(encoded)
    return copy


def _check(value: object, path: str, depth: int) -> None:
    match value:
        case None | bool():
            keepable = True
        case str():
            keepable = text.forbidden_character(value, text.PARAGRAPH_CONTROLS) is None
        case int():
            keepable = INTEGER_MIN <= value <= INTEGER_MAX
        case float():
            keepable = math.isfinite(value)
        case dict() | list() if depth > DEPTH_MAX:
            raise MetadataTooDeep(path)
        case dict():
            keepable = all(
                isinstance(key, str) and text.forbidden_character(key, text.PARAGRAPH_CONTROLS) is None for key in value
            )
            for key, inner in value.items():
                _check(inner, f"{path}.{key}", depth + 1)
        case list():
            keepable = True
            for index, inner in enumerate(value):
                _check(inner, f"{path}.{index}", depth + 1)
        case _:
            keepable = False
    if not keepable:
        raise MetadataUnkeepable(path, value if isinstance(value, str) else type(value).__name__)
