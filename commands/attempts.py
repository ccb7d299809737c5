"""Attempts to log in: whoever fails waits, longer each time, by account name and by address. What failed is kept outside the stream
(edges.attempts), also of names that nobody has, which are treated alike; of an account one event a minute counts it."""

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import LiteralString, NamedTuple
from uuid import UUID

import msgspec
from psycopg import AsyncClientCursor
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
"""An account's is short at its longest, as anybody can make its owner wait: 1,440 guesses a day. An address's is not. The free ones
may come side by side: as many more as passwords are looked at at the same time."""

_AS_TENANT: LiteralString = "BEGIN; SELECT ledger.set_tenant(%(tenant)s);\n"
# Who has had the free failures counts as one that failed before the password is looked at, so that of those who come side by side
# one is let in. What is closed to either counts for neither. Rows are locked in one order.
BEGIN: LiteralString = """
WITH asked (of, key, free, longest_s) AS (VALUES
    ('account', %(account)s::uuid, %(account_free)s::int, %(account_longest_s)s::int),
    ('address', %(address)s::uuid, %(address_free)s::int, %(address_longest_s)s::int)),
found AS (
    SELECT a.of, a.key, a.failures, a.closed_to, x.free, x.longest_s FROM edges.attempts a JOIN asked x ON a.of = x.of AND a.key = x.key
    WHERE a.tenant_id = %(tenant)s AND a.failures >= x.free AND a.last_at >= now() - make_interval(secs => %(forgotten_s)s)
    ORDER BY a.of FOR UPDATE OF a),
counted AS (
    UPDATE edges.attempts a SET failures = a.failures + 1, last_at = now(),
        closed_to = now() + make_interval(secs => least(f.longest_s, power(2, least(f.failures - f.free, 20))))
    FROM found f WHERE a.tenant_id = %(tenant)s AND a.of = f.of AND a.key = f.key
        AND NOT EXISTS (SELECT FROM found x WHERE x.closed_to > now())
    RETURNING a.of, a.closed_to)
SELECT f.of, CASE WHEN f.closed_to > now() THEN ceil(extract(epoch FROM f.closed_to - now()))::int END, c.closed_to
FROM found f LEFT JOIN counted c ON c.of = f.of ORDER BY f.closed_to DESC
"""
FAILED: LiteralString = """
INSERT INTO edges.attempts AS a (tenant_id, of, key, failures, first_at, last_at, closed_to, untold)
SELECT %(tenant)s, x.of, x.key, x.more, now(), now(), now(), 1
FROM (VALUES ('account', %(account)s::uuid, CASE WHEN %(account_closed_to)s::timestamptz IS NULL THEN 1 ELSE 0 END),
             ('address', %(address)s::uuid, CASE WHEN %(address_closed_to)s::timestamptz IS NULL THEN 1 ELSE 0 END)) AS x (of, key, more)
WHERE x.key IS NOT NULL
ON CONFLICT (tenant_id, of, key) DO UPDATE SET
    failures = CASE WHEN a.last_at < now() - make_interval(secs => %(forgotten_s)s) THEN 1 ELSE a.failures + excluded.failures END,
    last_at = now(), untold = a.untold + 1,
    closed_to = CASE
        WHEN excluded.failures = 0 THEN a.closed_to
        WHEN a.last_at < now() - make_interval(secs => %(forgotten_s)s) THEN now()
        WHEN a.failures + 1 <= CASE a.of WHEN 'account' THEN %(account_free)s ELSE %(address_free)s END THEN now()
        ELSE now() + make_interval(secs => least(
            CASE a.of WHEN 'account' THEN %(account_longest_s)s ELSE %(address_longest_s)s END,
            power(2, least(a.failures - CASE a.of WHEN 'account' THEN %(account_free)s ELSE %(address_free)s END, 20))))
    END
RETURNING a.of, a.told_at IS NULL OR a.told_at < now() - make_interval(secs => %(told_every_s)s)
"""
# What `BEGIN` counted is taken back, and what it closed is open again, unless somebody else closed it since.
DONE: LiteralString = """
UPDATE edges.attempts a SET
    failures = CASE WHEN x.clears THEN 0 ELSE greatest(a.failures - 1, 0) END,
    closed_to = CASE WHEN x.clears OR a.closed_to = x.closed_to THEN now() ELSE a.closed_to END
FROM (VALUES ('account', %(account)s::uuid, %(right)s::boolean, %(account_closed_to)s::timestamptz),
             ('address', %(address)s::uuid, false, %(address_closed_to)s::timestamptz)) AS x (of, key, clears, closed_to)
WHERE a.tenant_id = %(tenant)s AND a.of = x.of AND a.key = x.key AND (x.clears AND a.failures > 0 OR x.closed_to IS NOT NULL)
"""
# Of those who ask at the same moment one is told.
TELL: LiteralString = """
WITH due AS (
    UPDATE edges.attempts SET told_at = now()
    WHERE tenant_id = %(tenant)s AND of = 'account' AND key = %(account)s
        AND untold > 0 AND (told_at IS NULL OR told_at < now() - make_interval(secs => %(told_every_s)s))
    RETURNING untold)
SELECT (SELECT untold FROM due),
    EXISTS (SELECT FROM edges.attempts WHERE tenant_id = %(tenant)s AND of = 'account' AND key = %(account)s AND untold > 0)
"""
TOLD: LiteralString = """
UPDATE edges.attempts SET untold = greatest(untold - %(told)s, 0)
WHERE tenant_id = %(tenant)s AND of = 'account' AND key = %(account)s RETURNING untold > 0
"""


class Attempted(NamedTuple):
    """Who was tried, from where: keyed hashes, of the name in its one spelling and of the address. No address: of somebody who is
    logged in, who would otherwise wait for what others at the same address did."""

    tenant_id: UUID
    account: UUID
    address: UUID | None


class Begun(NamedTuple):
    """`closed`: by which of both, and for how many seconds; None: the password may be looked at. `counted`: which of both count as
    failed already, each with the time to which that closed it."""

    closed: tuple[str, int] | None
    counted: Mapping[str, datetime]


NOTHING_COUNTED = Begun(None, {})


async def begin(attempted: Attempted, pool: Pool) -> Begun:
    """Whoever may look at the password says afterwards what came of it, by `failed` or `done`; else it counts as failed, if it was
    not one of the free ones. Raises what psycopg raises."""
    rows = await _ask(attempted, pool, BEGIN)
    closed = next(((of, wait_s) for of, wait_s, _ in rows if wait_s is not None), None)
    return Begun(closed, {of: closed_to for of, _, closed_to in rows if closed_to is not None})


async def failed(attempted: Attempted, pool: Pool, begun: Begun = NOTHING_COUNTED) -> bool:
    """Count it, where it was not. Whether it is time to `tell`. Raises what psycopg raises."""
    rows = await _ask(attempted, pool, FAILED, begun)
    return any(of == ACCOUNT and is_time for of, is_time in rows)


async def done(attempted: Attempted, pool: Pool, begun: Begun = NOTHING_COUNTED, *, right: bool) -> None:
    """It did not fail. After a right password the account's failures count no more; the address's do: whoever has an account could
    otherwise try others' for ever. Raises what psycopg raises."""
    if right or begun.counted:
        await _ask(attempted, pool, DONE, begun, right=right)


async def tell(attempted: Attempted, account_id: UUID, caller: Caller, ledger: Ledger, pool: Pool) -> bool:
    """Record the account's failures that no event counted yet, unless that was done within the last minute. Whether any are left.

    Raises what psycopg and an append raise. They are then left for the next one; if it was not known what became of the append, or
    the process ended after it, the next one counts them a second time.
    """
    ((untold, left),) = await _ask(attempted, pool, TELL)
    if untold is None:
        return bool(left)
    counted = attempts.count(id=ids.new_id(), account_id=account_id, attempts=untold)
    with contextlib.suppress(errors.SubjectErased):
        await ledger.append(msgspec.structs.replace(caller, command_id=ids.new_id(), fingerprint=b""), counted)
    rows = await _ask(attempted, pool, TOLD, told=untold)
    return any(left for (left,) in rows)


async def _ask(
    attempted: Attempted, pool: Pool, statement: LiteralString, begun: Begun = NOTHING_COUNTED, **more: int
) -> list[TupleRow]:
    values = {
        "tenant": attempted.tenant_id,
        "account": attempted.account,
        "address": attempted.address,
        "account_closed_to": begun.counted.get(ACCOUNT),
        "address_closed_to": begun.counted.get(ADDRESS),
        "forgotten_s": FORGOTTEN_S,
        "told_every_s": TOLD_EVERY_S,
        "account_free": DELAYS[ACCOUNT].free,
        "account_longest_s": DELAYS[ACCOUNT].longest_s,
        "address_free": DELAYS[ADDRESS].free,
        "address_longest_s": DELAYS[ADDRESS].longest_s,
        **more,
    }
    async with pool.connection() as connection, AsyncClientCursor(connection) as cursor:
        try:
            await cursor.execute(_AS_TENANT + statement + ";\nCOMMIT", values)
        except BaseException:
            await connection.rollback()
            raise
        cursor.nextset()
        cursor.nextset()
        return await cursor.fetchall() if cursor.description is not None else []
