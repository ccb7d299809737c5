"""The audit trail: a tenant's security events, the last one first."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from api import answers, asked, errors
from api.asked import Reader
from api.rights import may
from api.routes import get
from api.sent import Found
from domain import instants, refusals
from ledger import errors as ledger_errors
from ledger import read, replay, security

LIMIT_DEFAULT, LIMIT_MAX = 20, 100
LOOKED_AT_MAX = 10_000
"""Events that one answer looks at for those that were asked for; `next_cursor` goes on after them."""
KIND = re.compile(r"[a-z_]{1,40}(\.[a-z_]{1,60})?")
END = 2**62


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is the event's topic, `subject_id` what it is about: an account, a session, the tenant. `actor_id` and `role` are of whoever
    did it, null where nobody was known. `details` is what the event says, without persons' data."""

    position: int | str
    kind: str
    subject_id: UUID
    actor_id: UUID | None
    role: str
    request_id: str
    recorded_at: datetime
    details: dict[str, Any]


class AuditMeta(msgspec.Struct, frozen=True, kw_only=True):
    """`next_cursor` leads to older events, null at the beginning of the stream. A page may be short, or empty, and not be the last."""

    next_cursor: str | None


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[Event]
    meta: AuditMeta


class _By(msgspec.Struct):
    actor_id: UUID | None = None
    role: str = ""
    request_id: str = ""


_BY = msgspec.json.Decoder(_By)


class AuditController(Controller):
    path = "/audit"
    tags = ("ledger",)

    @get(operation_id="listAudit", operation_class=answers.Query, guards=[may("audit:read")])
    async def index(
        self,
        reader: NamedDependency[Reader],
        kind: FromQuery[str | None] = None,
        actor: FromQuery[UUID | None] = None,
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        cursor: FromQuery[str | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    ) -> Response[AuditPage]:
        """Log-ins and failed ones, changes of accounts, rights and tenant, keys, erasures: the last first. `kind` is a topic, or what
        stands before its dot; `since` and `until` are times (RFC 3339), both included."""
        if kind is not None and KIND.fullmatch(kind) is None:
            text = f"This is no kind of event: {kind[:40]!r}. Give a topic such as session.started, or session."
            raise errors.RequestRefused(errors.INVALID, text, {"kind": [text]})
        head = await reader.head()
        after, before = await _between(reader, since, until, cursor)
        found: list[Event] = []
        looked_at, more = 0, True
        async with reader.parts.pool.connection() as connection:
            while more and len(found) < limit and looked_at < LOOKED_AT_MAX:
                entries = await security.entries(
                    connection, reader.tenant_id, after, before, limit if looked_at == 0 else security.ENTRIES_MAX
                )
                more = bool(entries)
                for entry in entries:
                    looked_at, before = looked_at + 1, entry.position
                    event = of_entry(entry, reader)
                    if _is_of(entry.topic, kind) and actor in (None, event.actor_id):
                        found.append(event)
                        if len(found) == limit:
                            break
        page = AuditPage(data=found, meta=AuditMeta(next_cursor=str(reader.shown(before)) if more else None))
        return Found(page, reader.shown(head))


async def _between(reader: Reader, since: str | None, until: str | None, cursor: str | None) -> tuple[int, int]:
    """Positions, both not included. Raises RequestRefused, TimeUnreadable, TimeWithoutZone, TimeOutOfRange."""
    try:
        after, before = 0, END if cursor is None else asked.number(reader.parts, reader.who, cursor)
    except ledger_errors.PositionTokenInvalid:
        text = f"The cursor {refusals.shown(str(cursor))} is none of ours. Use next_cursor of the page before, or none."
        raise errors.RequestRefused(errors.INVALID, text, {"cursor": [text]}) from None
    if since is not None or until is not None:
        first = None if since is None else instants.parsed(since, "since") - timedelta(microseconds=1)
        last = None if until is None else instants.parsed(until, "until")
        async with reader.parts.pool.connection() as connection:
            if first is not None:
                after = await replay.position_at(connection, reader.tenant_id, first)
            if last is not None:
                before = min(before, await replay.position_at(connection, reader.tenant_id, last) + 1)
    return after, before


def _is_of(topic: str, kind: str | None) -> bool:
    return kind is None or topic == kind or topic.partition(".")[0] == kind


def of_entry(entry: read.Entry, reader: Reader) -> Event:
    by = _BY.decode(entry.metadata)
    personal = reader.parts.ledger.codec.personal_of(entry.topic)
    state: dict[str, Any] = msgspec.json.decode(entry.state)
    details = {name: value for name, value in state.items() if name not in personal and name != "class_version"}
    return Event(
        position=reader.shown(entry.position),
        kind=entry.topic,
        subject_id=entry.originator_id,
        actor_id=by.actor_id,
        role=by.role,
        request_id=by.request_id,
        recorded_at=entry.recorded_at,
        details=details,
    )
