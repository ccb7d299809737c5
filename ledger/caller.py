"""Who asks, and under which command id."""

import os
from uuid import UUID

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever sends a command. What stands here goes into every event's metadata, and so under its hash.

    `command_id` makes a repeat harmless: the same id with the same `fingerprint` (keyed hash of what was asked; empty if the
    id was made for this call) is answered with the first outcome. Ids are UUIDv7 or derived from an idempotency key.
    `asked` is what the fingerprint is of; a password may be in it, and it goes nowhere but into the key of a stored refusal.
    """

    tenant_id: UUID
    actor_id: UUID | None
    role: str
    command_id: UUID
    session_id: UUID | None = None
    fingerprint: bytes = b""
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    request_id: str = ""
    asked: bytes = b""


class _Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    command_id: UUID
    event_id: str  # 128 random bits: without them a leaf could be guessed from its hash
    actor_id: UUID | None = None
    role: str = ""
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    request_id: str = ""


_ENCODER = msgspec.json.Encoder()


def metadata(caller: Caller) -> bytes:
    """What stands beside one event; another one beside each."""
    return _ENCODER.encode(
        _Metadata(
            caller.command_id,
            os.urandom(16).hex(),
            caller.actor_id,
            caller.role,
            caller.correlation_id,
            caller.causation_id,
            caller.request_id,
        )
    )
