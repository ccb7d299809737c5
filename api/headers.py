"""A request's headers, looked up one at a time: the few that are asked for cost less so than a mapping of all of them."""

from litestar.types import Scope


def first(scope: Scope, name: bytes) -> str | None:
    """The value of the first header of that lower-case name, as Latin-1 (RFC 9110, 5.5); None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None
