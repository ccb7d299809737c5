"""What a client may push to a channel: commands, with the rules of HTTP, each answered with a reply."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec

from api import asked, bodies, errors, limits, rights
from api.feed import topics
from api.parts import Parts
from api.socket.protocol import frames
from api.transactions import bodies as transaction_bodies
from api.transactions import resources
from commands import transactions

KEY = "idempotency_key"
"""In the payload, as the header Idempotency-Key is of a request."""


class Request(NamedTuple):
    """A push. `key`: what a repeat on the same connection has the same; None if the client gave it no ref."""

    parts: Parts
    known: limits.TenantsKnown
    who: rights.Who
    payload: Any
    key: bytes | None


Answer: TypeAlias = tuple[str, bytes]
"""A reply's status, ok or error, and its response, an encoded object."""
Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


class Recorded(msgspec.Struct, frozen=True):
    """What HTTP would answer."""

    data: resources.Transaction


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """HTTP's problem, with its name as the reason."""

    reason: str
    title: str
    detail: str
    errors: dict[str, list[str]] | dict[str, str]


_read_transaction = bodies.reader("transaction", transaction_bodies.TransactionBody)


async def new_transaction(request: Request) -> Answer:
    """Record a sale."""
    return await _answered(_record, request)


HANDLERS: dict[tuple[str, str], Handler] = {(topics.TRANSACTION, "new_transaction"): new_transaction}
"""By the kind of topic and the event."""


async def _record(request: Request) -> msgspec.Struct:
    who = request.who
    if not who.may("transactions:write"):
        raise rights.Forbidden("Your role does not have this right: transactions:write. Ask an admin of your tenant.")
    await request.parts.rates.pushed(who)
    payload, key = _keyed(request)
    body = frames.encoded(payload)
    sender = asked.pusher(request.parts, who, "push new_transaction", key, body)
    await asked.check_events(request.known, sender.caller, sender.ledger)
    command = transaction_bodies.record(_read_transaction(body), who)
    receipt = await transactions.record(command, sender.caller, sender.ledger)
    return Recorded(resources.of_aggregate(receipt.aggregate, sender.shown(receipt.position)))


def _keyed(request: Request) -> tuple[Any, bytes | None]:
    """The payload without its key, and the key. Raises RequestRefused."""
    payload = request.payload
    if isinstance(payload, bytes):
        raise errors.RequestRefused(errors.MALFORMED, "The payload is binary. Send a JSON object.")
    if not isinstance(payload, dict) or payload.get(KEY) is None:
        return payload, request.key
    key = payload[KEY]
    if not isinstance(key, str) or asked.IDEMPOTENCY_KEY.fullmatch(key) is None:
        text = f"The {KEY} is not 1 to 255 printable ASCII characters. Use a UUID."
        raise errors.RequestRefused(errors.INVALID, text, {KEY: [text]})
    return {name: value for name, value in payload.items() if name != KEY}, key.encode()


async def _answered(handle: Callable[[Request], Awaitable[msgspec.Struct]], request: Request) -> Answer:
    try:
        return "ok", frames.encoded(await handle(request))
    except Exception as error:
        problem = errors.problem(error)
        if problem is None:
            raise
        name = problem.type.rpartition(":")[2]
        refused = Refused(reason=name, title=problem.title, detail=problem.detail, errors=problem.errors)
        return "error", frames.encoded(refused)
