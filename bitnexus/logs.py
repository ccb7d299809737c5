"""Logs: one JSON object a line on standard error. What is logged is ids and counts, never secrets or persons' data.

Whoever logs does not log them; what is here is for what comes in by itself. Of exceptions only those messages are shown that are
known to hold no values, PostgreSQL's details are cut off, and whatever looks like an address or a token is taken out.
"""

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any

import msgspec
import psycopg
import structlog

from api import request_ids
from ledger import errors as ledger_errors

QUIET = ("uvicorn", "asyncio", "psycopg.pool")
"""They tell at level info what nobody needs."""
MESSAGE_CHARACTERS_MAX = 2_000
"""Three sentences and an id or two have 500."""
EXCEPTION_CHARACTERS_MAX = 8_000
FRAMES_MAX = 30
"""The innermost ones, of one exception."""
CAUSES_MAX = 5
REMOVED = "[removed]"

_PLAIN = (OSError, ImportError, NameError, AttributeError, TypeError, RecursionError, ledger_errors.LedgerError)
"""Their messages name files, code and ids. What a KeyError or a ValueError says may be what somebody sent."""
_VALUES = re.compile(r"\n(?:DETAIL|LINE \d+|CONTEXT|QUERY|HINT):.*", re.DOTALL)
_SECRET = re.compile(
    r"eyJ[\w-]+\.[\w-]+\.[\w-]*"  # a JWT
    r"|(?i:\bbearer\s+)\S+"
    r"|(?<=://)[^/\s@]+(?=@)"  # who logs in to an URL, and by which password
    r"|[^\s\"'<>@:/,;()]{1,64}@[\w-]+(?:\.[\w-]+)+"  # an e-mail address
    r"|(?<![\w-])(?![0-9a-f]+(?![\w-]))[\w-]{43,}"  # 256 bits in base64url; hashes of the ledger are hexadecimal
)

_Event = structlog.typing.EventDict


def configure(level: str) -> None:
    """For a process that serves. `level` is one of settings.LOG_LEVELS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("uvicorn.error").setLevel(
        logging.ERROR
    )  # it warns of each request that is none: anybody's to send
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def formatter() -> logging.Formatter:
    """Makes of each record one line."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.CallsiteParameterAdder({structlog.processors.CallsiteParameter.PROCESS}),
            _cleaned,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_json),
        ],
    )


def _shared() -> list[structlog.typing.Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _request_id,
        _exception,
    ]


def _request_id(_: Any, __: str, event: _Event) -> _Event:
    """Of the request in whose course it was logged; a task that it started keeps it."""
    known_as = request_ids.CURRENT.get()
    if known_as is not None:
        event["request_id"] = known_as
    return event


def _exception(_: Any, __: str, event: _Event) -> _Event:
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["exception"] = told(error)
    event.pop("stack_info", None)
    return event


def _cleaned(_: Any, __: str, event: _Event) -> _Event:
    for name, value in event.items():
        if isinstance(value, str):
            length_max = EXCEPTION_CHARACTERS_MAX if name == "exception" else MESSAGE_CHARACTERS_MAX
            event[name] = clean(value)[:length_max]
    return event


def _json(event: _Event, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def clean(text: str) -> str:
    """Without the values that PostgreSQL shows, and without what looks like an address or a token."""
    readable = (
        text[: 2 * EXCEPTION_CHARACTERS_MAX].encode(errors="replace").decode()
    )  # half a surrogate pair is no UTF-8
    return _SECRET.sub(REMOVED, _VALUES.sub("", readable))


def told(error: BaseException) -> str:
    """An exception and what caused it: types, places in the code, and the messages that hold no values."""
    lines: list[str] = []
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            break
        lines += [_named(cause), *_places(cause.__traceback__)]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(lines)


def _named(error: BaseException) -> str:
    name = type(error).__qualname__
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:
            return f"{name}: {error}"
        return f"{name}: SQLSTATE {error.sqlstate}"  # what else it says may be a row
    return f"{name}: {error}" if isinstance(error, _PLAIN) else name


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-FRAMES_MAX:]
    return [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
