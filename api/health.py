"""Whether the process is well, whether it should get requests, and the key that its tokens are checked with."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import psycopg
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec

from api import answers
from api.asked import HttpRequest
from api.parts import Parts
from api.rights import open_to_all

DATABASE_ANSWERS_S_MAX = 2.0
ANSWER_SHARED_S = 1.0
"""Anybody may ask how the process is, without a limit, and every connection of the pool is wanted for something else."""
KEYS_CACHED_S = 300
"""How long others may keep the keys; a new key is published for twice as long before it signs (ledger/token_keys.py)."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["healthy", "unhealthy"]
    timestamp: datetime
    database: Literal["connected", "disconnected"]
    version: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """`waiting_for` says why not, one sentence each."""

    status: Literal["ready", "not ready"]
    waiting_for: list[str]


@get(
    "/health",
    operation_id="health",
    operation_class=answers.Plain,
    tags=["operation"],
    responses={503: ResponseSpec(Health, description="The database is gone.")},
    opt=open_to_all("load balancers ask it"),
)
async def health(request: HttpRequest, parts: NamedDependency[Parts]) -> Response[Health]:
    """503 when the database is gone."""
    connected = await _database(request).answers()
    body = Health(
        status="healthy" if connected else "unhealthy",
        timestamp=datetime.now(UTC),
        database="connected" if connected else "disconnected",
        version=parts.version,
    )
    return _unstored(Response(body, status_code=200 if connected else 503))


@get(
    "/ready",
    operation_id="ready",
    operation_class=answers.Plain,
    tags=["operation"],
    responses={503: ResponseSpec(Readiness, description="Not yet, or no longer.")},
    opt=open_to_all("load balancers ask it"),
)
async def ready(request: HttpRequest, parts: NamedDependency[Parts]) -> Response[Readiness]:
    """503 until requests can be answered: database, migrations, projectors; and again when the process stops."""
    waiting_for = list(parts.not_ready())
    if parts.stopping.is_set():
        waiting_for.append("The process is stopping.")
    if not parts.ledger.revocations.is_known():
        waiting_for.append("Which sessions have ended is not known.")
    if not await _database(request).answers():
        waiting_for.append("The database does not answer.")
    body = Readiness(status="not ready" if waiting_for else "ready", waiting_for=waiting_for)
    return _unstored(Response(body, status_code=503 if waiting_for else 200))


@get(
    "/.well-known/jwks.json",
    operation_id="keys",
    operation_class=answers.Plain,
    tags=["accounts"],
    opt=open_to_all("whoever checks tokens needs the keys, which are public"),
)
async def keys(request: HttpRequest) -> Response[dict[str, list[dict[str, Any]]]]:
    """The public keys of access tokens, as a JWK set (RFC 7517)."""
    # Always: a cache would give what it was told without an Origin to a page whose browser looks for one in the answer.
    headers = {"Cache-Control": f"public, max-age={KEYS_CACHED_S}", "Vary": "Origin"}
    return Response(request.app.state.access_tokens.key_set(), headers=headers)


class Database:
    """Whether it answers. One an application: however many ask, it is asked once in ANSWER_SHARED_S."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._asking: asyncio.Task[bool] | None = None
        self._asked_at = float("-inf")  # monotonic; when the answer came

    async def answers(self) -> bool:
        if self._asking is None or (self._asking.done() and time.monotonic() - self._asked_at > ANSWER_SHARED_S):
            self._asking = asyncio.create_task(self._ask(), name="health")
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(DATABASE_ANSWERS_S_MAX), self._parts.pool.connection() as connection:
                await connection.execute("SELECT 1")
        except (TimeoutError, psycopg.Error):
            return False
        finally:
            self._asked_at = time.monotonic()
        return True


def _database(request: HttpRequest) -> Database:
    found: Database = request.app.state["database"]
    return found


def _unstored(response: Response[Any]) -> Response[Any]:
    response.headers["Cache-Control"] = "no-store"
    return response
