"""One connection: what it has joined, and what each frame means there.

Whoever holds it gives it frames and does its effects in order. A `Join` or `Handle` is answered (`accepted`, `refused`, …)
before the next frame is given: requests are answered in their order.
"""

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from api.socket.protocol import frames
from api.socket.protocol.frames import EMPTY, NULL, Frame, Message

CHANNELS_MAX = 100
TOPIC_BYTES_MAX = 255
"""A binary frame can name no longer one."""
IDLE_S = 60.0
"""Without any data from the client. It sends a heartbeat every 30 s."""


class Code(enum.IntEnum):
    """Close codes. Never 1000: clients before 1.8.16 do not come back after it."""

    GONE = 1001  # the session ended: the client asks for a new token and comes back
    IDLE = 1002
    BROKEN = 1011  # a violation of the protocol
    RESTART = 1012  # this process stops
    SLOW = 1013  # it did not read: come back and resume


class Send(NamedTuple):
    frame: Frame


class Join(NamedTuple):
    """To be answered by `accepted`, `refused`, `unmatched` or `crashed`."""

    topic: str
    pattern: str
    payload: Any


class Leave(NamedTuple):
    """The membership has ended: nothing of this topic any more."""

    topic: str


class Handle(NamedTuple):
    """An event for a joined topic. To be answered by `replied`, `not_replied` or `failed`."""

    topic: str
    event: Any
    payload: Any
    join_ref: bytes  # with `ref` it names the request within the connection
    ref: bytes


class Close(NamedTuple):
    """The end, by us. No frame may follow."""

    code: Code
    reason: str


Effect: TypeAlias = Send | Join | Leave | Handle | Close


class State(enum.Enum):
    """READY takes a frame; ASKED waits for the answer to its Join or Handle; CLOSED is the end."""

    READY = enum.auto()
    ASKED = enum.auto()
    CLOSED = enum.auto()


class _Channel(NamedTuple):
    """A joined topic."""

    join_ref: bytes  # of the join; null if it came without
    reply_ref: bytes  # join_ref of replies: the join's `ref` where it came without a join_ref


class Connection:
    """`patterns` are topics: exact, or `prefix:*` for all that begin with `prefix:`; the first that fits counts."""

    __slots__ = ("_asked", "_channels", "_ended", "_patterns", "serializer", "state")

    def __init__(self, serializer: frames.Serializer, patterns: Sequence[str]) -> None:
        self.serializer = serializer
        self.state = State.READY
        self._patterns = patterns
        self._channels: dict[str, _Channel] = {}
        self._asked: Message | None = None  # the request whose answer is awaited
        self._ended: bytes | None = None  # join_ref of the membership that the awaited join ended

    @property
    def topics(self) -> list[str]:
        """Those that are joined."""
        return list(self._channels)

    # Frames in

    def receive(self, data: str | bytes) -> list[Effect]:
        """What a frame means. After Close nothing more is expected; a frame that comes nevertheless means nothing."""
        if self.state is State.CLOSED:
            return []
        self._expect(State.READY)
        try:
            message = self.serializer.decode(data)
        except frames.Violation as violation:
            return self.close(Code.BROKEN, str(violation))
        if message.topic == "phoenix" and message.event == "heartbeat":
            return [self._reply(message, NULL, "ok", EMPTY)]
        channel = self._channels.get(message.topic) if isinstance(message.topic, str) else None
        if message.event == "phx_join":
            return self._join(message, channel)
        if channel is None:
            return self._not_joined(message)
        if message.join_ref not in (channel.join_ref, NULL):
            return []  # stale: of a membership that has ended
        if message.event == "phx_leave":
            return self._leave(message, channel)
        self._ask(message)
        return [Handle(message.topic, message.event, message.payload, message.join_ref, message.ref)]

    def _join(self, message: Message, channel: _Channel | None) -> list[Effect]:
        pattern = self._pattern(message.topic)
        if pattern is None:
            return [self._unmatched(message)]
        if channel is None and len(self._channels) >= CHANNELS_MAX:
            return [self._reply(message, message.join_ref, "error", _reason("too many channels joined"))]
        effects: list[Effect] = []
        if channel is not None:
            effects.append(self._drop(message.topic))
            self._ended = channel.join_ref
        self._ask(message)
        return [*effects, Join(message.topic, pattern, message.payload)]

    def _not_joined(self, message: Message) -> list[Effect]:
        if message.event == "phx_leave" and message.topic != "phoenix":
            return [self._reply(message, message.join_ref, "ok", EMPTY)]
        return [self._unmatched(message)]

    def _leave(self, message: Message, channel: _Channel) -> list[Effect]:
        return [
            self._drop(message.topic),
            self._reply(message, channel.reply_ref, "ok", EMPTY),
            self._closed(message.topic, channel.join_ref),
        ]

    # Answers to Join

    def accepted(self, response: bytes = EMPTY) -> list[Effect]:
        """`response` is an encoded object."""
        message = self._answer()
        self._channels[message.topic] = _Channel(
            message.join_ref, message.ref if message.join_ref == NULL else message.join_ref
        )
        return [self._reply(message, message.join_ref, "ok", response), *self._old_closed(message.topic)]

    def refused(self, reason: str) -> list[Effect]:
        message = self._answer()
        refusal = self._reply(message, message.join_ref, "error", _reason(reason))
        return [refusal, *self._old_closed(message.topic)]

    def unmatched(self) -> list[Effect]:
        """The pattern fits, and there is no such topic nevertheless."""
        message = self._answer()
        return [self._unmatched(message), *self._old_closed(message.topic)]

    def crashed(self) -> list[Effect]:
        return self.refused("join crashed")

    # Answers to Handle

    def replied(self, status: str, response: bytes, *, is_json: bool = True) -> list[Effect]:
        """`response` is an encoded object, or with `is_json` False anything."""
        message = self._answer()
        channel = self._channels.get(message.topic)
        if channel is None:
            return []  # it ended meanwhile
        if is_json:
            return [self._reply(message, channel.reply_ref, status, response)]
        try:
            encode = self.serializer.encode_reply_of_bytes
            return [Send(encode(channel.reply_ref, message.ref, message.topic, status, response))]
        except frames.Violation as violation:
            return self.close(Code.BROKEN, str(violation))

    def not_replied(self) -> list[Effect]:
        self._answer()
        return []

    def failed(self) -> list[Effect]:
        """There is no handler for it, or the handler broke: the member is removed, the connection stays."""
        return self.break_channel(self._answer().topic)

    # What the server does by itself

    def push(self, topic: str, event: str, payload: bytes) -> list[Effect]:
        """To this member alone. `payload` is an encoded object."""
        channel = self._channels.get(topic)
        if channel is None:
            return []
        return [Send(self.serializer.encode(channel.join_ref, NULL, frames.encoded(topic), event, payload))]

    def break_channel(self, topic: str) -> list[Effect]:
        """The client joins again after its delay."""
        channel = self._channels.get(topic)
        if channel is None:
            return []
        left = self._drop(topic)
        ref = channel.join_ref
        error = self.serializer.encode(ref, ref, frames.encoded(topic), "phx_error", _reason("channel_crash"))
        return [left, Send(error)]

    def end_channel(self, topic: str) -> list[Effect]:
        """The client does not join again."""
        channel = self._channels.get(topic)
        return [] if channel is None else [self._drop(topic), self._closed(topic, channel.join_ref)]

    def close(self, code: Code, reason: str) -> list[Effect]:
        """All memberships end at once, and nothing is said of them."""
        if self.state is State.CLOSED:
            return []
        left = [self._drop(topic) for topic in self.topics]
        self.state, self._asked, self._ended = State.CLOSED, None, None
        return [*left, Close(code, reason)]

    def lost(self) -> list[Effect]:
        """The connection is gone, by whatever cause."""
        left: list[Effect] = [self._drop(topic) for topic in self.topics]
        self.state, self._asked, self._ended = State.CLOSED, None, None
        return left

    def tick(self, silent_s: float) -> list[Effect]:
        """`silent_s`: how long nothing has come from the client, pings included."""
        return self.close(Code.IDLE, "idle") if silent_s >= IDLE_S else []

    # Parts

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise RuntimeError(f"The connection is {self.state.name}, not {state.name}. Answer its request first.")

    def _ask(self, message: Message) -> None:
        self._asked, self.state = message, State.ASKED

    def _answer(self) -> Message:
        """Raises RuntimeError if nothing was asked."""
        self._expect(State.ASKED)
        assert self._asked is not None
        message, self._asked, self.state = self._asked, None, State.READY
        return message

    def _pattern(self, topic: Any) -> str | None:
        if not isinstance(topic, str) or len(topic.encode()) > TOPIC_BYTES_MAX:
            return None
        for pattern in self._patterns:
            if topic == pattern or (pattern.endswith(":*") and topic.startswith(pattern[:-1])):
                return pattern
        return None

    def _drop(self, topic: str) -> Leave:
        del self._channels[topic]
        return Leave(topic)

    def _reply(self, message: Message, join_ref: bytes, status: str, response: bytes) -> Send:
        topic, payload = frames.encoded(message.topic), frames.reply(status, response)
        return Send(self.serializer.encode(join_ref, message.ref, topic, "phx_reply", payload))

    def _unmatched(self, message: Message) -> Send:
        return self._reply(message, NULL, "error", _reason("unmatched topic"))

    def _closed(self, topic: str, join_ref: bytes) -> Send:
        return Send(self.serializer.encode(join_ref, join_ref, frames.encoded(topic), "phx_close", EMPTY))

    def _old_closed(self, topic: str) -> list[Effect]:
        join_ref, self._ended = self._ended, None
        return [] if join_ref is None else [self._closed(topic, join_ref)]


def _reason(reason: str) -> bytes:
    return frames.encoded({"reason": reason})
