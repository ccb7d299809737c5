"""The rules of `ledger.append` in plain Python: one command after the other, nothing concurrent, nothing optimistic."""

import dataclasses
from collections.abc import Iterable
from uuid import UUID

from ledger import chain
from tests.ledger.calls import (
    APPENDED,
    ID_REUSED,
    REPLAYED,
    RESERVATION_TAKEN,
    TENANT_UNKNOWN,
    TOO_LARGE,
    VERSION_CONFLICT,
    Command,
    Event,
)

Row = tuple[object, ...]


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the answer must say; `blamed`: the owners of which it may name any one."""

    status: int
    position: int | None = None
    outcome: bytes | None = None
    blamed: frozenset[UUID] = frozenset()


class Model:
    """What stands in the tables, by tenant."""

    def __init__(self, tenants: Iterable[UUID]) -> None:
        self.events: dict[UUID, list[Event]] = {tenant: [] for tenant in tenants}
        self.versions: set[tuple[UUID, UUID, int]] = set()
        self.commands: dict[tuple[UUID, UUID], tuple[bytes, bytes, int]] = {}
        self.reservations: dict[tuple[UUID, str, bytes], UUID] = {}
        self.secrets: dict[tuple[UUID, UUID, str], bytes] = {}

    def append(self, command: Command) -> Decision:
        """Decides, and applies what is accepted."""
        tenant = command.tenant
        if tenant not in self.events:
            return Decision(TENANT_UNKNOWN)
        if any(_leaf_bytes(event) > chain.LEAF_BYTES_MAX for event in command.events):
            return Decision(TOO_LARGE)
        stored = self.commands.get((tenant, command.id))
        if stored is not None:
            fingerprint, outcome, position = stored
            return Decision(REPLAYED, position, outcome) if fingerprint == command.fingerprint else Decision(ID_REUSED)
        if blamed := self._conflicting(command):
            return Decision(VERSION_CONFLICT, blamed=blamed)
        reservations, blamed = self._reserved(command)
        if blamed:
            return Decision(RESERVATION_TAKEN, blamed=blamed)
        self._apply(command, reservations)
        return Decision(APPENDED, len(self.events[tenant]))

    def _conflicting(self, command: Command) -> frozenset[UUID]:
        wanted = [(command.tenant, event.originator, event.version) for event in command.events]
        return frozenset(each[1] for each in wanted if each in self.versions or wanted.count(each) > 1)

    def _reserved(self, command: Command) -> tuple[dict[tuple[UUID, str, bytes], UUID], frozenset[UUID]]:
        after = dict(self.reservations)
        for key in command.releases:
            if after.get((command.tenant, key.kind, key.key)) == key.owner:
                del after[command.tenant, key.kind, key.key]
        holders = [after.get((command.tenant, key.kind, key.key)) for key in command.claims]
        after.update({(command.tenant, key.kind, key.key): key.owner for key in command.claims})
        return after, frozenset(holder for holder in holders if holder is not None)

    def _apply(self, command: Command, reservations: dict[tuple[UUID, str, bytes], UUID]) -> None:
        tenant = command.tenant
        self.events[tenant].extend(command.events)
        self.versions.update((tenant, event.originator, event.version) for event in command.events)
        self.commands[tenant, command.id] = (command.fingerprint, command.outcome, len(self.events[tenant]))
        self.reservations = reservations
        for secret in command.secrets:
            self.secrets.pop((tenant, secret.owner, secret.kind), None)
            if secret.value is not None:
                self.secrets[tenant, secret.owner, secret.kind] = secret.value

    def rows(self) -> dict[str, list[Row]]:
        """What the tables must hold, sorted; without times and hashes."""
        events = [
            (tenant, position, event.originator, event.version, event.topic, event.state, event.metadata)
            for tenant, appended in self.events.items()
            for position, event in enumerate(appended, 1)
        ]
        return {
            "heads": sorted((tenant, len(appended)) for tenant, appended in self.events.items()),
            "events": sorted(events),
            "commands": sorted((*ids, *stored) for ids, stored in self.commands.items()),
            "reservations": sorted((*key, owner) for key, owner in self.reservations.items()),
            "secrets": sorted((*key, value) for key, value in self.secrets.items()),
        }


def _leaf_bytes(event: Event) -> int:
    return chain.LEAF_BYTES_FIXED + len(event.topic.encode()) + len(event.state) + len(event.metadata)
