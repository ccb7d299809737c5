"""The values that fixtures give to tests."""

import dataclasses
import uuid

from commands.passwords import Passwords
from ledger import ids
from ledger.appender import Appender
from ledger.caller import Caller
from ledger.keys import MasterKey
from ledger.lookups import Lookups
from ledger.store import Ledger, Pool
from ledger.waker import Waker

MASTER = MasterKey(bytes(range(32)))


@dataclasses.dataclass(frozen=True)
class Database:
    """A database of one test. `app_url` logs in as the process does."""

    name: str
    owner_url: str
    app_url: str


@dataclasses.dataclass(frozen=True)
class World:
    """A process's parts, without its HTTP side."""

    database: Database
    ledger: Ledger
    appender: Appender
    lookups: Lookups
    waker: Waker
    app: Pool
    projector: Pool
    passwords: Passwords


def caller(tenant_id: uuid.UUID, command_id: uuid.UUID | None = None, fingerprint: bytes = b"") -> Caller:
    """An admin of the tenant with a new command id, or the given one."""
    return Caller(
        tenant_id=tenant_id, actor_id=None, role="admin", command_id=command_id or ids.new_id(), fingerprint=fingerprint
    )
