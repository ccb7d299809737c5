"""A connection with a server behind it that answers at once."""

import json
from typing import Any

from api.socket.protocol import frames
from api.socket.protocol.connection import Close, Connection, Effect, Handle, Join, Leave, Send

PATTERNS = ("ok:*", "no:*", "crash:*", "void:*", "exact")
OK = {"status": "ok", "response": {}}
UNMATCHED = {"status": "error", "response": {"reason": "unmatched topic"}}
CRASHED = {"reason": "channel_crash"}


class Peer:
    """A connection with a server behind it that answers at once: joins by the topic's prefix, events by their name."""

    def __init__(self, serializer: frames.Serializer = frames.VERSION_2) -> None:
        self.connection = Connection(serializer, PATTERNS)
        self.members: set[str] = set()  # as the effects say

    def says(self, message: Any) -> list[Any]:
        """The client sends a frame, or JSON of a value. Gives what it is answered, decoded; a close as its code."""
        data = message if isinstance(message, str | bytes) else json.dumps(message)
        return self.sees(self.connection.receive(data))

    def sees(self, effects: list[Effect]) -> list[Any]:
        seen: list[Any] = []
        for effect in effects:
            match effect:
                case Send(frame):
                    seen.append(json.loads(frame.data) if frame.is_text else frame.data)
                case Close(code, _):
                    seen.append(code)
                case Leave(topic):
                    self.members.remove(topic)
                case Join():
                    seen += self.sees(self._joins(effect))
                case Handle():
                    seen += self.sees(self._handles(effect))
        return seen

    def _joins(self, join: Join) -> list[Effect]:
        match join.pattern:
            case "ok:*" | "exact":
                self.members.add(join.topic)
                return self.connection.accepted()
            case "no:*":
                return self.connection.refused("unauthorized")
            case "void:*":
                return self.connection.unmatched()
            case _:
                return self.connection.crashed()

    def _handles(self, handle: Handle) -> list[Effect]:
        match handle.event:
            case "echo":
                if isinstance(handle.payload, bytes):
                    return self.connection.replied("ok", handle.payload, is_json=False)
                return self.connection.replied("ok", frames.encoded({"got": handle.payload}))
            case "silent":
                return self.connection.not_replied()
            case _:
                return self.connection.failed()


def reply(join_ref: Any, ref: Any, topic: Any, payload: Any) -> list[Any]:
    return [join_ref, ref, topic, "phx_reply", payload]


def refusal(reason: str) -> dict[str, Any]:
    return {"status": "error", "response": {"reason": reason}}


JOINED: list[Any] = ["1", "1", "ok:a", "phx_join", {}]
BARE: list[Any] = [None, "7", "ok:a", "phx_join", {}]


def as_v1(message: list[Any]) -> dict[str, Any]:
    join_ref, ref, topic, event, payload = message[:5]
    return {"join_ref": join_ref, "ref": ref, "topic": topic, "event": event, "payload": payload}
