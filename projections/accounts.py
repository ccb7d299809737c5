"""The view `accounts`: a row for each account of the tenant, deactivated and erased ones included."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec

from domain.accounts import Account, Status
from domain.privacy import Erasure
from ledger import codec, read
from projections import changes, failures, reading
from projections.columns import Int8s, Texts, Times, Uuids
from projections.view import Batch, Cursor, Table, View

NAME = "accounts"

ERASE: LiteralString = """
UPDATE views.accounts SET email = %(marker)s, name = %(marker)s, status = 'erased'
WHERE tenant_id = %(tenant)s AND account_id = ANY (%(subjects)s)
"""

INSERT: LiteralString = """
INSERT INTO views.accounts (tenant_id, generation, account_id, email, name, role, status, inserted_at, updated_at, position)
SELECT %b, %b, x.id, x.email, x.name, x.role, x.status, x.at, x.at, x.position
FROM unnest(%b, %b, %b, %b, %b, %b, %b) AS x (id, email, name, role, status, at, position)
ON CONFLICT (tenant_id, generation, account_id) DO NOTHING
"""

# NULL leaves a column as it is. The guard on position makes a repeat harmless. Who is erased stays so. That the ids are named a
# second time keeps the server from reading the whole generation where it has no statistics of it yet.
UPDATE_CHANGED: LiteralString = """
UPDATE views.accounts p
SET email = coalesce(x.email, p.email), name = coalesce(x.name, p.name), role = coalesce(x.role, p.role),
    status = CASE WHEN p.status = 'erased' THEN p.status ELSE coalesce(x.status, p.status) END,
    updated_at = x.at, position = x.position
FROM unnest(%b, %b, %b, %b, %b, %b, %b) AS x (id, email, name, role, status, at, position)
WHERE p.tenant_id = %b AND p.generation = %b AND p.account_id = ANY (%b) AND p.account_id = x.id AND p.position < x.position
"""

COLUMNS: LiteralString = "account_id, email, name, role, status, inserted_at, updated_at, position"

PAGE: LiteralString = f"""
SELECT {COLUMNS} FROM views.accounts
WHERE tenant_id = %(tenant)s AND generation = %(generation)s
  AND (%(before)s::uuid IS NULL OR account_id < %(before)s::uuid)
  AND (%(role)s::text IS NULL OR role = %(role)s::text)
  AND (%(status)s::text IS NULL OR status = %(status)s::text)
ORDER BY account_id DESC LIMIT %(limit)s
"""


class AccountRow(msgspec.Struct, frozen=True):
    """`position` is that of the last event applied to the row. `email` and `name` of an erased person are the marker."""

    id: UUID
    email: str
    name: str
    role: str
    status: str
    inserted_at: datetime
    updated_at: datetime
    position: int


async def project(batch: Batch, cursor: Cursor) -> None:
    """New accounts by one statement; what happened to accounts by another one, folded to one change an account."""
    if registered := batch.of(Account.Registered):
        await cursor.execute(INSERT, _registered_columns(batch, registered), prepare=True)
    happened = (Account.Renamed, Account.EmailChanged, Account.RoleChanged, Account.Deactivated, Account.Reactivated)
    if changed := batch.by_originator(*happened):
        columns = changes.columns(changed, _said, "email", "name", "role", "status")
        await cursor.execute(
            UPDATE_CHANGED, [*columns, batch.tenant_id, batch.generation, Uuids.of(list(changed))], prepare=True
        )


def _registered_columns(batch: Batch, registered: Sequence[read.Recorded]) -> list[object]:
    events = [recorded.event for recorded in registered]
    return [
        batch.tenant_id,
        batch.generation,
        Uuids.of([event.originator_id for event in events]),
        Texts.of([event.email for event in events]),
        Texts.of([event.name for event in events]),
        Texts.of([event.role for event in events]),
        Texts.of([Status.ERASED if event.email == codec.ERASED else Status.ACTIVE for event in events]),
        Times.of([recorded.recorded_at for recorded in registered]),
        Int8s.of([recorded.position for recorded in registered]),
    ]


def _said(event: Any) -> dict[str, str]:
    match event:
        case Account.Renamed():
            return {"name": event.name}
        case Account.EmailChanged():
            return {"email": event.email}
        case Account.RoleChanged():
            return {"role": event.role}
        case Account.Deactivated():
            return {"status": Status.DEACTIVATED}
        case _:
            return {"status": Status.ACTIVE}


def _row(
    id: UUID,
    email: str,
    name: str,
    role: str,
    status: str,
    inserted_at: datetime,
    updated_at: datetime,
    position: int,
) -> AccountRow:
    return AccountRow(id, email, name, role, status, inserted_at, updated_at, position)


async def page(
    connection: reading.Connection,
    tenant_id: UUID,
    before: UUID | None,
    limit: int,
    *,
    role: str | None = None,
    status: str | None = None,
) -> reading.Page[AccountRow]:
    """At most `limit` (1–100) rows, newest first, those before `before`. Raises ValueError for another limit."""
    role, status = role and str(role), status and str(status)  # an enumeration would be sent by its name
    return await reading.page(connection, NAME, tenant_id, _row, PAGE, limit, before=before, role=role, status=status)


VIEW = View(
    name=NAME,
    version=1,
    tables=(Table(name="accounts", key=("account_id",), personal=("email", "name")),),
    topics=(
        Account.Registered,
        Account.Renamed,
        Account.EmailChanged,
        Account.RoleChanged,
        Account.Deactivated,
        Account.Reactivated,
        Erasure.PersonErased,
    ),
    project=project,
    on_failure=failures.park_after(failures.ATTEMPTS),
    commutes=True,
    erase=ERASE,
)
