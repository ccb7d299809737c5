"""What tokens name and what counts no more: sessions that ended, tenants that are suspended. In memory, whole, and fresh.

An id is a session's, or the tenant's own while the tenant is suspended. It is written in the append's transaction
(`Ledger.append(revokes=…)`); this process knows at once, the others at their next look, LOOK_S later (`ledger.watch`). Whoever
could not look for TRUST_S no longer knows what counts, and says so: `is_known` is false then.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger import arrays

TRUST_S = 2.0
"""How long after a look what it found is believed in: what docs/accounts.md promises."""
KEPT_S = 3_600.0
"""How long an ended session is remembered, here and in the database (migrations, ledger.expire_revocations). Its last access token
has expired long before, and whatever else names an id and is remembered MUST be asked for again sooner. So there are as many as
log-ins of an hour at the most, and hashing passwords bounds those: 72,000 at 20 a second, 10 MiB."""
READ_MAX = 10_000
"""Rows that one query reads; the next one reads on."""

# Cross-tenant, of the projector's role. The first row is where the next look begins: no transaction below it is under way. A
# transaction id at or above xmax is another cluster's: the row came with a restored dump, and the first look took it.
LOOK: LiteralString = """
SELECT NULL::uuid, NULL::uuid, NULL::boolean, pg_snapshot_xmin(pg_current_snapshot())::text
UNION ALL
(SELECT r.tenant_id, r.id, r.revoked, r.changed_in::text FROM ledger.revocations r
 WHERE (r.changed_in, r.tenant_id, r.id) > (%s::text::xid8, %s::uuid, %s::uuid)
   AND (%s OR r.changed_in < pg_snapshot_xmax(pg_current_snapshot()))
 ORDER BY r.changed_in, r.tenant_id, r.id LIMIT %s)
"""

_NIL = UUID(int=0)
_log = logging.getLogger(__name__)

Connection = AsyncConnection[TupleRow]
Ended = Callable[[bool], None]
"""Is told whether it is the tenant that is suspended; else the session has ended."""


class Revocations:
    """Touched by the event loop's thread only."""

    def __init__(self) -> None:
        # By UUID.int: UUIDs are hashed in Python, which would cost as much as all the rest of a look-up.
        self._sessions: dict[int, float] = {}  # when it was learned, monotonic; first learned first
        self._tenants: set[int] = set()
        self._known_at = float("-inf")  # monotonic; the begin of the last look
        self._since: str | None = None  # every change of a transaction below this id is known; None: look at all
        self._listeners: dict[int, set[Ended]] = {}  # by the id of a session or a tenant

    def is_known(self) -> bool:
        """Whether what counts no more is known as of the last TRUST_S."""
        return time.monotonic() - self._known_at < TRUST_S

    @property
    def sessions(self) -> int:
        """How many are remembered."""
        return len(self._sessions)

    def is_revoked(self, session_id: UUID) -> bool:
        """Whether the session has ended, or just might have: False only says something while `is_known`."""
        return session_id.int in self._sessions

    def is_suspended(self, tenant_id: UUID) -> bool:
        """As `is_revoked`, of a tenant."""
        return tenant_id.int in self._tenants

    def on_end(self, tenant_id: UUID, session_id: UUID, ended: Ended) -> Callable[[], None]:
        """`ended` is called when the session is revoked or the tenant suspended, at once if that is so already.

        It must be quick. Returns what ends the subscription.
        """
        if self.is_suspended(tenant_id) or self.is_revoked(session_id):
            ended(self.is_suspended(tenant_id))
        for id in (tenant_id.int, session_id.int):
            self._listeners.setdefault(id, set()).add(ended)

        def leave() -> None:
            for id in (tenant_id.int, session_id.int):
                listeners = self._listeners.get(id)
                if listeners is not None:
                    listeners.discard(ended)
                    if not listeners:
                        del self._listeners[id]

        return leave

    def learn(self, tenant_id: UUID, id: UUID, revoked: bool) -> None:
        """It was committed that this id counts no more, or again."""
        known: dict[int, float] | set[int] = self._tenants if id == tenant_id else self._sessions
        if not revoked:
            self._tenants.discard(id.int)
            self._sessions.pop(id.int, None)
            return
        if id.int in known:
            return
        if id == tenant_id:
            self._tenants.add(id.int)
        else:
            self._sessions[id.int] = time.monotonic()
        for ended in tuple(self._listeners.get(id.int, ())):
            try:  # what is known does not hang on who listens, nor does the command that made it so
                ended(id == tenant_id)
            except Exception:  # noqa: BLE001  a listener is another's code
                _log.exception("Who listens for the end of a session or a tenant failed")

    async def look(self, connection: Connection) -> None:
        """What changed since the last look is known when this returns. `connection` is the projector's, in autocommit."""
        begun_at, whole = time.monotonic(), self._since is None
        read_to = (self._since or "0", _NIL, _NIL)  # transaction, tenant and id of the last row read
        following: str | None = None
        suspended: set[int] = set()
        full = True
        while full:
            cursor = await connection.execute(LOOK, (*read_to, whole, READ_MAX), prepare=True)
            (_, _, _, xmin), *found = await cursor.fetchall()
            following = following or xmin  # the first query's: the later ones may see what commits meanwhile, or not
            for tenant_id, id, revoked, changed_in in found:
                self.learn(tenant_id, id, revoked)
                if revoked and id == tenant_id:
                    suspended.add(id.int)
                read_to = (changed_in, tenant_id, id)
            full = len(found) == READ_MAX
        if whole:
            self._tenants &= suspended  # the row that lifted a suspension may be gone by now
        self._since = following
        self._known_at = begun_at
        self._forget(begun_at - KEPT_S)

    def lost(self) -> None:
        """The connection of the looks is gone: the next one looks at all, as rows may have been deleted meanwhile."""
        self._since = None

    def _forget(self, before: float) -> None:
        """Sessions learned before then, monotonic."""
        while self._sessions:
            first = next(iter(self._sessions))
            if self._sessions[first] >= before:
                return
            del self._sessions[first]


def packed(revocations: Sequence[Sequence[tuple[bytes, bool]]]) -> list[arrays.PackedArray]:
    """The three parameters that `ledger.append_revoking` has beside those of `ledger.append_erasing`; given by command."""
    flat = [(c, each) for c, some in enumerate(revocations, 1) for each in some]
    return [
        arrays.Int4Array.of([c for c, _ in flat]),
        arrays.UuidArray.of([id for _, (id, _) in flat]),
        arrays.BoolArray.of([revoked for _, (_, revoked) in flat]),
    ]
