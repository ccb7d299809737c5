"""Attempts to log in: whoever fails waits, longer each time, by account name and by address. What failed is kept outside the stream
(edges.attempts), also of names that nobody has, which are treated alike; of an account one event a minute counts it."""

import contextlib
from typing import LiteralString, NamedTuple
from uuid import UUID

from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.rows import TupleRow

from domain import attempts
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Ledger, Pool

ACCOUNT, ADDRESS = "account", "address"
FORGOTTEN_S = 24 * 3600
"""After a day without a failure one begins anew."""
TOLD_EVERY_S = 60


class Delay(NamedTuple):
    """After `free` failures one waits a second, then twice as long after each, up to `longest_s`."""

    free: int
    longest_s: int


DELAYS = {ACCOUNT: Delay(free=9, longest_s=60), ADDRESS: Delay(free=29, longest_s=900)}
"""An account's is short at its longest, as anybody can make its owner wait: 1,440 guesses a day. An address's is not."""

_BEGIN: LiteralString = "BEGIN; SELECT ledger.set_tenant(%(tenant)s);\n"
CLOSED: LiteralString = """
SELECT a.of, ceil(extract(epoch FROM a.closed_to - now()))::int FROM edges.attempts a
WHERE a.tenant_id = %(tenant)s AND (a.of, a.key) IN (('account', %(account)s), ('address', %(address)s)) AND a.closed_to > now()
ORDER BY a.closed_to DESC LIMIT 1
"""
FAILED: LiteralString = """
INSERT INTO edges.attempts AS a (tenant_id, of, key, failures, first_at, last_at, closed_to, untold)
SELECT %(tenant)s, x.of, x.key, 1, now(), now(), now(), 1
FROM (VALUES ('account', %(account)s::uuid), ('address', %(address)s::uuid)) AS x (of, key)
ON CONFLICT (tenant_id, of, key) DO UPDATE SET
    failures = CASE WHEN a.last_at < now() - make_interval(secs => %(forgotten_s)s) THEN 1 ELSE a.failures + 1 END,
    last_at = now(), untold = a.untold + 1,
    closed_to = CASE
        WHEN a.last_at < now() - make_interval(secs => %(forgotten_s)s) THEN now()
        WHEN a.failures + 1 <= CASE a.of WHEN 'account' THEN %(account_free)s ELSE %(address_free)s END THEN now()
        ELSE now() + make_interval(secs => least(
            CASE a.of WHEN 'account' THEN %(account_longest_s)s ELSE %(address_longest_s)s END,
            power(2, least(a.failures - CASE a.of WHEN 'account' THEN %(account_free)s ELSE %(address_free)s END, 20))))
    END
RETURNING a.of, a.told_at IS NULL OR a.told_at < now() - make_interval(secs => %(told_every_s)s)
"""
# Of those who ask at the same moment one is told.
TELL: LiteralString = """
WITH old AS (SELECT untold FROM edges.attempts WHERE tenant_id = %(tenant)s AND of = 'account' AND key = %(account)s
             AND untold > 0 AND (told_at IS NULL OR told_at < now() - make_interval(secs => %(told_every_s)s)) FOR UPDATE)
UPDATE edges.attempts a SET untold = 0, told_at = now() FROM old
WHERE a.tenant_id = %(tenant)s AND a.of = 'account' AND a.key = %(account)s RETURNING old.untold
"""
SUCCEEDED: LiteralString = """
UPDATE edges.attempts SET failures = 0, closed_to = now()
WHERE tenant_id = %(tenant)s AND of = 'account' AND key = %(account)s AND failures > 0
"""


class Attempted(NamedTuple):
    """Who was tried, from where: keyed hashes, of the name in its one spelling and of the address."""

    tenant_id: UUID
    account: UUID
    address: UUID


async def closed_for(attempted: Attempted, pool: Pool) -> tuple[str, int] | None:
    """By which of both, and for how many seconds; None: the password may be looked at. Raises what psycopg raises."""
    async with pool.connection() as connection:
        rows = await _run(connection, attempted, CLOSED)
    return (rows[0][0], rows[0][1]) if rows else None


async def failed(attempted: Attempted, pool: Pool) -> bool:
    """Count it. Whether it is time to `tell`. Raises what psycopg raises."""
    async with pool.connection() as connection:
        rows = await _run(connection, attempted, FAILED)
    return any(of == ACCOUNT and is_time for of, is_time in rows)


async def succeeded(attempted: Attempted, pool: Pool) -> None:
    """The account's failures count no more; the address's do: whoever has an account could otherwise try others' for ever."""
    async with pool.connection() as connection:
        await _run(connection, attempted, SUCCEEDED)


async def tell(attempted: Attempted, account_id: UUID, caller: Caller, ledger: Ledger, pool: Pool) -> None:
    """Record the account's failures that no event counted yet, unless that was done within the last minute.

    Raises what psycopg and an append raise; they are then counted by the next one, if nothing was appended.
    """
    async with pool.connection() as connection:
        rows = await _run(connection, attempted, TELL)
    if rows:
        counted = attempts.count(id=ids.new_id(), account_id=account_id, attempts=rows[0][0])
        with contextlib.suppress(errors.SubjectErased):
            await ledger.append(caller, counted)


async def _run(connection: AsyncConnection[TupleRow], attempted: Attempted, statement: LiteralString) -> list[TupleRow]:
    values = {
        "tenant": attempted.tenant_id,
        "account": attempted.account,
        "address": attempted.address,
        "forgotten_s": FORGOTTEN_S,
        "told_every_s": TOLD_EVERY_S,
        "account_free": DELAYS[ACCOUNT].free,
        "account_longest_s": DELAYS[ACCOUNT].longest_s,
        "address_free": DELAYS[ADDRESS].free,
        "address_longest_s": DELAYS[ADDRESS].longest_s,
    }
    async with AsyncClientCursor(connection) as cursor:
        try:
            await cursor.execute(_BEGIN + statement + ";\nCOMMIT", values)
        except BaseException:
            await connection.rollback()
            raise
        cursor.nextset()
        cursor.nextset()
        return await cursor.fetchall() if cursor.description is not None else []
