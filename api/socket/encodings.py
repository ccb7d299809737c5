"""A feed's message as a channel's broadcast: by serializer, and by what carries it."""

from api.feed.messages import Encoding, Frame, Message
from api.socket import wire
from api.socket.protocol import frames


def _text(serializer: frames.Serializer, message: Message, topic: str) -> bytes:
    return serializer.encode(frames.NULL, frames.NULL, frames.encoded(topic), message.name, message.data).data


def _v1_text(message: Message, topic: str) -> Frame:
    return Frame(message.position, _text(frames.VERSION_1, message, topic))


def _v2_text(message: Message, topic: str) -> Frame:
    return Frame(message.position, _text(frames.VERSION_2, message, topic))


def _v1_wire(message: Message, topic: str) -> Frame:
    return Frame(message.position, wire.framed(_text(frames.VERSION_1, message, topic)))


def _v2_wire(message: Message, topic: str) -> Frame:
    return Frame(message.position, wire.framed(_text(frames.VERSION_2, message, topic)))


ON_WIRE: dict[frames.Serializer, Encoding] = {frames.VERSION_1: _v1_wire, frames.VERSION_2: _v2_wire}
"""WebSocket frames."""
AS_TEXT: dict[frames.Serializer, Encoding] = {frames.VERSION_1: _v1_text, frames.VERSION_2: _v2_text}
"""What long polling carries."""
