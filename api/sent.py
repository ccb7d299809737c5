"""Answers as they go out: encoded, with their headers, and to a query 304 for who has the body already."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.types import Receive, Scope, Send

from api import etags, headers

T = TypeVar("T")

_ENCODER = msgspec.json.Encoder()
_JSON = (b"content-type", b"application/json")
# What a query found is for who asked alone. A browser may keep it, and asks with its tag each time whether it still is right.
_PRIVATE = ((b"cache-control", b"private, no-cache"), (b"vary", b"Authorization"))


class Sent:
    """What a handler's answer is to the server. It looks at nothing of the request."""

    __slots__ = ("body", "headers", "status_code")

    def __init__(self, status_code: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.status_code, self.headers, self.body = status_code, headers, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class Answer(Response[T]):
    """An answer that is encoded already. The framework's own way there, which merges headers, cookies, media types and encoders
    of all layers for each answer, costs 40 µs; none of our routes declares any of these."""

    status_code: int

    def __init__(self, content: T, *, status_code: int = 200, headers: dict[str, str]) -> None:
        """`headers` are ASCII. A `content` of None is no body."""
        # All that the framework's would set, without its looking at each argument's type.
        self.content, self.status_code, self.headers = content, status_code, headers
        self.background, self.media_type, self.encoding = None, None, "utf-8"
        self.cookies, self.response_type_encoders = [], {}

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **_: Any) -> Any:
        """What the framework calls."""
        encoded = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        if self.content is None:
            return Sent(self.status_code, encoded, b"")
        body = _ENCODER.encode(self.content)
        encoded += (_JSON, (b"content-length", b"%d" % len(body)))
        return Sent(self.status_code, encoded, body)


class Found(Answer[T]):
    """What a query found: 200, or 304. `content` that is bytes is the body's JSON already.

    `version` stands between the quotes of the entity tag (`etags.version`); without it the tag is of the body. The answer to
    a command may be one of these too: it then has the tag of a version or none, and is never a 304.
    """

    def __init__(self, content: T, position: int | str, version: int | str | None = None) -> None:
        super().__init__(content, headers={})
        self._position, self._version = position, version

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **_: Any) -> Any:
        """What the framework calls."""
        body = self.content if isinstance(self.content, bytes) else _ENCODER.encode(self.content)
        sent = [(b"x-position", str(self._position).encode())]
        tag = None if self._version is None else f'"{self._version}"'
        if request.method == "GET":
            tag = tag or etags.of_body(body)
            sent += _PRIVATE
        if tag is not None:
            sent.append((b"etag", tag.encode()))
            if request.method == "GET" and etags.is_known(headers.first(request.scope, b"if-none-match"), tag):
                return Sent(304, sent, b"")
        sent += (_JSON, (b"content-length", b"%d" % len(body)))
        return Sent(self.status_code, sent, body)
