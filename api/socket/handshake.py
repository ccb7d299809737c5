"""Who may open a socket, and how it is spoken: from the request's query, headers and subprotocols."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from litestar.types import Scope, WebSocketScope

from api import errors, headers, rights
from api.socket.protocol import frames

PARAMETERS_MAX = 100
BEARER = "base64url.bearer.phx."
SUBPROTOCOL = "phoenix"


class Refused(Exception):
    """The client is answered 403, before any upgrade. It cannot read why."""


Authenticate: TypeAlias = Callable[[str], "rights.Who | Awaitable[rights.Who]"]
"""Takes what HTTP's Authorization holds."""


class Handshake(NamedTuple):
    who: rights.Who
    serializer: frames.Serializer
    subprotocol: str | None


def parameters(query_string: bytes) -> dict[str, str]:
    """The query's; of a key that occurs twice the last one counts. Raises Refused for more than PARAMETERS_MAX."""
    try:
        return dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=PARAMETERS_MAX))
    except ValueError:
        raise Refused("too many parameters") from None


def serializer(query: dict[str, str]) -> frames.Serializer:
    """Raises Refused."""
    found = None if any(key.startswith("vsn[") for key in query) else frames.of_version(query.get("vsn"))
    if found is None:
        raise Refused("vsn is none of 1.0.0 and 2.0.0")
    return found


def check_origin(scope: Scope, allowed: Sequence[str]) -> None:
    """Of a browser: the host that it was asked at, or one of the list. Raises Refused."""
    origin = headers.first(scope, b"origin")
    if origin is None:
        return
    try:
        found = urlsplit(origin)
        host, port = found.hostname, found.port
    except ValueError:
        raise Refused("the origin cannot be read") from None
    if not host or found.scheme not in ("http", "https"):
        raise Refused("the origin is nobody's")
    asked_at = headers.first(scope, b"host") or ""
    if host != _host(asked_at) and not any(_fits(each, found.scheme, host, port) for each in allowed):
        raise Refused("the origin is not allowed")


def _host(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


def _fits(entry: str, scheme: str, host: str, port: int | None) -> bool:
    """An entry is `host`, `//host`, `//*.domain` (the domain too), or one with scheme and port."""
    wanted = urlsplit(entry if "//" in entry else f"//{entry}")
    name = wanted.hostname or ""
    if wanted.scheme and wanted.scheme != scheme:
        return False
    if wanted.port is not None and wanted.port != (port or {"http": 80, "https": 443}[scheme]):
        return False
    if name.startswith("*."):
        return host == name[2:] or host.endswith(name[1:])
    return host == name


def subprotocols(offered: Sequence[str]) -> tuple[str | None, str | None]:
    """The one to select, and the token among them. Raises Refused."""
    token = next((each for each in offered if each.startswith(BEARER)), None)
    others = [each for each in offered if not each.startswith(BEARER)]
    if others and SUBPROTOCOL not in others:
        raise Refused("no subprotocol of these is spoken here")
    return SUBPROTOCOL if others else None, None if token is None else _token(token.removeprefix(BEARER))


def _token(encoded: str) -> str:
    """Of either alphabet of base64, with padding or without."""
    try:
        standard = encoded.rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise Refused("the token among the subprotocols is not base64") from None


async def shake_hands(scope: WebSocketScope, allowed_origins: Sequence[str], authenticate: Authenticate) -> Handshake:
    """Raises Refused."""
    check_origin(scope, allowed_origins)
    query = parameters(scope["query_string"])
    subprotocol, token = subprotocols(scope["subprotocols"])
    spoken = serializer(query)
    return Handshake(await authenticated(token or query.get("token", ""), authenticate), spoken, subprotocol)


async def authenticated(token: str, authenticate: Authenticate) -> rights.Who:
    """Raises Refused."""
    try:
        who = authenticate(f"Bearer {token}")
        return who if isinstance(who, rights.Who) else await who
    except Exception as error:
        if errors.problem(error) is None:
            raise
        raise Refused(str(error)) from None
