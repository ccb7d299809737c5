"""The two serializers: messages from frames and frames from messages.

References are the client's own, any JSON value, echoed as they came. They are kept as encoded JSON, so that 1 is not "1" and
two are equal if their bytes are. Strict JSON: no NaN, no lone surrogate, nothing after the value, bounded depth.
"""

from typing import Any, Final, NamedTuple, Protocol

import msgspec

FRAME_BYTES_MAX = 1024 * 1024
"""As for a request's body; the server's WebSocket refuses larger ones with 1009 before they come here."""
DEPTH_MAX = 64
"""Of nested arrays and objects in a frame. A sale's metadata has a handful; the decoder itself stops near 1,000."""
REF_BYTES_MAX = 255
"""The references of a joined topic are kept: a binary frame's limit for all."""

NULL: Final = b"null"
EMPTY: Final = b"{}"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Violation(Exception):
    """The frame is none of the protocol. The connection is closed with 1011."""


class Frame(NamedTuple):
    """What goes out: a text frame of UTF-8, or a binary one."""

    data: bytes
    is_text: bool = True


class Message(NamedTuple):
    """What came in. `topic`, `event` and `payload` are any JSON values; a payload of `bytes` came in a binary frame."""

    join_ref: bytes
    ref: bytes
    topic: Any
    event: Any
    payload: Any


class Serializer(Protocol):
    """What `vsn` chooses. `join_ref`, `ref`, `topic` and `payload` are encoded JSON."""

    def decode(self, data: str | bytes) -> Message:
        """Raises Violation."""

    def encode(self, join_ref: bytes, ref: bytes, topic: bytes, event: str, payload: bytes) -> Frame:
        """A text frame."""

    def encode_reply_of_bytes(self, join_ref: bytes, ref: bytes, topic: str, status: str, response: bytes) -> Frame:
        """A reply whose response is not JSON. Raises Violation if the serializer has no way to say it."""

    def encode_push_of_bytes(self, join_ref: bytes, topic: str, event: str, payload: bytes) -> Frame:
        """A push to one member. Raises Violation as above."""

    def encode_broadcast_of_bytes(self, topic: str, event: str, payload: bytes) -> Frame:
        """A message to all members. Raises Violation as above."""


def encoded(value: Any) -> bytes:
    """JSON of a value that came out of a frame, or of one of ours."""
    return _encode(value)


def reply(status: str, response: bytes) -> bytes:
    """The payload of `phx_reply`. `response` is an encoded object, never null."""
    return b'{"status":"%b","response":%b}' % (status.encode(), response)


class V1:
    """1.0.0: JSON objects, no join_ref outwards, no binary payloads."""

    def decode(self, data: str | bytes) -> Message:
        found = _json(data)
        if not isinstance(found, dict):
            raise Violation("a message is a JSON object")
        try:
            topic, event, payload, ref = found["topic"], found["event"], found["payload"], found["ref"]
        except KeyError as key:
            raise Violation(f"the message has no {key.args[0]}") from None
        return Message(_ref(found.get("join_ref")), _ref(ref), topic, event, payload)

    def encode(self, join_ref: bytes, ref: bytes, topic: bytes, event: str, payload: bytes) -> Frame:
        return Frame(b'{"topic":%b,"event":%b,"payload":%b,"ref":%b}' % (topic, _encode(event), payload, ref))

    def encode_reply_of_bytes(self, join_ref: bytes, ref: bytes, topic: str, status: str, response: bytes) -> Frame:
        raise Violation("serializer 1.0.0 has no binary payloads")

    def encode_push_of_bytes(self, join_ref: bytes, topic: str, event: str, payload: bytes) -> Frame:
        raise Violation("serializer 1.0.0 has no binary payloads")

    def encode_broadcast_of_bytes(self, topic: str, event: str, payload: bytes) -> Frame:
        raise Violation("serializer 1.0.0 has no binary payloads")


class V2:
    """2.0.0: JSON arrays of five, and binary frames where a payload is binary."""

    def decode(self, data: str | bytes) -> Message:
        if isinstance(data, bytes):
            return _binary_push(data)
        found = _json(data)
        if not isinstance(found, list) or len(found) < 5:
            raise Violation("a message is a JSON array of five")
        join_ref, ref, topic, event, payload = found[:5]
        return Message(_ref(join_ref), _ref(ref), topic, event, payload)

    def encode(self, join_ref: bytes, ref: bytes, topic: bytes, event: str, payload: bytes) -> Frame:
        return Frame(b"[%b,%b,%b,%b,%b]" % (join_ref, ref, topic, _encode(event), payload))

    def encode_reply_of_bytes(self, join_ref: bytes, ref: bytes, topic: str, status: str, response: bytes) -> Frame:
        return _binary(1, (_plain(join_ref), _plain(ref), topic.encode(), status.encode()), response)

    def encode_push_of_bytes(self, join_ref: bytes, topic: str, event: str, payload: bytes) -> Frame:
        return _binary(0, (_plain(join_ref), topic.encode(), event.encode()), payload)

    def encode_broadcast_of_bytes(self, topic: str, event: str, payload: bytes) -> Frame:
        return _binary(2, (topic.encode(), event.encode()), payload)


VERSION_1, VERSION_2 = V1(), V2()
_VERSIONS: dict[str, Serializer] = {"1.0": VERSION_1, "2.0": VERSION_2}


def of_version(vsn: str | None) -> Serializer | None:
    """The serializer that `vsn` of the query asks for; None if there is none such. Absent: 1.0.0."""
    if vsn is None:
        return VERSION_1
    major_minor, _, patch = vsn.rpartition(".")
    if not (patch.isascii() and patch.isdigit()):
        return None
    return _VERSIONS.get(major_minor)


def _json(data: str | bytes) -> Any:
    try:
        found = _decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Violation(f"no JSON: {error}") from None
    except RecursionError:
        raise Violation("nested too deeply") from None
    _check_depth(found)
    return found


def _check_depth(value: Any) -> None:
    """Level by level, so that no input makes it recurse. Raises Violation."""
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        level = [
            inner
            for each in level
            if isinstance(each, list | dict)
            for inner in (each if isinstance(each, list) else each.values())
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise Violation("nested too deeply")


def _ref(value: Any) -> bytes:
    found = _encode(value)
    if len(found) > REF_BYTES_MAX:
        raise Violation("a reference is too long")
    return found


def _binary_push(data: bytes) -> Message:
    if len(data) < 5 or data[0] != 0:
        raise Violation("a binary frame is a push: kind 0 and four lengths")
    at, parts = 5, []
    for length in data[1:5]:
        parts.append(data[at : at + length])
        at += length
    if at > len(data):
        raise Violation("the lengths of a binary frame go beyond its end")
    try:
        join_ref, ref, topic, event = (part.decode() for part in parts)
    except UnicodeDecodeError:
        raise Violation("a string of a binary frame is not UTF-8") from None
    return Message(_encode(join_ref), _encode(ref), topic, event, data[at:])


def _binary(kind: int, strings: tuple[bytes, ...], data: bytes) -> Frame:
    if any(len(each) > 255 for each in strings):
        raise Violation("a string of a binary frame has at most 255 bytes")
    return Frame(bytes((kind, *map(len, strings))) + b"".join(strings) + data, is_text=False)


def _plain(ref: bytes) -> bytes:
    """A reference as a binary frame says it: null is empty, a number its digits."""
    if ref == NULL:
        return b""
    value = _decode(ref)
    return value.encode() if isinstance(value, str) else ref
