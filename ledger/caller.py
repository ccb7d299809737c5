"""Who asks, and under which command id."""

from uuid import UUID

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever sends a command. What stands here goes into every event's metadata, and so under its hash.

    `command_id` makes a repeat harmless: the same id with the same `fingerprint` (keyed hash of what was asked; empty if the
    id was made for this call) is answered with the first outcome. Ids are UUIDv7 or derived from an idempotency key.
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
