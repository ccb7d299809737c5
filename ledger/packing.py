"""Commands as an appender takes them, and as the parameters that the functions take which append them."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from ledger import arrays, chain, errors, revocations

VERSION_MAX = 2**31 - 1
READ_BYTES = 1_000
"""What a read counts for: it is validated while the head is locked, in some 4 µs, so that a flush has no more than 8,000 of them."""

# The order of the parameters is that of migrations/0002_pre_append.sql.
APPEND = "SELECT * FROM ledger.append(" + ", ".join(["%b"] * 20) + ")"
STATEMENTS = {
    "append": "AS SELECT * FROM ledger.append(" + ", ".join(f"${n}" for n in range(1, 21)) + ")",
    # The same for a flush that erases somebody, of migrations/0006_pre_erasure.sql.
    "append_erasing": "AS SELECT * FROM ledger.append_erasing(" + ", ".join(f"${n}" for n in range(1, 23)) + ")",
    # The same for a flush with reads (0033), and the cheaper way for one without anything but events of one tenant (0034).
    "append_validating": "AS SELECT * FROM ledger.append_validating(" + ", ".join(f"${n}" for n in range(1, 26)) + ")",
    # The same for a flush that ends sessions or suspends a tenant (ledger.append_revoking).
    "append_revoking": "AS SELECT * FROM ledger.append_revoking(" + ", ".join(f"${n}" for n in range(1, 26)) + ")",
}


class Event(NamedTuple):
    """What is stored of one event. `state` and `metadata` are UTF-8 JSON objects."""

    originator_id: bytes
    originator_version: int
    topic: bytes
    state: bytes
    metadata: bytes


class Reservation(NamedTuple):
    """A unique key claimed (or released) for its owner."""

    kind: bytes
    key: bytes
    owner: bytes
    claim: bool


class SecretValue(NamedTuple):
    """A mutable secret; value None deletes it."""

    owner: bytes
    kind: bytes
    value: bytes | None


class Read(NamedTuple):
    """What a command was decided upon and does not change: the owner's last event has that hash (32 bytes), and with a kind, which is empty
    else, the owner holds that key."""

    kind: bytes
    key: bytes
    owner: bytes
    hash: bytes


class Command(NamedTuple):
    """All or nothing. May carry no event: then the command id and its outcome are recorded all the same."""

    tenant_id: UUID
    command_id: UUID
    fingerprint: bytes
    outcome: bytes
    events: Sequence[Event]
    reservations: Sequence[Reservation] = ()
    secrets: Sequence[SecretValue] = ()
    erasures: Sequence[bytes] = ()  # subjects whose keys, references and own secrets end with this command
    revocations: Sequence[tuple[bytes, bool]] = ()  # ids that tokens name; true: counts no more, false: counts again
    reads: Sequence[Read] = ()  # not with erasures or revocations


def checked_size(command: Command) -> int:
    """Bytes that it holds in the queue, about. Raises EventTooLarge, ValueError for what the database would refuse anyhow."""
    if command.reads and (command.erasures or command.revocations):
        raise ValueError(
            "no statement validates what a command read and erases or revokes for it, too: give one or the other"
        )
    size = 200 + len(command.outcome) + READ_BYTES * len(command.reads)
    for _, version, topic, state, metadata in command.events:
        leaf_bytes = len(topic) + len(state) + len(metadata) + chain.LEAF_BYTES_FIXED
        if leaf_bytes > chain.LEAF_BYTES_MAX:
            raise errors.EventTooLarge(command.command_id)
        if not 1 <= version <= VERSION_MAX:
            raise ValueError(f"the version {version} is not in 1 … {VERSION_MAX}")
        size += leaf_bytes
    return size


def call(commands: Sequence[Command]) -> tuple[str, list[bytes]]:
    """Which of STATEMENTS appends them, and its parameters. `commands` are in tenant order; none has reads where another one has
    erasures or revocations."""
    parameters, statement = pack(commands), "append"
    if any(command.revocations for command in commands):
        revoking = revocations.packed([command.revocations for command in commands])
        parameters, statement = [*parameters, *pack_erasures(commands), *revoking], "append_revoking"
    elif any(command.erasures for command in commands):
        parameters, statement = [*parameters, *pack_erasures(commands)], "append_erasing"
    elif (reads := reads_of(commands)) or _is_plain(commands):
        parameters, statement = [*parameters, *(pack_reads(reads) if reads else _NO_READS)], "append_validating"
    return statement, [each.data for each in parameters]


def _is_plain(commands: Sequence[Command]) -> bool:
    """Whether they are what the database takes the short way with: of one tenant, with an event each and nothing else."""
    of_one = commands[0].tenant_id == commands[-1].tenant_id
    return of_one and all(len(each.events) == 1 and not each.reservations and not each.secrets for each in commands)


def pack(commands: Sequence[Command]) -> list[arrays.PackedArray]:
    """The twenty parameters of `ledger.append`. `commands` are in tenant order."""
    tenants: dict[int, int] = {}  # by number: a UUID is hashed in Python
    c_tenant = [tenants.setdefault(command.tenant_id.int, len(tenants) + 1) for command in commands]
    events = [event for command in commands for event in command.events]
    originators, versions, topics, states, metadatas = zip(*events, strict=True) if events else ((), (), (), (), ())
    reservations = [(c, r) for c, command in enumerate(commands, 1) for r in command.reservations]
    secrets = [(c, s) for c, command in enumerate(commands, 1) for s in command.secrets]
    return [
        arrays.UuidArray.of([tenant.to_bytes(16) for tenant in tenants]),
        arrays.Int4Array.of(c_tenant),
        arrays.UuidArray.of([command.command_id.int.to_bytes(16) for command in commands]),
        arrays.ByteaArray.of([command.fingerprint for command in commands]),
        arrays.ByteaArray.of([command.outcome for command in commands]),
        arrays.Int4Array.of([len(command.events) for command in commands]),
        arrays.UuidArray.of(originators),
        arrays.Int4Array.of(versions),
        arrays.TextArray.of(topics),
        arrays.ByteaArray.of(states),
        arrays.ByteaArray.of(metadatas),
        *(_pack_reservations(reservations) if reservations else _NO_RESERVATIONS),
        *(_pack_secrets(secrets) if secrets else _NO_SECRETS),
    ]


def _pack_reservations(reservations: Sequence[tuple[int, Reservation]]) -> list[arrays.PackedArray]:
    """Each with its command's number, from 1."""
    return [
        arrays.Int4Array.of([c for c, _ in reservations]),
        arrays.TextArray.of([r.kind for _, r in reservations]),
        arrays.ByteaArray.of([r.key for _, r in reservations]),
        arrays.UuidArray.of([r.owner for _, r in reservations]),
        arrays.BoolArray.of([r.claim for _, r in reservations]),
    ]


def _pack_secrets(secrets: Sequence[tuple[int, SecretValue]]) -> list[arrays.PackedArray]:
    """Each with its command's number, from 1."""
    return [
        arrays.Int4Array.of([c for c, _ in secrets]),
        arrays.UuidArray.of([s.owner for _, s in secrets]),
        arrays.TextArray.of([s.kind for _, s in secrets]),
        arrays.ByteaArray.with_nulls([s.value for _, s in secrets]),
    ]


_NO_RESERVATIONS, _NO_SECRETS = _pack_reservations([]), _pack_secrets([])
"""As nearly all flushes have them."""


def pack_erasures(commands: Sequence[Command]) -> list[arrays.PackedArray]:
    """The two parameters that `ledger.append_erasing` has beside those of `pack`."""
    erasures = [(c, subject) for c, command in enumerate(commands, 1) for subject in command.erasures]
    return [arrays.Int4Array.of([c for c, _ in erasures]), arrays.UuidArray.of([subject for _, subject in erasures])]


def reads_of(commands: Sequence[Command]) -> list[tuple[int, Read]]:
    """What any of them read, once each, by tenant."""
    return list(dict.fromkeys((command.tenant_id.int, read) for command in commands for read in command.reads))


def pack_reads(reads: Sequence[tuple[int, Read]]) -> list[arrays.PackedArray]:
    """The five parameters that `ledger.append_validating` has beside those of `pack`."""
    return [
        arrays.UuidArray.of([tenant.to_bytes(16) for tenant, _ in reads]),
        arrays.TextArray.of([read.kind for _, read in reads]),
        arrays.ByteaArray.of([read.key for _, read in reads]),
        arrays.UuidArray.of([read.owner for _, read in reads]),
        arrays.ByteaArray.of([read.hash for _, read in reads]),
    ]


_NO_READS = pack_reads([])
