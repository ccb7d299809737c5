"""Pages: the opaque cursor that leads from one to the next."""

import base64
import binascii
from uuid import UUID

from api import errors

LIMIT_DEFAULT = 20
LIMIT_MAX = 100


def encode(id: UUID | None) -> str | None:
    """The cursor of the page that begins after this row."""
    return None if id is None else base64.urlsafe_b64encode(id.bytes).rstrip(b"=").decode()


def decode(cursor: str | None) -> UUID | None:
    """Raises RequestRefused."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        text = f"The cursor {cursor[:40]!r} is none of ours. Use next_cursor of the page before, or none."
        raise errors.RequestRefused(errors.INVALID, text, {"cursor": [text]}) from None
