"""The id under which a request is known: in its answer, in the metadata of its events, and in what is logged in its course."""

import os
import re
from contextvars import ContextVar

HEADER = b"x-request-id"
_GIVEN = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")

CURRENT: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request in whose task we are; tasks that it starts keep it."""


def of(given: bytes | None) -> str:
    """The caller's, if it is one that may stand in a log, else a new one."""
    return given.decode() if given is not None and _GIVEN.fullmatch(given) else os.urandom(16).hex()
