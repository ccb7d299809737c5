"""The connection as a state machine: every row of the protocol's table, in both serializers."""

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from api.socket.protocol import connection, frames
from api.socket.protocol.connection import Code, Connection, Join, Leave, Send, State
from tests.api.socket.peer import BARE, CRASHED, JOINED, OK, PATTERNS, UNMATCHED, Peer, as_v1, refusal, reply

TABLE: dict[str, list[tuple[Any, list[Any]]]] = {
    "a heartbeat before any join": [([None, "3", "phoenix", "heartbeat", {}], [reply(None, "3", "phoenix", OK)])],
    "a heartbeat with odd parts": [([1, None, "phoenix", "heartbeat", 5], [reply(None, None, "phoenix", OK)])],
    "another event to phoenix": [(["1", "2", "phoenix", "other", {}], [reply(None, "2", "phoenix", UNMATCHED)])],
    "a join of phoenix": [(["1", "2", "phoenix", "phx_join", {}], [reply(None, "2", "phoenix", UNMATCHED)])],
    "a leave of phoenix": [(["1", "2", "phoenix", "phx_leave", {}], [reply(None, "2", "phoenix", UNMATCHED)])],
    "a join of no pattern": [(["1", "2", "what:a", "phx_join", {}], [reply(None, "2", "what:a", UNMATCHED)])],
    "a join of another case": [(["1", "2", "OK:a", "phx_join", {}], [reply(None, "2", "OK:a", UNMATCHED)])],
    "a join of a prefix without its colon": [(["1", "2", "ok", "phx_join", {}], [reply(None, "2", "ok", UNMATCHED)])],
    "a join below what is exact": [
        (["1", "2", "exact:a", "phx_join", {}], [reply(None, "2", "exact:a", UNMATCHED)]),
        (["1", "2", "exact", "phx_join", {}], [reply("1", "2", "exact", OK)]),
    ],
    "a join of nothing there": [(["1", "2", "void:a", "phx_join", {}], [reply(None, "2", "void:a", UNMATCHED)])],
    "a join": [(JOINED, [reply("1", "1", "ok:a", OK)])],
    "refs of other types": [([{"a": 1}, 2.5, "ok:a", "phx_join", 7], [reply({"a": 1}, 2.5, "ok:a", OK)])],
    "a join refused, again and again": [
        (["1", "1", "no:a", "phx_join", {}], [reply("1", "1", "no:a", refusal("unauthorized"))]),
        (["2", "2", "no:a", "phx_join", {}], [reply("2", "2", "no:a", refusal("unauthorized"))]),
        (["2", "3", "no:a", "echo", {}], [reply(None, "3", "no:a", UNMATCHED)]),
    ],
    "a join that crashed": [
        (["1", "1", "crash:a", "phx_join", {}], [reply("1", "1", "crash:a", refusal("join crashed"))]),
    ],
    "a leave of what is not joined": [(["1", "4", "ok:a", "phx_leave", {}], [reply("1", "4", "ok:a", OK)])],
    "an event to what is not joined": [(["1", "4", "ok:a", "echo", {}], [reply(None, "4", "ok:a", UNMATCHED)])],
    "a duplicate join": [
        (JOINED, [reply("1", "1", "ok:a", OK)]),
        (
            ["2", "2", "ok:a", "phx_join", {}],
            [reply("2", "2", "ok:a", OK), ["1", "1", "ok:a", "phx_close", {}]],
        ),
        (["1", "3", "ok:a", "echo", {}], []),
        (["2", "4", "ok:a", "echo", {}], [reply("2", "4", "ok:a", {"status": "ok", "response": {"got": {}}})]),
    ],
    "a duplicate join with the same ref": [
        (JOINED, [reply("1", "1", "ok:a", OK)]),
        (JOINED, [reply("1", "1", "ok:a", OK), ["1", "1", "ok:a", "phx_close", {}]]),
    ],
    "a leave": [
        (JOINED, [reply("1", "1", "ok:a", OK)]),
        (
            ["1", "2", "ok:a", "phx_leave", {}],
            [reply("1", "2", "ok:a", OK), ["1", "1", "ok:a", "phx_close", {}]],
        ),
        (["1", "3", "ok:a", "echo", {}], [reply(None, "3", "ok:a", UNMATCHED)]),
    ],
    "a leave without join_ref": [
        (JOINED, [reply("1", "1", "ok:a", OK)]),
        (
            [None, "2", "ok:a", "phx_leave", {}],
            [reply("1", "2", "ok:a", OK), ["1", "1", "ok:a", "phx_close", {}]],
        ),
    ],
    "a stale leave": [
        (JOINED, [reply("1", "1", "ok:a", OK)]),
        (["0", "2", "ok:a", "phx_leave", {}], []),
        ([1, "2", "ok:a", "phx_leave", {}], []),
        (["1", "3", "ok:a", "echo", 5], [reply("1", "3", "ok:a", {"status": "ok", "response": {"got": 5}})]),
    ],
    "an event with null": [
        (JOINED, [reply("1", "1", "ok:a", OK)]),
        ([None, "3", "ok:a", "echo", 5], [reply("1", "3", "ok:a", {"status": "ok", "response": {"got": 5}})]),
    ],
    "an event that has no reply": [(JOINED, [reply("1", "1", "ok:a", OK)]), (["1", "3", "ok:a", "silent", 5], [])],
    "an event without a handler": [
        (JOINED, [reply("1", "1", "ok:a", OK)]),
        (["1", "3", "ok:a", "what", 5], [["1", "1", "ok:a", "phx_error", CRASHED]]),
        (["1", "4", "ok:a", "echo", 5], [reply(None, "4", "ok:a", UNMATCHED)]),
        ([None, "5", "phoenix", "heartbeat", {}], [reply(None, "5", "phoenix", OK)]),
    ],
    "an event that is no string": [
        (JOINED, [reply("1", "1", "ok:a", OK)]),
        (["1", "3", "ok:a", {"a": []}, 5], [["1", "1", "ok:a", "phx_error", CRASHED]]),
    ],
    "a join without join_ref": [
        (BARE, [reply(None, "7", "ok:a", OK)]),
        (["7", "8", "ok:a", "echo", 1], []),
        ([None, "8", "ok:a", "echo", 1], [reply("7", "8", "ok:a", {"status": "ok", "response": {"got": 1}})]),
        (BARE, [reply(None, "7", "ok:a", OK), [None, None, "ok:a", "phx_close", {}]]),
        ([None, "9", "ok:a", "what", 1], [[None, None, "ok:a", "phx_error", CRASHED]]),
    ],
    "topics that are no strings": [
        (["1", "2", topic, event, {}], [reply(None, "2", topic, UNMATCHED)])
        for topic in (5, None, {"a": 1}, ["ok:a"], True)
        for event in ("phx_join", "echo", "heartbeat")
    ],
    "more than five": [([None, "3", "phoenix", "heartbeat", {}, 6, [7]], [reply(None, "3", "phoenix", OK)])],
    "a topic that is too long": [
        (["1", "2", "ok:" + "é" * 127, "phx_join", {}], [reply(None, "2", "ok:" + "é" * 127, UNMATCHED)]),
        (["1", "2", "ok:" + "é" * 126, "phx_join", {}], [reply("1", "2", "ok:" + "é" * 126, OK)]),
    ],
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table(name: str) -> None:
    """What the npm client would otherwise do: hang, drop a reply, or rejoin for ever."""
    peer = Peer()
    for message, answers in TABLE[name]:
        assert peer.says(message) == answers, message
        assert set(peer.connection.topics) == peer.members


@pytest.mark.parametrize("name", TABLE)
def test_the_table_in_1_0_0(name: str) -> None:
    peer = Peer(frames.VERSION_1)
    for message, answers in TABLE[name]:
        told = [as_v1(answer) for answer in answers]
        for each in told:
            del each["join_ref"]
        assert peer.says(as_v1(message)) == told, message


def test_1_0_0_needs_no_join_ref_and_reads_either_opcode() -> None:
    peer = Peer(frames.VERSION_1)
    join = {"topic": "ok:a", "event": "phx_join", "payload": {}, "ref": "1", "more": 1}
    assert peer.says(join) == [{"topic": "ok:a", "event": "phx_reply", "payload": OK, "ref": "1"}]
    leave = json.dumps({"topic": "ok:a", "event": "phx_leave", "payload": {}, "ref": "2"}).encode()
    assert peer.says(leave) == [
        {"topic": "ok:a", "event": "phx_reply", "payload": OK, "ref": "2"},
        {"topic": "ok:a", "event": "phx_close", "payload": {}, "ref": None},
    ]


def test_a_refused_duplicate_join_ends_the_old_membership_nevertheless() -> None:
    peer = Peer()
    peer.says(JOINED)
    join, *_ = [each for each in peer.connection.receive(json.dumps(["2", "2", *JOINED[2:]])) if isinstance(each, Join)]
    assert join.topic == "ok:a"
    refused = [json.loads(each.frame.data) for each in peer.connection.refused("no") if isinstance(each, Send)]
    assert refused == [reply("2", "2", "ok:a", refusal("no")), ["1", "1", "ok:a", "phx_close", {}]]
    assert peer.connection.topics == []


def test_the_old_membership_ends_before_the_new_one_is_asked_for() -> None:
    """An event between the two would come under the old one, after its successor was asked for."""
    peer = Peer()
    peer.says(JOINED)
    effects = peer.connection.receive(json.dumps(["2", "2", *JOINED[2:]]))
    assert [type(each) for each in effects] == [Leave, Join]


def test_a_hundred_channels_and_no_more() -> None:
    peer = Peer()
    for n in range(100):
        assert peer.says([n, n, f"ok:{n}", "phx_join", {}]) == [reply(n, n, f"ok:{n}", OK)]
    too_many = refusal("too many channels joined")
    assert peer.says(["x", "x", "ok:x", "phx_join", {}]) == [reply("x", "x", "ok:x", too_many)]
    assert peer.says(["y", "y", "ok:5", "phx_join", {}])[0] == reply("y", "y", "ok:5", OK)
    peer.says([6, 6, "ok:6", "phx_leave", {}])
    assert peer.says(["x", "x", "ok:x", "phx_join", {}]) == [reply("x", "x", "ok:x", OK)]


_JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=4), inner),
    max_leaves=5,
)
_REF = strategies.sampled_from([None, "1", "2", 1, 2, True, ""])
_FRAME = strategies.one_of(
    strategies.tuples(
        _REF,
        _REF,
        strategies.sampled_from(["phoenix", "ok:a", "ok:b", "no:a", "crash:a", "void:a", "what", 5]) | _JSON,
        strategies.sampled_from(["phx_join", "phx_leave", "echo", "silent", "heartbeat", "what"]) | _JSON,
        _JSON,
    ).map(lambda parts: json.dumps(parts)),
    strategies.binary(max_size=40),
    strategies.text(max_size=20),
)


@hypothesis.given(strategies.lists(_FRAME, max_size=30))
def test_whatever_comes_the_connection_answers_or_closes(data: list[str | bytes]) -> None:
    """No input makes it raise, and what it says of its topics is what its effects said."""
    peer = Peer()
    for each in data:
        answers = peer.says(each)
        assert set(peer.connection.topics) == peer.members
        assert all(code in answers[-1:] for code in answers if isinstance(code, Code))
        if peer.connection.state is State.CLOSED:
            assert peer.members == set()
        elif isinstance(each, str) and json.loads(each)[3] in ("phx_join", "heartbeat"):
            assert [answer[1] for answer in answers[:1]] == [json.loads(each)[1]]


# What the server does by itself


def test_what_the_server_says_by_itself() -> None:
    peer = Peer()
    for ref in ("1", "2"):
        peer.says([ref, ref, f"ok:{ref}", "phx_join", {}])
    assert peer.sees(peer.connection.push("ok:1", "state", b'{"a":1}')) == [["1", None, "ok:1", "state", {"a": 1}]]
    assert peer.sees(peer.connection.push("ok:9", "state", b"{}")) == []
    assert peer.sees(peer.connection.end_channel("ok:1")) == [["1", "1", "ok:1", "phx_close", {}]]
    assert peer.sees(peer.connection.break_channel("ok:2")) == [["2", "2", "ok:2", "phx_error", CRASHED]]
    assert peer.sees(peer.connection.break_channel("ok:2")) == []
    assert peer.members == set()


def test_silence_ends_the_connection_and_a_close_says_nothing_of_topics() -> None:
    peer = Peer()
    peer.says(JOINED)
    assert peer.sees(peer.connection.tick(connection.IDLE_S - 1)) == []
    assert peer.sees(peer.connection.tick(connection.IDLE_S)) == [Code.IDLE]
    assert peer.members == set()
    assert peer.connection.close(Code.RESTART, "again") == []


def test_no_code_of_ours_keeps_a_client_away() -> None:
    """After 1000 clients before 1.8.16 do not come back."""
    assert {int(code) for code in Code}.isdisjoint({1000, 1004, 1005, 1006, 1015})
    assert (Code.GONE, Code.RESTART, Code.BROKEN) == (1001, 1012, 1011)


def test_a_frame_is_refused_while_an_answer_is_awaited() -> None:
    """Replies leave in the order of requests."""
    peer = Connection(frames.VERSION_2, PATTERNS)
    peer.receive(json.dumps(JOINED))
    with pytest.raises(RuntimeError):
        peer.receive(json.dumps([None, "2", "phoenix", "heartbeat", {}]))
    peer.accepted()
    with pytest.raises(RuntimeError):
        peer.accepted()


def test_an_answer_to_a_channel_that_ended_meanwhile_is_not_sent() -> None:
    peer = Peer()
    peer.says(JOINED)
    peer.connection.receive(json.dumps(["1", "2", "ok:a", "echo", {}]))
    peer.sees(peer.connection.end_channel("ok:a"))
    assert peer.connection.replied("ok", b"{}") == []
    assert peer.connection.state is State.READY
