"""What is shown of a session: device, address, last seen. A secret of the account's for each, sealed under the account's key.

So it goes with the session, and with the person: it is in no event.
"""

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from domain import accounts
from ledger.store import Ledger, Secret

SESSION_PREFIX = "session "
"""Of the kind of such a secret, so that all of an account's are found without a search."""
DEVICE_CHARACTERS_MAX, ADDRESS_CHARACTERS_MAX = 200, 45


class Device(msgspec.Struct, frozen=True, array_like=True):
    """From where a session was begun or last refreshed, as the request said."""

    name: str = ""
    address: str = ""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is stored of a session. `sealed`: a Device."""

    started_at: datetime
    seen_at: datetime
    sealed: bytes

    def is_over(self, limits: accounts.SessionLimits) -> bool:
        return accounts.is_over(self.started_at, self.seen_at, datetime.now(UTC), limits)


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """A session that can be refreshed. `seen_at`: its start or last refresh."""

    id: UUID
    device: Device
    started_at: datetime
    seen_at: datetime


_ENCODER = msgspec.msgpack.Encoder()
_KEPT = msgspec.msgpack.Decoder(Kept)
_DEVICE = msgspec.msgpack.Decoder(Device)


def device(name: str, address: str) -> Device:
    """What a request says of itself, made fit to be kept and shown."""
    printable = "".join(each if each.isprintable() else "?" for each in name[:DEVICE_CHARACTERS_MAX])
    return Device(printable, address[:ADDRESS_CHARACTERS_MAX])


async def seen(session: accounts.Session, started_at: datetime, by: Device, tenant_id: UUID, ledger: Ledger) -> Secret:
    """That it was seen now. Raises SubjectErased."""
    sealed = await ledger.seal(tenant_id, session.account_id, kind(session.id), _ENCODER.encode(by))
    kept = Kept(started_at, datetime.now(UTC), sealed)
    return Secret(session.account_id, kind(session.id), _ENCODER.encode(kept))


def forgotten(session: accounts.Session) -> Secret:
    return Secret(session.account_id, kind(session.id), None)


async def ids(account_id: UUID, tenant_id: UUID, ledger: Ledger) -> list[UUID]:
    """The account's sessions that were not ended."""
    kinds = await ledger.secret_kinds(tenant_id, account_id)
    return [_id(each) for each in kinds if each.startswith(SESSION_PREFIX)]


async def kept(account_id: UUID, tenant_id: UUID, ledger: Ledger) -> dict[UUID, Kept | None]:
    """Of the account's sessions that were not ended; None of an older release's, whose refresh tokens are good no longer."""
    secrets = await ledger.secrets(tenant_id, account_id)
    return {_id(each): _read(value) for each, value in secrets.items() if each.startswith(SESSION_PREFIX)}


async def kept_of(session: accounts.Session, tenant_id: UUID, ledger: Ledger) -> Kept:
    """Of one session; as if it was not seen since its start, if nothing is kept."""
    value = await ledger.secret(tenant_id, session.account_id, kind(session.id))
    found = None if value is None else _read(value)
    return found or Kept(session.created_on, session.created_on, b"")


async def listed(
    account_id: UUID,
    tenant_id: UUID,
    ledger: Ledger,
    limits: accounts.SessionLimits = accounts.SESSION_LIMITS,
) -> list[Open]:
    """The account's sessions that can be refreshed, last seen first."""
    found = await kept(account_id, tenant_id, ledger)
    sessions = await ledger.load_many(accounts.Session, tenant_id, list(found))
    opened = [
        Open(
            id=id,
            device=await _opened(account_id, id, each, tenant_id, ledger),
            started_at=each.started_at,
            seen_at=each.seen_at,
        )
        for id, each in found.items()
        if each is not None and id in sessions and not sessions[id].revoked and not each.is_over(limits)
    ]
    return sorted(opened, key=lambda each: each.seen_at, reverse=True)


def kind(session_id: UUID) -> str:
    return f"{SESSION_PREFIX}{session_id}"


def _id(kind: str) -> UUID:
    return UUID(kind.removeprefix(SESSION_PREFIX))


def _read(value: bytes) -> Kept | None:
    try:
        return _KEPT.decode(value)
    except msgspec.DecodeError:
        return None


async def _opened(account_id: UUID, session_id: UUID, kept: Kept, tenant_id: UUID, ledger: Ledger) -> Device:
    """Nothing, where the person was erased or the row tampered with."""
    data = await ledger.unseal(tenant_id, account_id, kind(session_id), kept.sealed)
    return Device() if data is None else _DEVICE.decode(data)
