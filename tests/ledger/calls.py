"""`ledger.append`, or a function that promises the same, called directly: as a process would, and as a careless or hostile one could.

Arrays are passed as what psycopg makes of lists, not as the appender packs them.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import Connection
from psycopg.rows import TupleRow

from ledger import chain, ids, verify

APPENDED, REPLAYED, ID_REUSED, VERSION_CONFLICT, RESERVATION_TAKEN, TOO_LARGE, TENANT_UNKNOWN = range(7)

PARAMETERS = {
    "p_tenants": "pg_catalog.uuid[]",
    "c_tenant": "pg_catalog.int4[]",
    "c_id": "pg_catalog.uuid[]",
    "c_fingerprint": "pg_catalog.bytea[]",
    "c_outcome": "pg_catalog.bytea[]",
    "c_events": "pg_catalog.int4[]",
    "e_originator": "pg_catalog.uuid[]",
    "e_version": "pg_catalog.int4[]",
    "e_topic": "pg_catalog.text[]",
    "e_state": "pg_catalog.bytea[]",
    "e_metadata": "pg_catalog.bytea[]",
    "r_command": "pg_catalog.int4[]",
    "r_kind": "pg_catalog.text[]",
    "r_key": "pg_catalog.bytea[]",
    "r_owner": "pg_catalog.uuid[]",
    "r_claim": "pg_catalog.bool[]",
    "s_command": "pg_catalog.int4[]",
    "s_owner": "pg_catalog.uuid[]",
    "s_kind": "pg_catalog.text[]",
    "s_value": "pg_catalog.bytea[]",
}
"""In the order of migrations/0002_pre_append.sql."""

TABLES = ("heads", "events", "commands", "reservations", "secrets", "subjects", "subject_keys")

READS = {
    "k_tenant": "pg_catalog.uuid[]",
    "k_kind": "pg_catalog.text[]",
    "k_key": "pg_catalog.bytea[]",
    "k_owner": "pg_catalog.uuid[]",
    "k_hash": "pg_catalog.bytea[]",
}
"""What `ledger.append_validating` takes beside them."""

_NO_READS = ", ".join(f"'{{}}'::{type_name}" for type_name in READS.values())
FUNCTIONS = {
    "append": "SELECT * FROM ledger.append(ARGUMENTS)",
    "append_validating": f"SELECT * FROM ledger.append_validating(ARGUMENTS, {_NO_READS})",
}
"""What a call is sent to: without reads both promise the same."""

Arrays = dict[str, list[Any]]


through = "append"


class Event(NamedTuple):
    """What a command wants to append."""

    originator: UUID
    version: int = 1
    state: bytes = b"{}"
    topic: str = "thing.made"
    metadata: bytes = b'{"by":"test"}'


class Key(NamedTuple):
    """A reservation: what is claimed or released, and for whom."""

    key: bytes  # 32 bytes
    owner: UUID
    kind: str = "sku"


class Secret(NamedTuple):
    owner: UUID
    value: bytes | None
    kind: str = "password"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a call."""

    tenant: UUID
    id: UUID = dataclasses.field(default_factory=ids.new_id)
    fingerprint: bytes = b""
    outcome: bytes = b"outcome"
    events: Sequence[Event] = ()
    releases: Sequence[Key] = ()
    claims: Sequence[Key] = ()
    secrets: Sequence[Secret] = ()


class Answer(NamedTuple):
    """One row that the function gives back."""

    status: int
    position: int | None
    recorded_at: datetime | None
    outcome: bytes | None
    kind: str | None
    owner: UUID | None


def arrays_of(commands: Iterable[Command]) -> Arrays:
    """The twenty parameters, by name. Commands are in tenant order."""
    arrays: Arrays = {name: [] for name in PARAMETERS}
    for number, command in enumerate(commands, 1):
        if command.tenant not in arrays["p_tenants"]:
            arrays["p_tenants"].append(command.tenant)
        tenant = arrays["p_tenants"].index(command.tenant) + 1
        _add(arrays, "c_", tenant, command.id, command.fingerprint, command.outcome, len(command.events))
        for event in command.events:
            _add(arrays, "e_", event.originator, event.version, event.topic, event.state, event.metadata)
        for claim, keys in ((False, command.releases), (True, command.claims)):
            for key in keys:
                _add(arrays, "r_", number, key.kind, key.key, key.owner, claim)
        for secret in command.secrets:
            _add(arrays, "s_", number, secret.owner, secret.kind, secret.value)
    return arrays


def _add(arrays: Arrays, prefix: str, *values: object) -> None:
    for name, value in zip([name for name in PARAMETERS if name.startswith(prefix)], values, strict=True):
        arrays[name].append(value)


def call(
    connection: Connection[TupleRow], arrays: Mapping[str, list[Any]], reshaped: Mapping[str, str] | None = None
) -> list[Answer]:
    """The rows of one call, of the function `through`. `reshaped`: per parameter an SQL expression over `{}`, the array as it is."""
    shapes = reshaped or {}
    arguments = [
        shapes.get(name, "{}").replace("{}", f"%({name})s::{type_name}") for name, type_name in PARAMETERS.items()
    ]
    query = FUNCTIONS[through].replace("ARGUMENTS", ", ".join(arguments))
    return [Answer(*row) for row in connection.execute(query.encode(), arrays, binary=True)]


def append(connection: Connection[TupleRow], *commands: Command) -> list[Answer]:
    """What became of each command of one call, in the order given; tenants in the order of their first command."""
    return call(connection, arrays_of(commands))


def statuses(answers: Iterable[Answer]) -> list[int]:
    return [answer.status for answer in answers]


def open_streams(connection: Connection[TupleRow], count: int) -> list[UUID]:
    """New tenants, in the order of their ids."""
    tenants = sorted(ids.new_id() for _ in range(count))
    for tenant in tenants:
        connection.execute("SELECT ledger.open_stream(%s)", (tenant,))
    return tenants


def key(number: int) -> bytes:
    """What stands for a unique key: 32 bytes."""
    return number.to_bytes(32, "big")


def contents(owner: Connection[TupleRow]) -> dict[str, list[TupleRow]]:
    """Every row of the ledger. `owner` is a superuser, whom row-level security does not hold."""
    return {
        table: owner.execute(f"SELECT * FROM ledger.{table} ORDER BY 1, 2, 3".encode()).fetchall() for table in TABLES
    }


def assert_good(projector: Connection[TupleRow], tenant: UUID, events: int) -> None:
    """The chain is whole and as long as that."""
    verdict = verify.verify(projector, tenant)
    assert (verdict.broken, verdict.events) == (None, events)


def state_of_size(leaf_bytes: int, event: Event) -> bytes:
    """A state that makes the event's leaf that long."""
    rest = chain.LEAF_BYTES_FIXED + len(event.topic.encode()) + len(event.metadata)
    return b"x" * (leaf_bytes - rest)


def read_whole(app: Connection[TupleRow]) -> list[str]:
    """The ledger's tables that this transaction read from end to end."""
    rows = app.execute(
        "SELECT relname FROM pg_catalog.pg_stat_xact_all_tables WHERE schemaname = 'ledger' AND seq_scan > 0"
    ).fetchall()
    return [name for (name,) in rows]
