"""`audit verify` and `audit replay`."""

from argparse import Namespace
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from rich.console import RenderableType
from rich.text import Text

from bitnexus import cli, database, directory, installation, process
from bitnexus.cli import loop
from bitnexus.cli.output import Bars, Output, table
from bitnexus.process import Process
from bitnexus.settings import Settings
from commands import tenants
from domain import instants
from ledger import errors, legibility, replay
from ledger import verify as verifying

FIELD_LENGTH_SHOWN = 100
"""Characters of a value in a table; --json has all of it."""
UNREADABLE_SHOWN_MAX = 20
"""Lines on unreadable fields for each tenant; --json names more of them (legibility.UNREADABLE_NAMED_MAX)."""

_COUNTS = ("personal fields in clear", "erased", "unreadable")


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's chain. `events` are good, the last of them at `position` with `hash`. `personal` if it was asked for."""

    tenant: str | None  # slug; None: the platform does not know the tenant
    tenant_id: UUID
    events: int
    position: int
    hash: str
    verdict: str  # good | broken
    broken_position: int | None = None
    why: str | None = None
    personal: legibility.Legibility | None = None


def verify(arguments: Namespace, settings: Settings, output: Output) -> int:
    with installation.opened(settings, output.say) as base, output.progress() as bars:
        wanted, slugs = loop.run(_known(base, arguments.tenant))
        with database.connect_sync(base.app_url, "projector") as connection:
            asked = [
                _Tenant(tenant_id, slugs.get(tenant_id), head)
                for tenant_id, head in verifying.tenants(connection)
                if wanted in (None, tenant_id)
            ]
            verdicts = [verifying.verify(connection, each.id, each.bar(bars)) for each in asked]
        personal = loop.run(_personal(base, asked, bars)) if arguments.personal else [None] * len(asked)
    if wanted is not None and not asked:
        raise errors.TenantUnknown(wanted)
    checked = [_checked(*each) for each in zip(asked, verdicts, personal, strict=True)]
    overall = _overall(checked)
    output.result({"verdict": overall, "tenants": checked}, *_verdicts(checked), *_legibility(checked))
    return cli.GOOD if overall == "good" else cli.FINDING


class _Tenant(NamedTuple):
    id: UUID
    slug: str | None
    head: int

    def bar(self, bars: Bars, what: str = "") -> Callable[[int], None]:
        """Moves this tenant's bar."""
        return lambda done: bars.move(f"{self.slug or self.id}{what}", done, self.head)


async def _known(base: installation.Installation, slug: str | None) -> tuple[UUID | None, dict[UUID, str]]:
    """The tenant that is asked for, and all slugs."""
    async with process.running(base, projecting=False) as parts:
        wanted = None if slug is None else await tenants.find(slug, parts.ledger)
        async with parts.projector.connection() as connection:
            return wanted, await directory.slugs(connection, parts.ledger.codec)


async def _personal(
    base: installation.Installation, asked: Iterable[_Tenant], bars: Bars
) -> list[legibility.Legibility | None]:
    """What the persons' data of these tenants read as, also where the chain is broken."""
    async with process.running(base, projecting=False) as parts, parts.projector.connection() as connection:
        codec, keyring = parts.ledger.codec, parts.ledger.keyring
        return [
            await legibility.check(connection, codec, keyring, each.id, each.bar(bars, ", persons")) for each in asked
        ]


def _overall(checked: Iterable[Checked]) -> str:
    """good | unreadable (every chain is good, some person's data are not) | broken"""
    if any(each.verdict != "good" for each in checked):
        return "broken"
    return "unreadable" if any(each.personal and each.personal.unreadable for each in checked) else "good"


def _checked(tenant: _Tenant, verdict: verifying.Verdict, personal: legibility.Legibility | None) -> Checked:
    broken = verdict.broken
    return Checked(
        tenant=tenant.slug,
        tenant_id=verdict.tenant_id,
        events=verdict.events,
        position=verdict.events,
        hash=verdict.hash.hex(),
        verdict="good" if broken is None else "broken",
        broken_position=None if broken is None else broken.position,
        why=None if broken is None else broken.why,
        personal=personal,
    )


def _verdicts(checked: Iterable[Checked]) -> list[RenderableType]:
    lines = table("tenant", "events", "position", "hash", "verdict", right=("events", "position"))
    findings: list[RenderableType] = []
    for each in checked:
        name = each.tenant or str(each.tenant_id)
        style = "green" if each.verdict == "good" else "bold red"
        lines.add_row(name, f"{each.events:,}", f"{each.position:,}", each.hash, Text(each.verdict, style=style))
        if each.verdict != "good":
            findings.append(
                Text(
                    f"{name} is broken at position {each.broken_position}: {each.why}. "
                    "Keep the database as it is, compare it with a backup from that position on, and find out who wrote to it.",
                    style="bold red",
                )
            )
    return [lines, *findings]


def _legibility(checked: Iterable[Checked]) -> list[RenderableType]:
    lines = table("tenant", *_COUNTS, right=_COUNTS)
    findings: list[RenderableType] = []
    for each in checked:
        if each.personal is None:
            continue
        name, found = each.tenant or str(each.tenant_id), each.personal
        style = "bold red" if found.unreadable else "green"
        lines.add_row(name, f"{found.clear:,}", f"{found.erased:,}", Text(f"{found.unreadable:,}", style=style))
        findings += [
            Text(f"{name}: {_what(one)} at position {one.position} is unreadable.", style="bold red")
            for one in found.named[:UNREADABLE_SHOWN_MAX]
        ]
        if found.unreadable > UNREADABLE_SHOWN_MAX:
            findings.append(Text(f"{name}: {found.unreadable - UNREADABLE_SHOWN_MAX:,} more; --json names them."))
    if findings:
        findings.append(Text("Everything else can be read. Compare these events with a backup: docs/privacy.md."))
    return [lines, *findings] if lines.row_count else []


def _what(found: legibility.Unreadable) -> str:
    return f"the whole {found.topic}" if found.field is None else f"the field {found.field} of {found.topic}"


class AggregateIdInvalid(loop.InputWrong):
    def __init__(self, text: str) -> None:
        super().__init__(
            "The aggregate's id is not a UUID", repr(text[:80]), "Give it as an answer of the API shows it"
        )


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an aggregate. `fields`: its own, persons' data in clear."""

    position: int
    version: int
    topic: str
    recorded_at: datetime
    fields: dict[str, Any]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate's events up to a position, and what they make it."""

    id: UUID
    kind: str
    position: int
    version: int
    events: list[Happened]
    state: dict[str, Any]


def replayed(arguments: Namespace, settings: Settings, output: Output) -> int:
    aggregate_id = None if arguments.aggregate is None else _uuid(arguments.aggregate)
    instant = None if arguments.at is None else instants.parsed(arguments.at, "--at")

    async def work(parts: Process) -> replay.Replayed | History:
        tenant_id = await tenants.find(arguments.tenant, parts.ledger)
        to = await _position(parts, tenant_id, arguments.to, instant)
        if aggregate_id is not None:
            return await _history_of(parts, tenant_id, aggregate_id, to)
        async with parts.projector.connection() as connection:
            with output.progress() as bars:
                return await replay.tenant(
                    *(connection, parts.ledger.codec, tenant_id, to),
                    lambda events: bars.move(arguments.tenant, events, to),
                )

    found = loop.with_process(settings, output, work)
    output.result(found, *(_history(found) if isinstance(found, History) else _shown(found)))
    return cli.GOOD


async def _position(parts: Process, tenant_id: UUID, to: int | None, instant: datetime | None) -> int:
    """The one that is asked for, else the head's. Raises PositionBeyond."""
    if instant is not None:
        async with parts.app.connection() as connection:
            return await replay.position_at(connection, tenant_id, instant)
    head = (await parts.ledger.head(tenant_id)).position
    if to is not None and to > head:
        raise replay.PositionBeyond(to, head)
    return head if to is None else to


async def _history_of(parts: Process, tenant_id: UUID, id: UUID, to: int) -> History:
    events: list[Happened] = []

    def happened(each: replay.Happened) -> None:
        events.append(
            Happened(
                position=each.entry.position,
                version=each.entry.originator_version,
                topic=each.entry.topic,
                recorded_at=each.entry.recorded_at,
                fields=each.fields,
            )
        )

    ledger = parts.ledger
    async with parts.app.connection() as connection:
        was = await replay.aggregate(connection, ledger.codec, ledger.keyring, tenant_id, id, to, happened=happened)
    return History(id=was.id, kind=was.kind, position=to, version=was.version, events=events, state=was.state)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise AggregateIdInvalid(text) from None


def _shown(found: replay.Replayed) -> list[RenderableType]:
    topics = table("topic", "events", right=("events",))
    for topic, count in found.topics.items():
        topics.add_row(topic, f"{count:,}")
    kinds = table("aggregate", "count", right=("count",))
    for kind, count in found.aggregates.items():
        kinds.add_row(kind, f"{count:,}")
    recorded = "" if found.recorded_at is None else f", recorded {found.recorded_at:%Y-%m-%d %H:%M:%S}Z"
    return [
        topics,
        kinds,
        Text(f"position {found.position:,}{recorded}\nhash          {found.hash}\nstate digest  {found.digest}"),
    ]


def _history(found: History) -> list[RenderableType]:
    events = table("position", "version", "recorded", "topic", "fields", right=("position", "version"))
    for each in found.events:
        recorded = f"{each.recorded_at:%Y-%m-%d %H:%M:%S}Z"
        events.add_row(f"{each.position:,}", str(each.version), recorded, each.topic, _written(each.fields))
    state = table("field", f"{found.kind} {found.id} at version {found.version}")
    for name, value in found.state.items():
        state.add_row(name, _short(value))
    return [events, state]


def _written(fields: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {_short(value)}" for name, value in fields.items())


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= FIELD_LENGTH_SHOWN else text[:FIELD_LENGTH_SHOWN] + "…"
