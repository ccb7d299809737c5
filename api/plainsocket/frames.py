"""What is said on a plain WebSocket: JSON objects with a `type`, in text frames."""

from typing import Any, TypeAlias

import msgspec

from api.feed.messages import NOWHERE, Frame, Message
from api.socket import wire

_encode = msgspec.json.Encoder().encode


class Authenticate(msgspec.Struct, frozen=True, tag="authenticate"):
    """The first one, unless the handshake said who it is; later, with a new token of the same session, to stay longer."""

    token: str


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    """To a topic, from now on or from after a position."""

    topic: str
    after: str | None = msgspec.field(default=None, name="from")


class Unsubscribe(msgspec.Struct, frozen=True, tag="unsubscribe"):
    topic: str


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Alive."""


Said: TypeAlias = Authenticate | Subscribe | Unsubscribe | Ping

_DECODER = msgspec.json.Decoder(Said)


class Unreadable(Exception):
    """It is none of these. Says why."""


def read(data: str | bytes) -> Said:
    """Raises Unreadable."""
    if isinstance(data, bytes):
        raise Unreadable("It is a binary frame. Send text.")
    try:
        said: Said = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable(f"It is none of the messages that docs/realtime.md names: {error}.") from None
    return said


def told(kind: str, **members: Any) -> bytes:
    """As a WebSocket frame."""
    return wire.framed(_encode({"type": kind, **members}))


def encode(message: Message, topic: str) -> Frame:
    """A feed's message, as a WebSocket frame."""
    place = b"null" if message.position == NOWHERE else b'"%b"' % message.token.encode()
    names = _encode(topic), _encode(message.name)
    text = b'{"type":"event","topic":%b,"event":%b,"position":%b,"data":%b}' % (*names, place, message.data)
    return Frame(message.position, wire.framed(text))
