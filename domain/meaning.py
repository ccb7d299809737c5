"""What a field of an event means, for whoever reads the stream: written once, beside the field or the type it has.

docs/events.md and docs/asyncapi.json are made from it. It is never a rule: a value that contradicts its meaning decodes all
the same, because events are forever and rules are not.
"""

from typing import Any

import msgspec


def meaning(text: str, *, unit: str | None = None, form: str | None = None) -> msgspec.Meta:
    """For `Annotated[int, meaning("…", unit="…")]`. `form` is the `format` of JSON Schema where the type does not say it.

    Of nested ones each word counts that is said last: `Annotated[money.Minor, meaning("…")]` keeps the unit of Minor.
    """
    said: dict[str, Any] = {}
    if unit is not None:
        said["x-unit"] = unit
    if form is not None:
        said["format"] = form
    return msgspec.Meta(description=text, extra_json_schema=said or None)
