"""What is stored is read for ever: by later classes through upcasters; what cannot be read is named."""

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from domain import catalogue
from domain.aggregates import Aggregate
from ledger import errors
from ledger.codec import Codec
from tests.ledger.codecs import NOON, ORIGINATOR, TENANT, EveryKey, Keys, decoded

EXAMPLES = sorted((Path(__file__).parents[1] / "events").glob("*.json"))
CODEC = Codec(catalogue.AGGREGATES)

# Stored examples


def sealed(example: dict[str, Any], keys: Keys) -> bytes:
    """The example's state as it is stored: its personal fields, which it shows in clear, encrypted."""
    cls: Any = CODEC.event_class(example["topic"])
    state = example["state"]
    clear = [name for name in ("email", "name", "buyer_ref") if name in state and getattr(cls, "SUBJECT", None)]
    version = {"class_version": example["class_version"]} if example["class_version"] > 1 else {}
    blank = decoded(CODEC, example["topic"], json.dumps({**state, **dict.fromkeys(clear), **version}).encode(), keys)
    vars(blank).update({name: state[name] for name in clear})
    return CODEC.encode(TENANT, blank, keys)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_stored_example_is_read_and_written_as_it_was(path: Path) -> None:
    """An event that today's code cannot read is lost to every view, replay and export."""
    example, keys = json.loads(path.read_text()), EveryKey()
    state = sealed(example, keys)
    event = decoded(CODEC, example["topic"], state, keys)
    shown = msgspec.to_builtins({name: vars(event)[name] for name in example["state"]})
    assert shown == example["state"]
    again = json.loads(CODEC.encode(TENANT, event, keys))
    assert decoded(CODEC, example["topic"], json.dumps(again).encode(), keys) == event
    stored = json.loads(state)
    version = getattr(CODEC.event_class(example["topic"]), "class_version", 1)
    if version > 1:  # what was read is written as the newest version
        assert again.pop("class_version") == stored.pop("class_version") == version
    assert list(again) == list(stored)
    added = set() if example["class_version"] == version else set(stored) - set(example["state"])  # by later versions
    assert [name for name in stored if name not in added] == list(example["state"])
    differing = {name for name in stored if stored[name] != again[name]}
    assert differing <= {"email", "name", "buyer_ref"}  # a new nonce each time
    assert {name for name in example["state"] if stored[name] != example["state"][name]} == differing
    assert (event.originator_id, event.originator_version, event.timestamp) == (ORIGINATOR, 1, NOON)


def test_every_event_of_the_catalogue_has_an_example_of_each_version() -> None:
    known = {path.stem for path in EXAMPLES}
    wanted = {
        f"{topic}.v{version}"
        for topic in CODEC.topics
        for version in range(1, getattr(CODEC.event_class(topic), "class_version", 1) + 1)
    }
    assert known == wanted


def test_nothing_but_the_events_own_fields_is_stored() -> None:
    """A timestamp or a class path in the state would be hashed, and could contradict the columns."""
    for path in EXAMPLES:
        names = set(json.loads(sealed(json.loads(path.read_text()), EveryKey())))
        assert not names & {"timestamp", "originator_id", "originator_version", "originator_topic"}


# Upcasting


class Crate(Aggregate):
    """The third shape of something that began with a weight in pounds and a label."""

    TOPIC = "crate"

    class Packed(Aggregate.Created):
        TOPIC = "crate.packed"
        class_version = 3
        label: str
        grams: int
        colours: list[str]
        note: str = ""

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["grams"] = round(Decimal(state.pop("pounds")) * Decimal("453.59237"))

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            state["colours"] = [state.pop("colour")]

    class Moved(Aggregate.Event):
        TOPIC = "crate.moved"
        to: str
        by: UUID | None = None
        on: datetime | None = None


CRATES = Codec([Crate])


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"label": "a", "pounds": "2", "colour": "red"}, ("a", 907, "", ["red"])),
        ({"label": "a", "pounds": "2", "colour": "red", "class_version": 1}, ("a", 907, "", ["red"])),
        ({"label": "b", "grams": 5, "colour": "blue", "class_version": 2}, ("b", 5, "", ["blue"])),
        ({"label": "c", "grams": 6, "colours": ["x", "y"], "note": "n", "class_version": 3}, ("c", 6, "n", ["x", "y"])),
    ],
)
def test_every_older_version_is_read_as_the_newest(stored: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Also where the newest has a required field that the older one never had: that is what upcasters are for."""
    event = decoded(CRATES, "crate.packed", json.dumps(stored).encode())
    assert (event.label, event.grams, event.note, event.colours) == expected


def test_a_newer_version_is_written_with_its_number_and_read_back() -> None:
    event = decoded(CRATES, "crate.packed", b'{"label":"c","grams":6,"colours":[],"class_version":3}')
    state = CRATES.encode(TENANT, event, {})
    assert json.loads(state) == {"label": "c", "grams": 6, "colours": [], "note": "", "class_version": 3}
    assert decoded(CRATES, "crate.packed", state) == event


def test_a_field_added_with_a_default_needs_no_upcaster() -> None:
    event = decoded(CRATES, "crate.moved", b'{"to":"Bremen","of_a_later_release":1}')
    assert (event.to, event.by, event.on) == ("Bremen", None, None)


def test_a_version_of_a_later_release_is_not_guessed_at() -> None:
    with pytest.raises(errors.EventUnreadable, match="newer than this release"):
        decoded(CRATES, "crate.packed", b'{"label":"c","grams":6,"colours":[],"class_version":4}')


def test_an_upcaster_that_fails_makes_the_event_unreadable_and_says_which() -> None:
    """A KeyError would stop the projector without a word on the event that did it."""
    with pytest.raises(errors.EventUnreadable) as unreadable:
        decoded(CRATES, "crate.packed", b'{"label":"no pounds","colour":"red","class_version":1}')
    assert (unreadable.value.topic, unreadable.value.originator_id, unreadable.value.version) == (
        "crate.packed",
        ORIGINATOR,
        1,
    )


# What cannot be read


def test_an_unknown_topic_is_named() -> None:
    with pytest.raises(errors.TopicUnknown, match=r"crate\.lost"):
        decoded(CRATES, "crate.lost", b"{}")


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"to":5}',
        b'{"to":null}',
        b'{"to":"x","by":"no uuid"}',
        b'{"to":"x","on":"yesterday"}',
        b'{"to":"x","class_version":"1"}',
        b'{"to":"x","class_version":null}',
        b'{"to":"\xff"}',
        b"\xff\xfe",
        b'{"to":"x"} trailing',
        b'{"to":"x"}\0',
        b'{"to":"x","more":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
    ids=lambda state: repr(state[:30]),
)
def test_a_malformed_state_says_which_event_cannot_be_read(state: bytes) -> None:
    with pytest.raises(errors.EventUnreadable) as unreadable:
        decoded(CRATES, "crate.moved", state, version=7)
    assert (unreadable.value.topic, unreadable.value.originator_id, unreadable.value.version) == (
        "crate.moved",
        ORIGINATOR,
        7,
    )


@pytest.mark.parametrize("state", [b"5", b"[]", b'{"class_version":1}', b'{"class_version":2,"label":5}', b"\xff"])
def test_a_malformed_state_of_an_older_version_too(state: bytes) -> None:
    with pytest.raises(errors.EventUnreadable):
        decoded(CRATES, "crate.packed", state)


# Registration


def test_two_classes_with_one_topic_are_refused() -> None:
    with pytest.raises(TypeError, match="Two event classes"):
        Codec([Crate, Crate])
