"""Connections of the process: always the login role, which becomes one of three roles at connecting."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import psycopg
from psycopg import AsyncConnection, Connection, conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from ledger.keys import MasterKey
from ledger.store import Pool

Role = Literal["app", "projector", "platform"]

CONNECT_TIMEOUT_S = 10
REPLICA_CONNECT_TIMEOUT_S = 2
"""There is the primary."""
SILENCE = {"tcp_user_timeout": 10_000, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2}
"""A database that vanished without a word (its machine, its address) is lost after some 20 s, not after a quarter of an hour.
Sockets of Unix have none of this."""
PROJECTOR_IDLE_MS_MAX = 5_000
"""In a transaction. A batch is under way in the server or being prepared for it: milliseconds."""
POOL_WAIT_S = 5.0
"""How long a request waits for a connection before it is told that the database is overloaded."""


def login_password(master: MasterKey) -> str:
    """The login role's password: every node derives the same one from the master key."""
    return master.derive("login role password").hex()


def parameters(app_url: str, role: Role) -> dict[str, Any]:
    """What to connect with. RESET ROLE on such a connection leads back to `role`, SET ROLE NONE to no rights at all."""
    found = conninfo.conninfo_to_dict(app_url)
    options = f"{found.pop('options', None) or ''} -c role=bitnexus_{role} -c timezone=UTC".strip()
    found.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    for name, value in SILENCE.items():
        found.setdefault(name, value)
    return {**found, "options": options, "client_encoding": "UTF8", "application_name": f"bitnexus {role}"}


async def connect(app_url: str, role: Role) -> AsyncConnection[TupleRow]:
    """In autocommit. Raises psycopg.OperationalError."""
    return await _connect(parameters(app_url, role))


async def _connect(parameters: dict[str, Any]) -> AsyncConnection[TupleRow]:
    """psycopg's, which closes a half-made connection with the last reference to it. If the attempt is cancelled the traceback holds one,
    and whoever keeps the task keeps that. The server would wait a minute for the rest, and a DROP DATABASE for the server."""
    try:
        return await AsyncConnection.connect(autocommit=True, **parameters)
    except asyncio.CancelledError as cancelled:
        cancelled.__traceback__ = None
        raise


def connector(app_url: str, role: Role) -> Callable[[], Awaitable[AsyncConnection[TupleRow]]]:
    """For those that keep a connection of their own and make a new one when it is lost."""
    return lambda: connect(app_url, role)


def projecting_connector(app_url: str) -> Callable[[], Awaitable[AsyncConnection[TupleRow]]]:
    """For the projectors. The server ends a session that sits idle in a transaction, as a paused process would hold what the
    others wait for; and it does not wait for the disk at a commit: what a crash takes is projected again."""
    found = parameters(app_url, "projector")
    found["options"] += f" -c idle_in_transaction_session_timeout={PROJECTOR_IDLE_MS_MAX} -c synchronous_commit=off"
    return lambda: _connect(found)


def travelling_connector(app_url: str) -> Callable[[], Awaitable[AsyncConnection[TupleRow]]]:
    """For views of the past, in temporary tables that grow while they are written: a plan that was made when they were empty
    would read all of them for each batch."""
    found = {**parameters(app_url, "app"), "application_name": "bitnexus past"}
    found["options"] += (
        f" -c plan_cache_mode=force_custom_plan -c idle_in_transaction_session_timeout={PROJECTOR_IDLE_MS_MAX}"
    )
    return lambda: _connect(found)


def connect_sync(app_url: str, role: Role) -> Connection[TupleRow]:
    """For commands of the command line that stream."""
    return psycopg.connect(autocommit=True, **parameters(app_url, role))


def pool(app_url: str, role: Role, connections_max: int, *, name: str | None = None) -> Pool:
    """Not opened yet. Its connections are in autocommit. `name`: as metrics show it, the role's if it is not said."""
    return AsyncConnectionPool(
        kwargs={"autocommit": True, **parameters(app_url, role)},
        min_size=1,
        max_size=connections_max,
        timeout=POOL_WAIT_S,
        open=False,
        name=name or role,
    )


def replica_url(given: str, app_url: str) -> str:
    """Where the replica is, with what it leaves out: login role, password and database are the primary's."""
    primary, found = conninfo.conninfo_to_dict(app_url), conninfo.conninfo_to_dict(given)
    if "user" not in found:
        found |= {name: primary[name] for name in ("user", "password") if name in primary}
    found.setdefault("dbname", primary["dbname"])
    found.setdefault("connect_timeout", REPLICA_CONNECT_TIMEOUT_S)
    return conninfo.make_conninfo("", **found)


def connect_owner(owner_url: str) -> Connection[TupleRow]:
    """For the import of a tenant, which no role of a process may do."""
    return psycopg.connect(
        owner_url,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        client_encoding="UTF8",
        application_name="bitnexus owner",
    )
