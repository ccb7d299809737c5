"""The stream as it is stored, for who may read it whole."""

import base64
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api import answers
from api.asked import Reader
from api.rights import may
from ledger import chain, read

ENTRIES_DEFAULT = 100
ENTRIES_MAX = 1_000
"""An entry has up to 64 KiB; usual ones make a page of half a megabyte."""
POSITION_MAX = 2**63 - 1


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the tenant's stream. `hash` in hexadecimal."""

    tenant_id: UUID
    position: int
    hash: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event as it is stored. `state` and `metadata` hold the stored bytes exactly: as text, or in base64 if `encoding`
    says so. `hash` and `previous_hash` in hexadecimal."""

    position: int
    topic: str
    originator_id: UUID
    originator_version: int
    recorded_at: datetime
    state: str
    metadata: str
    hash: str
    previous_hash: str
    encoding: str | None = None


class EntriesMeta(msgspec.Struct, frozen=True, kw_only=True):
    """`next_cursor` is what to pass as `from` for the next page, null at the end of the stream."""

    next_cursor: str | None
    head: int


class Entries(msgspec.Struct, frozen=True, kw_only=True):
    data: list[Entry]
    meta: EntriesMeta


class LedgerController(Controller):
    path = "/ledger"
    tags = ("ledger",)

    @get("/head", operation_id="showLedgerHead", operation_class=answers.Query, guards=[may("ledger:read")])
    async def head(self, reader: NamedDependency[Reader]) -> Response[answers.Data[Head]]:
        """Position and hash of the tenant's last event."""
        await reader.head()
        head = await reader.parts.ledger.head(reader.tenant_id)
        resource = Head(tenant_id=head.tenant_id, position=head.position, hash=head.hash.hex())
        return answers.one(resource, head.position)

    @get("/entries", operation_id="listLedgerEntries", operation_class=answers.Query, guards=[may("ledger:read")])
    async def entries(
        self,
        reader: NamedDependency[Reader],
        first: Annotated[int, QueryParameter(name="from", ge=1, le=POSITION_MAX)] = 1,
        limit: Annotated[int, QueryParameter(ge=1, le=ENTRIES_MAX)] = ENTRIES_DEFAULT,
    ) -> Response[Entries]:
        """Events in order of position, from the position `from` on."""
        head = await reader.head()
        found = await _with_the_one_before(reader, first, limit)
        previous = found[0].hash if first > 1 and found else chain.genesis(reader.tenant_id)
        data: list[Entry] = []
        for entry in found[1:] if first > 1 else found:
            data.append(_entry(entry, previous))
            previous = entry.hash
        following = data[-1].position + 1 if data else first
        meta = EntriesMeta(next_cursor=str(following) if following <= head else None, head=head)
        return Response(Entries(data=data, meta=meta), headers=answers.headers(head))


async def _with_the_one_before(reader: Reader, first: int, limit: int) -> list[read.Entry]:
    """The entry before `first`, if there is one: its hash is the first entry's previous hash."""
    if first == 1:
        return await reader.parts.ledger.entries(reader.tenant_id, 0, limit)
    return await reader.parts.ledger.entries(reader.tenant_id, first - 2, limit + 1)


def _entry(entry: read.Entry, previous: bytes) -> Entry:
    try:
        state, metadata, encoding = entry.state.decode(), entry.metadata.decode(), None
    except UnicodeDecodeError:
        state, metadata = (base64.b64encode(each).decode() for each in (entry.state, entry.metadata))
        encoding = "base64"
    return Entry(
        position=entry.position,
        topic=entry.topic,
        originator_id=entry.originator_id,
        originator_version=entry.originator_version,
        recorded_at=entry.recorded_at,
        state=state,
        metadata=metadata,
        hash=entry.hash.hex(),
        previous_hash=previous.hex(),
        encoding=encoding,
    )
