"""Answers: the envelope, the headers, and the OpenAPI that all operations share."""

import dataclasses
from typing import ClassVar, Generic, TypeVar
from uuid import UUID

import msgspec
from litestar import Response
from litestar.openapi.spec import (
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    Schema,
)

from api import cursors, errors
from api.sent import Answer, Found

T = TypeVar("T")


class Data(msgspec.Struct, Generic[T], frozen=True):
    """One resource."""

    data: T


class PageMeta(msgspec.Struct, frozen=True, omit_defaults=True):
    """`next_cursor` leads to the next page, null at the end. `parked` is there if what is shown lacks events of so many
    products or sales, because they could not be processed; an operator has been told."""

    next_cursor: str | None
    parked: int = 0


class Page(msgspec.Struct, Generic[T], frozen=True):
    """At most `limit` resources."""

    data: list[T]
    meta: PageMeta


def one(resource: T, position: int | str, *, version: int | str | None = None) -> Response[Data[T]]:
    """200, or to a query 304. `version` as in `sent.Found`."""
    return Found(Data(resource), position, version)


def page(resources: list[T], next_id: UUID | None, position: int | str, parked: int) -> Response[Page[T]]:
    """200, or 304."""
    return Found(Page(resources, PageMeta(cursors.encode(next_id), parked)), position)


def created(resource: T, position: int | str, location: str, *, version: int | str | None = None) -> Response[Data[T]]:
    """201."""
    return Answer(Data(resource), status_code=201, headers={**headers(position, version), "Location": location})


def nothing(position: int | str) -> Response[None]:
    """204."""
    return Answer(None, status_code=204, headers=headers(position))


def headers(position: int | str, version: int | str | None = None) -> dict[str, str]:
    if version is None:
        return {"X-Position": str(position)}
    return {"X-Position": str(position), "ETag": f'"{version}"'}


def _header(name: str, description: str, pattern: str | None = None) -> Parameter:
    schema = Schema(type=OpenAPIType.STRING, pattern=pattern)
    return Parameter(name=name, param_in="header", required=False, description=description, schema=schema)


_TEXT = Schema(type=OpenAPIType.STRING)
_SENT_EVENT = Schema(
    type=OpenAPIType.OBJECT,
    description="Of each event its fields (HTML Living Standard, 9.2); `data` is JSON.",
    properties={"id": _TEXT, "event": _TEXT, "data": _TEXT, "retry": Schema(type=OpenAPIType.INTEGER)},
)
_PROBLEM = Schema(
    title="Problem",
    type=OpenAPIType.OBJECT,
    description="Problem details for HTTP APIs (RFC 9457).",
    required=["type", "title", "status", "detail", "errors"],
    properties={
        "type": _TEXT,
        "title": _TEXT,
        "status": Schema(type=OpenAPIType.INTEGER),
        "detail": _TEXT,
        "second_factor": Schema(
            type=OpenAPIType.OBJECT,
            description="Of a log-in whose password was right: what it goes on with.",
            required=["challenge", "enrol"],
            properties={"challenge": _TEXT, "enrol": Schema(type=OpenAPIType.BOOLEAN)},
        ),
        "errors": Schema(
            type=OpenAPIType.OBJECT,
            description='{field: [messages]}, or {"detail": message} where no field is to blame.',
            additional_properties=Schema(one_of=[_TEXT, Schema(type=OpenAPIType.ARRAY, items=_TEXT)]),
        ),
    },
)
_DESCRIPTIONS = {
    400: "It cannot be read.",
    401: "No access token, or none that is good.",
    403: "The role lacks the right.",
    404: "There is none, in this tenant.",
    409: "What is recorded forbids it, or it was changed meanwhile.",
    410: "Too far behind: fetch what the queries give and begin anew.",
    412: "It is no longer the version of If-Match.",
    414: "The address is longer than 2 KiB, or its query than 8 KiB.",
    413: "The body is larger than 1 MiB, or an event would be larger than 64 KiB.",
    415: "The body is not application/json.",
    422: "A value breaks a rule.",
    429: "Too many requests: send it again after Retry-After seconds. The detail names the limit.",
    431: "More than 100 headers, or more than 32 KiB of them.",
    500: "A bug. Nothing was kept.",
    503: "Not now: try again after Retry-After seconds.",
}
PROBLEMS: dict[str, OpenAPIResponse | Reference] = {
    f"Problem{status}": OpenAPIResponse(
        description=description, content={errors.MEDIA_TYPE: OpenAPIMediaType(schema=_PROBLEM)}
    )
    for status, description in _DESCRIPTIONS.items()
}
"""The document's shared responses, by the names that operations refer to."""


@dataclasses.dataclass
class PublicOperation(Operation):
    """Documents what the framework does not see. Subclasses say more."""

    statuses: ClassVar[tuple[int, ...]] = (400, 422, 500, 503)
    header_parameters: ClassVar[tuple[Parameter, ...]] = ()
    open_to_all: ClassVar[bool] = True
    position_shown: ClassVar[bool] = False

    def __post_init__(self) -> None:
        statuses = {414, 429, 431, *self.statuses}
        if self.request_body is not None:
            statuses |= {413, 415, 422}
        if any(isinstance(each, Parameter) and each.param_in == "path" for each in self.parameters or ()):
            statuses.add(404)
        self.parameters = [*(self.parameters or ()), *self.header_parameters] or None
        responses: dict[str, OpenAPIResponse | Reference] = dict(self.responses or {})
        for nothing_said in (responses.get("202"), responses.get("204")):
            if isinstance(nothing_said, OpenAPIResponse) and "null" in str(nothing_said.content):
                nothing_said.content = None  # the framework documents a body of type null
        if self.position_shown:
            for good in responses.values():
                if isinstance(good, OpenAPIResponse):
                    good.headers = {**(good.headers or {}), "X-Position": OpenAPIHeader(schema=_TEXT)}
        for status in sorted(statuses):
            responses[str(status)] = Reference(ref=f"#/components/responses/Problem{status}")
        self.responses = responses
        self.security = [] if self.open_to_all else [{"bearer": []}]


@dataclasses.dataclass
class Plain(PublicOperation):
    """Takes nothing."""

    statuses = (500,)


@dataclasses.dataclass
class LogInOperation(PublicOperation):
    statuses = (400, 401, 403, 409, 422, 500, 503)


@dataclasses.dataclass
class CodeOperation(PublicOperation):
    """Takes a code of a second factor, or a token that came by mail."""

    statuses = (400, 401, 403, 409, 422, 429, 500, 503)


@dataclasses.dataclass
class Query(PublicOperation):
    statuses = (400, 401, 403, 422, 500, 503)
    header_parameters = (
        _header("X-Position", "The answer shows at least this position: the value of an earlier answer's X-Position."),
        _header(
            "If-None-Match", "The ETag of an earlier answer. It is 304, without a body, if that is still the answer."
        ),
    )
    open_to_all = False
    position_shown = True

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.responses is not None
        good = self.responses["200"]
        assert isinstance(good, OpenAPIResponse)
        good.headers = {**(good.headers or {}), "ETag": OpenAPIHeader(schema=_TEXT)}
        self.responses["304"] = OpenAPIResponse(
            description="As it was: the body is the one of If-None-Match.", headers=good.headers
        )


@dataclasses.dataclass
class Once(PublicOperation):
    """As Query, of what nobody should keep."""

    statuses = Query.statuses
    header_parameters = Query.header_parameters[:1]
    open_to_all = False
    position_shown = True


@dataclasses.dataclass
class Command(PublicOperation):
    statuses = (400, 401, 403, 409, 412, 413, 422, 500, 503)
    header_parameters = (
        _header(
            "Idempotency-Key",
            "A repeat with the same key and the same request within 24 h has the first one's answer, also a refusal "
            "(404, 409, 422). Of no use at /auth/*.",
            "^[ -~]{1,255}$",
        ),
        _header(
            "If-Match", "The ETag that the change was decided upon.", r'^(\*|"[0-9]{1,9}(-g[0-9]{1,9})?(-erased)?")$'
        ),
    )
    open_to_all = False
    position_shown = True


@dataclasses.dataclass
class Subscription(PublicOperation):
    statuses = (400, 401, 403, 410, 422, 500, 503)
    header_parameters = (_header("Last-Event-ID", "Where to go on: the id of the last message that was received."),)
    open_to_all = False

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.responses is not None
        good = self.responses["200"]
        assert isinstance(good, OpenAPIResponse)
        good.content = {"text/event-stream": OpenAPIMediaType(schema=_SENT_EVENT)}


@dataclasses.dataclass
class Grant(PublicOperation):
    """Gives something to the caller that is no record of the tenant's."""

    statuses = (400, 401, 403, 500, 503)
    open_to_all = False
