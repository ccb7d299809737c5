"""What a handler is given about the request: who asks, under which command id, and which position must be shown."""

import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from uuid import UUID

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import ClientException
from litestar.types import Receive, Scope

from api import errors, etags, headers, request_ids
from api.bodies import BODY_BYTES_MAX
from api.limits import TenantsKnown
from api.parts import Parts
from api.rights import Who
from commands.limits import LimitReached
from ledger import ids
from ledger.caller import Caller
from ledger.store import Ledger
from projections import positions, reading, replica, rows, transactions


class Shown(Protocol):
    """What a query found; `position` is the view's."""

    @property
    def position(self) -> int: ...


T = TypeVar("T", bound=Shown)


class HttpRequest(Request[Who, Any, State]):
    """The framework's, with a body that came in one message read without the generator that collects many (4 µs), and the length
    looked up without a mapping of all headers, which nothing else needs."""

    _whole: bytes | None = None

    async def body(self) -> bytes:
        """Raises RequestEntityTooLarge, and InternalServerException if the client went away."""
        if self._whole is None:
            receive = self.receive
            first = await receive()
            if first["type"] == "http.request" and not first.get("more_body") and len(first["body"]) <= BODY_BYTES_MAX:
                self._whole = first["body"]
            else:
                self.receive = _again(first, receive)
                self._whole = await super().body()
        return self._whole

    @property
    def content_length(self) -> int | None:
        """Raises ClientException."""
        said = headers.first(self.scope, b"content-length")
        if said is None:
            return None
        if not said.isascii() or not said.isdigit():
            raise ClientException(f"Invalid content-length: {said!r}")
        return int(said)


def _again(first: Any, receive: Receive) -> Receive:
    """`receive` as it was before `first` came of it."""
    waiting = [first]

    async def receive_again() -> Any:
        return waiting.pop() if waiting else await receive()

    return receive_again


IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_AUTH = "/api/v1/auth/"
POSITION_NUMBER = re.compile(r"[0-9]{1,18}")


def request_id(scope: Scope) -> str:
    """As edge.py noted it."""
    known: str = scope["state"]["request_id"]
    return known


async def _caller_of(request: HttpRequest, who: Who) -> Caller:
    """The same Idempotency-Key with the same request gives the same command id and fingerprint, but of /auth/*, of which no answer
    is kept. Raises RequestRefused."""
    scope = request.scope
    key = headers.first(scope, b"idempotency-key")
    known_as = request_id(scope)
    if key is None or scope["path"].startswith(_AUTH):
        return _caller(who, ids.new_id(), b"", known_as)
    if IDEMPOTENCY_KEY.fullmatch(key) is None:
        text = f"The idempotency key {key[:40]!r} is not 1 to 255 printable ASCII characters. Use a UUID."
        raise errors.RequestRefused(errors.INVALID, text, {"Idempotency-Key": [text]})
    route = f"{scope['method']} {scope['path_template']}"
    command_id = ids.derived_id(who.tenant_id.bytes, who.account_id.bytes, route.encode(), key.encode())
    asked = b"\0".join((scope["method"].encode(), scope["path"].encode(), await request.body()))
    _enter(request, command_id, key)
    fingerprint = _parts(scope).ledger.keyring.master.fingerprint(asked)
    return _caller(who, command_id, fingerprint, known_as, asked)


def _enter(request: HttpRequest, command_id: UUID, key: str) -> None:
    """From here to the answer (edge.py) a repeat in this process is refused; one in another process waits in the database.

    Raises RequestRefused.
    """
    in_flight: set[UUID] = request.app.state["in_flight"]
    if command_id in in_flight:
        text = (
            f"A request with the idempotency key {key[:40]!r} is being done. Send it again in a second for its answer."
        )
        raise errors.RequestRefused(errors.IN_FLIGHT, text)
    in_flight.add(command_id)
    request.scope["state"]["in_flight"] = command_id


def _caller(who: Who, command_id: UUID, fingerprint: bytes, known_as: str, asked: bytes = b"") -> Caller:
    return Caller(
        tenant_id=who.tenant_id,
        actor_id=who.account_id,
        role=who.role,
        session_id=who.session_id,
        command_id=command_id,
        fingerprint=fingerprint,
        correlation_id=command_id,
        request_id=known_as,
        asked=asked,
    )


def nobody(request: HttpRequest, tenant_id: UUID) -> Caller:
    """Whoever registers, logs in or refreshes: no account yet, and a repeat is a new attempt."""
    command_id = ids.new_id()
    known_as = request_id(request.scope)
    return Caller(
        tenant_id=tenant_id,
        actor_id=None,
        role="anonymous",
        command_id=command_id,
        correlation_id=command_id,
        request_id=known_as,
    )


def _version(given: str | None) -> int | None:
    """From If-Match. Raises RequestRefused for a tag that is none of ours: it names no version that there is."""
    if given is None or given.strip() == "*":
        return None
    tag = etags.VERSION.fullmatch(given.strip())
    if tag is None:
        raise errors.RequestRefused(
            errors.STALE, f'If-Match {given[:40]} names no version. Send one ETag as it was given, such as "3".'
        )
    return int(tag.group(1))


class Sender:
    """A command: who sends it, under which id, and the version that it was decided upon, None if any will do."""

    def __init__(self, parts: Parts, who: Who, caller: Caller, version: int | None) -> None:
        self.parts = parts
        self.who = who
        self.caller = caller
        self.version = version
        self.ledger = parts.ledger

    def shown(self, position: int) -> int | str:
        """A position as this caller may see it."""
        return shown(self.parts, self.who, position)


async def sender(request: HttpRequest) -> Sender:
    """Raises RequestRefused, LimitReached."""
    scope = request.scope
    who: Who = scope["user"]
    state = scope["litestar_app"].state
    caller = await _caller_of(request, who)
    if scope["route_handler"] in state["counted"]:
        await check_events(state["tenants_known"], caller, _parts(scope).ledger)
    return Sender(_parts(scope), who, caller, _version(headers.first(scope, b"if-match")))


async def check_events(known: TenantsKnown, caller: Caller, ledger: Ledger) -> None:
    """A repeat of what was done adds no event and has its stored answer, also where a new command is one too many.

    Raises LimitReached.
    """
    try:
        if unknown := known.check_events(caller.tenant_id):
            await unknown
    except LimitReached:
        if not caller.fingerprint or not await ledger.is_stored(caller):
            raise


def _parts(scope: Scope) -> Parts:
    parts: Parts = scope["litestar_app"].state["parts"]
    return parts


def pusher(parts: Parts, who: Who, event: str, key: bytes | None, body: bytes) -> Sender:
    """A command that came over a socket. The same key with the same body is the same command; None: a new one."""
    if key is None:
        caller = _caller(who, ids.new_id(), b"", request_ids.of(None))
    else:
        command_id = ids.derived_id(who.tenant_id.bytes, who.account_id.bytes, event.encode(), key)
        asked = event.encode() + b"\0" + body
        fingerprint = parts.ledger.keyring.master.fingerprint(asked)
        caller = _caller(who, command_id, fingerprint, request_ids.of(None), asked)
    return Sender(parts, who, caller, None)


class Reader:
    """A query: who asks, and the position that its answer must show at least."""

    def __init__(self, parts: Parts, who: Who, wanted: str | None) -> None:
        self.parts = parts
        self.who = who
        self.tenant_id = who.tenant_id
        self._wanted = wanted

    async def read(self, query: Callable[[reading.Connection], Awaitable[T]], *views: str) -> T:
        """What a query finds on a connection on which these views show what was asked for.

        Raises RequestRefused at once for a position that there is not, PositionTokenInvalid, ViewBehind, TooManyWaiters.
        """

        async def ask(source: replica.Source) -> T:
            async with source.pool.connection() as connection:
                return await query(connection)

        return await self._from_source(ask, views)

    async def row(self, view: str, id: UUID, known: rows.Stamp) -> rows.Found:
        """As `read`: a row by its id."""

        async def ask(source: replica.Source) -> rows.Found:
            return await source.rows.find(view, self.tenant_id, id, known)

        return await self._from_source(ask, (view,))

    async def newest_transactions(
        self, before: UUID | None, limit: int, *, visible_to: UUID | None
    ) -> reading.Page[rows.PageRow]:
        """As `read`: the page that everybody asks for, without filters, read by a prepared statement."""

        async def ask(source: replica.Source) -> reading.Page[rows.PageRow]:
            return await source.rows.newest(self.tenant_id, before, limit, visible_to=visible_to)

        return await self._from_source(ask, (transactions.NAME,))

    async def first_parked(self, view: str, originator: UUID | None) -> int | None:
        """Where the view's first event waits, of the originator or of any."""
        async with self.parts.pool.connection() as connection:
            return await reading.first_parked(connection, view, self.tenant_id, originator)

    async def _from_source(self, ask: Callable[[replica.Source], Coroutine[Any, Any, T]], views: Sequence[str]) -> T:
        """From the replica, if there is one that keeps up; else from the primary."""
        position = None if self._wanted is None else number(self.parts, self.who, self._wanted)
        copy = self.parts.replica
        if copy is not None and copy.in_use:

            async def ask_copy(source: replica.Source) -> T:
                await self._wait(source, views, position, replica.WAIT_S_MAX)
                found = await ask(source)
                if position is not None:
                    source.reached.check(self.tenant_id, views, found.position, position)
                return found

            with suppress(replica.NotAnswered):
                return await copy.read(ask_copy)
        primary = self.parts.primary
        await self._wait(primary, views, position, positions.WAIT_S_MAX)
        found = await ask(primary)
        if position is not None:
            primary.reached.check(self.tenant_id, views, found.position, position)
        return found

    async def _wait(self, source: replica.Source, views: Sequence[str], position: int | None, timeout_s: float) -> None:
        if position is not None and any(source.reached.at(self.tenant_id, view) < position for view in views):
            await self._check_exists(position)
            await source.reached.wait(self.tenant_id, views, position, timeout_s)

    def check_whole(self, parked_at: int | None) -> None:
        """What was found lacks the event at `parked_at` and later ones of the same resource. Raises RequestRefused if one of
        them was asked for."""
        if parked_at is None or self._wanted is None or number(self.parts, self.who, self._wanted) < parked_at:
            return
        raise errors.RequestRefused(
            errors.PARKED,
            "What happened to this resource up to X-Position cannot be shown yet. Ask without X-Position for what is there.",
        )

    async def head(self) -> int:
        """The stream's end before aggregates or entries are read, which therefore show at least that much.

        Raises RequestRefused, PositionTokenInvalid.
        """
        if self._wanted is not None:
            return await self._check_exists(number(self.parts, self.who, self._wanted))
        return (await self.parts.ledger.head(self.tenant_id)).position

    def shown(self, position: int) -> int | str:
        """A position as this caller may see it."""
        return shown(self.parts, self.who, position)

    async def _check_exists(self, position: int) -> int:
        head = (await self.parts.ledger.head(self.tenant_id)).position
        if position > head:
            text = f"X-Position {self._wanted} lies beyond the end of the stream. Use the value of an answer as it was given."
            raise errors.RequestRefused(errors.MALFORMED, text, {"X-Position": [text]})
        return head


def shown(parts: Parts, who: Who, position: int) -> int | str:
    """The number for who may read the ledger; for all others a token that says nothing."""
    return position if who.may("ledger:read") else parts.tokens.token(who.tenant_id, position)


def number(parts: Parts, who: Who, shown_as: str) -> int:
    """The position behind what was shown: a token, or the number for who may read the ledger.

    Raises PositionTokenInvalid.
    """
    if POSITION_NUMBER.fullmatch(shown_as) and who.may("ledger:read"):
        return int(shown_as)
    return parts.tokens.position(who.tenant_id, shown_as)


async def reader(request: HttpRequest) -> Reader:
    return Reader(_parts(request.scope), request.scope["user"], headers.first(request.scope, b"x-position"))
