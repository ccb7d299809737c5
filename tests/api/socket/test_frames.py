"""The serializers: binary frames, malformed input, versions; and the pace that is kept."""

import json

import pytest

from api.socket.protocol import frames, pace
from api.socket.protocol.connection import Code
from tests.api.socket.peer import JOINED, OK, Peer, as_v1, reply

# Binary frames


def binary(*strings: str, data: bytes = b"", kind: int = 0) -> bytes:
    parts = [each.encode() for each in strings]
    return bytes((kind, *map(len, parts))) + b"".join(parts) + data


def test_a_binary_push_has_a_binary_reply() -> None:
    peer = Peer()
    peer.says(["1", "1", "ok:transaction", "phx_join", {}])
    answered = peer.says(binary("1", "2", "ok:transaction", "echo", data=b"\x01\x02\xff"))
    assert answered == [b"\x01\x01\x01\x0e\x02" + b"1" + b"2" + b"ok:transaction" + b"ok" + b"\x01\x02\xff"]


def test_every_event_may_come_in_a_binary_frame() -> None:
    peer = Peer()
    assert peer.says(binary("", "9", "phoenix", "heartbeat")) == [reply(None, "9", "phoenix", OK)]
    assert peer.says(binary("1", "2", "ok:a", "phx_join", data=b"\x00")) == [reply("1", "2", "ok:a", OK)]
    assert peer.says(binary("1", "", "ok:a", "phx_leave")) == [
        reply("1", "", "ok:a", OK),
        ["1", "1", "ok:a", "phx_close", {}],
    ]


def test_binary_frames_of_the_server() -> None:
    v2 = frames.VERSION_2
    assert v2.encode_push_of_bytes(b'"1"', "t", "ev", b"\x00") == frames.Frame(b"\x00\x01\x01\x021tev\x00", False)
    assert v2.encode_broadcast_of_bytes("t", "ev", b"\x00") == frames.Frame(b"\x02\x01\x02tev\x00", False)
    assert v2.encode_reply_of_bytes(b"null", b"17", "t", "ok", b"") == frames.Frame(b"\x01\x00\x02\x01\x0217tok", False)
    with pytest.raises(frames.Violation):
        v2.encode_broadcast_of_bytes("t" * 256, "ev", b"")


def test_1_0_0_breaks_on_a_binary_payload() -> None:
    peer = Peer(frames.VERSION_1)
    peer.says(as_v1(JOINED))
    peer.connection.receive(json.dumps(as_v1(["1", "2", "ok:a", "echo", {}])))
    assert peer.sees(peer.connection.replied("ok", b"\xff", is_json=False)) == [Code.BROKEN]


# Malformed input

MALFORMED_V2: list[str | bytes] = [
    "",
    b"",
    "x",
    "{}",
    "5",
    "null",
    '"[]"',
    "[]",
    '[null,"1","phoenix","heartbeat"]',
    '[null,"1","phoenix","heartbeat",{}]x',
    '[null,"1","phoenix","heartbeat",{}][]',
    '[null,"1","phoenix","heartbeat",NaN]',
    '[null,"1","phoenix","heartbeat",Infinity]',
    '[null,"1","phoenix","heartbeat",1e999]',
    '[null,"1","phoenix","heartbeat","\\ud800"]',
    '[null,"1","phoenix","heartbeat","\\ude00\\ud83d"]',
    '[null,"1","phoenix","heartbeat",{"\\ud800":1}]',
    '[null,"1","phoenix","heartbeat",01]',
    '[null,\'1\',"phoenix","heartbeat",{}]',
    '[null,"1","phoenix","heartbeat",' + "[" * 100 + "]" * 100 + "]",
    "[" * 200_000,
    '{"a":' * 100_000,
    '[null,"' + "r" * 300 + '","phoenix","heartbeat",{}]',
    b'[null,"1","phoenix","heartbeat",{}]',
    b"\x00",
    b"\x00\x01\x01\x01",
    b"\x01" + binary("1", "2", "ok:a", "echo")[1:],
    b"\x02" + binary("1", "2", "ok:a", "echo")[1:],
    b"\xff" * 9,
    binary("1", "2", "ok:a", "echo")[:-1],
    b"\x00\xff\xff\xff\xff" + b"a" * 1019,
    b"\x00\x01\x01\x01\x01a\xffbc",
]
MALFORMED_V1: list[str | bytes] = [
    "",
    "[]",
    "5",
    '{"topic":"phoenix","event":"heartbeat","payload":{}}',
    '{"topic":"phoenix","event":"heartbeat","ref":"1"}',
    '{"topic":"phoenix","payload":{},"ref":"1"}',
    '{"event":"heartbeat","payload":{},"ref":"1"}',
    b'{"topic":"phoenix","event":"heartbeat","payload":"\xff","ref":"1"}',
    b"\x00\x01\x01\x01\x01abcd",
]


@pytest.mark.parametrize("data", MALFORMED_V2, ids=lambda data: repr(data[:40]))
def test_malformed_frames_end_the_connection(data: str | bytes) -> None:
    peer = Peer()
    peer.says(JOINED)
    assert peer.says(data) == [Code.BROKEN]
    assert peer.members == set()
    assert peer.says(JOINED) == []


@pytest.mark.parametrize("data", MALFORMED_V1, ids=lambda data: repr(data[:40]))
def test_malformed_frames_of_1_0_0_end_the_connection(data: str | bytes) -> None:
    assert Peer(frames.VERSION_1).says(data) == [Code.BROKEN]


@pytest.mark.parametrize(
    ("vsn", "serializer"),
    [
        (None, frames.VERSION_1),
        ("1.0.0", frames.VERSION_1),
        ("1.0.7", frames.VERSION_1),
        ("2.0.0", frames.VERSION_2),
        ("2.0.31", frames.VERSION_2),
        *((vsn, None) for vsn in ("2.1.0", "3.0.0", "abc", "", "2.0", "2", "2.0.x", "2.0.0.0", "1.0.²")),
    ],
)
def test_the_version_chooses_the_serializer(vsn: str | None, serializer: frames.Serializer | None) -> None:
    assert frames.of_version(vsn) is serializer


def test_who_sends_too_fast_is_made_to_wait() -> None:
    bucket = pace.Pace(0.0)
    assert [bucket.take(0.0, 0) for _ in range(pace.FRAMES_AT_ONCE)] == [0.0] * pace.FRAMES_AT_ONCE
    assert bucket.take(0.0, 0) == 1 / pace.FRAMES_PER_S
    assert bucket.take(10.0, 0) == 0.0
    assert pace.Pace(0.0).take(0.0, (pace.FRAMES_AT_ONCE + 99) * pace.BYTES_PER_FRAME) == 100 / pace.FRAMES_PER_S
