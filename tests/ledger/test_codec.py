"""What is stored is read for ever: by later classes through upcasters, without the erased, in spite of the tampered."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain import catalogue
from domain.aggregates import Aggregate
from domain.personal import Personal
from ledger import codec as codecs
from ledger import errors
from ledger.codec import ERASED, UNREADABLE, Codec, TenantMapper

EXAMPLES = sorted((Path(__file__).parents[1] / "events").glob("*.json"))
TENANT, ORIGINATOR, OTHER = (UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + n) for n in (1, 2, 3))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CODEC = Codec(catalogue.AGGREGATES)

Keys = dict[int, AESGCM]


class EveryKey(Keys):
    """A key for whoever is asked for, made at first use."""

    def __missing__(self, subject: int) -> AESGCM:
        self[subject] = AESGCM(subject.to_bytes(16, "big") * 2)
        return self[subject]

    def get(self, subject: int, default: Any = None) -> Any:
        return self[subject]


def decoded(codec: Codec, topic: str, state: bytes, keys: Mapping[int, AESGCM] | None = None, **at: Any) -> Any:
    """The event as readers get it. `at`: tenant, originator, version, if not the usual ones."""
    tenant, originator = at.get("tenant", TENANT), at.get("originator", ORIGINATOR)
    version = at.get("version", 1)
    parsed = codec.parse(topic, originator, version, state)
    return codec.finish(tenant, originator, version, NOON, parsed, keys if keys is not None else EveryKey())


# Stored examples


def sealed(example: dict[str, Any], keys: Keys) -> bytes:
    """The example's state as it is stored: its personal fields, which it shows in clear, encrypted."""
    cls: Any = CODEC.event_class(example["topic"])
    state = example["state"]
    clear = [name for name in ("email", "name", "buyer_ref") if name in state and getattr(cls, "SUBJECT", None)]
    blank = decoded(CODEC, example["topic"], json.dumps({**state, **dict.fromkeys(clear)}).encode(), keys)
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
    assert list(again) == list(stored) == list(example["state"])
    differing = {name for name in stored if stored[name] != again[name]}
    assert differing <= {"email", "name", "buyer_ref"}  # a new nonce each time
    assert {name for name in stored if stored[name] != example["state"][name]} == differing
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


# Personal data


class Person(Aggregate):
    TOPIC = "person"

    class Met(Aggregate.Created):
        TOPIC = "person.met"
        SUBJECT = "subject_id"
        subject_id: UUID | None
        name: Personal[str]
        nick: Personal[str] | None
        city: str


PEOPLE = Codec([Person])
SUBJECT = UUID(int=77)


def met(keys: Keys, tenant: UUID = TENANT, **state: Any) -> dict[str, Any]:
    """The stored state of a meeting, taken apart."""
    clear = {"subject_id": SUBJECT, "name": "Ann", "nick": "Annie", "city": "Rome", **state}
    blank = decoded(PEOPLE, "person.met", b'{"subject_id":null,"name":null,"nick":null,"city":""}')
    vars(blank).update(clear)
    found: dict[str, Any] = json.loads(PEOPLE.encode(tenant, blank, keys))
    return found


def seen(state: dict[str, Any], keys: Mapping[int, AESGCM] | None = None, **at: Any) -> tuple[Any, ...]:
    event = decoded(PEOPLE, "person.met", json.dumps(state).encode(), keys, **at)
    return event.name, event.nick, event.city


def test_personal_fields_are_ciphertext_when_stored_and_clear_to_who_has_the_key() -> None:
    state = met(EveryKey())
    assert "Ann" not in json.dumps(state)
    assert b"Ann" not in base64.b64decode(state["name"])
    assert seen(state) == ("Ann", "Annie", "Rome")
    assert seen(met(EveryKey(), nick=None)) == ("Ann", None, "Rome")


def test_the_same_name_is_stored_differently_each_time() -> None:
    """Else equal names could be counted without any key."""
    one, two = met(EveryKey()), met(EveryKey(), nick="Ann")
    assert len({one["name"], two["name"], two["nick"]}) == 3


def test_without_the_key_the_person_is_erased_and_the_rest_is_there() -> None:
    assert seen(met(EveryKey()), keys={}) == (ERASED, ERASED, "Rome")


@pytest.mark.parametrize(
    ("what", "value"),
    [("tenant", OTHER), ("originator", OTHER), ("version", 2)],
)
def test_ciphertext_moved_elsewhere_is_unreadable_not_an_error(what: str, value: Any) -> None:
    """Nobody makes another one's name appear in his event by copying bytes; and a reader is not stopped by the attempt."""
    assert seen(met(EveryKey()), **{what: value}) == (UNREADABLE, UNREADABLE, "Rome")


def test_swapped_fields_and_another_subjects_are_unreadable() -> None:
    state = met(EveryKey())
    assert seen({**state, "name": state["nick"], "nick": state["name"]}) == (UNREADABLE, UNREADABLE, "Rome")
    assert seen({**state, "subject_id": str(OTHER)}) == (UNREADABLE, UNREADABLE, "Rome")
    same_key = dict.fromkeys((SUBJECT.int, OTHER.int), EveryKey()[SUBJECT.int])
    assert seen({**state, "subject_id": str(OTHER)}, same_key)[0] == UNREADABLE


@pytest.mark.parametrize(
    "stored",
    [
        *("", "Ann", "====", "AAAA", "A" * 15, "A" * 64, "A" * 20 + "\n", "A=AA" * 9, "ä" * 20, "\0" * 8, "A" * 10_000),
        *(5, True, ["AAAA"], {"name": "Ann"}),
    ],
)
def test_what_is_no_ciphertext_is_unreadable(stored: Any) -> None:
    assert seen({**met(EveryKey()), "name": stored}) == (UNREADABLE, "Annie", "Rome")


@pytest.mark.parametrize("byte", [0xFF, 0x80, 0x20, 0x7F])
def test_a_byte_of_the_row_that_is_no_base64_costs_its_field_only(byte: int) -> None:
    """Not even UTF-8 any more: what broke on a disk must not hide the rest of the event."""
    state = bytearray(json.dumps(met(EveryKey())).encode())
    state[state.index(b'"nick": "') + 15] = byte
    event = decoded(PEOPLE, "person.met", bytes(state))
    assert (event.name, event.nick, event.city) == ("Ann", UNREADABLE, "Rome")


def test_ciphertext_without_a_subject_is_not_shown_as_it_is() -> None:
    """A view would keep it as somebody's name."""
    assert seen({**met(EveryKey()), "subject_id": None}) == (UNREADABLE, UNREADABLE, "Rome")
    assert seen({**met(EveryKey()), "subject_id": None, "nick": None}) == (UNREADABLE, None, "Rome")


def test_every_changed_byte_of_a_ciphertext_is_noticed() -> None:
    state = met(EveryKey())
    raw = base64.b64decode(state["name"])
    for place in range(len(raw)):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        assert seen({**state, "name": base64.b64encode(changed).decode()})[0] == UNREADABLE


def test_an_unreadable_field_is_logged_once_and_says_nothing_of_what_it_holds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each request that shows the event, and each rebuild, comes past it again."""
    codec = Codec([Person])
    state = json.dumps({**met(EveryKey()), "name": "Unmistakable"}).encode()
    for version in (1, 1, 1):
        decoded(codec, "person.met", state, version=version)
    (line,) = [line for line in caplog.messages if "name" in line]
    assert "Unmistakable" not in caplog.text
    for told in ("person.met", str(ORIGINATOR), "version 1", str(TENANT), "audit verify --personal"):
        assert told in line


def test_many_unreadable_fields_do_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecs, "REPORTED_MAX", 5)
    codec = Codec([Person])
    state = json.dumps({**met(EveryKey()), "nick": None, "name": "AAAA"}).encode()
    for version in range(1, 20):
        decoded(codec, "person.met", state, version=version)
    assert len(caplog.messages) == 6
    assert "More than 5 fields" in caplog.messages[-1]


def test_what_is_stored_is_what_the_readme_says() -> None:
    """Ledgers that exist can be read by this release and the next: neither the bytes nor what they are bound to may change."""
    key, nonce = AESGCM(SUBJECT.bytes * 2), bytes(range(12))
    numbers = TENANT.bytes + SUBJECT.bytes + ORIGINATOR.bytes + (1).to_bytes(4, "big")
    about = numbers + b"\0\0\0\x0aperson.met" + b"\0\0\0\4name"
    stored = base64.b64encode(nonce + key.encrypt(nonce, b'"Ann"', about)).decode()
    assert stored == "AAECAwQFBgcICQoLnCAMEf4qNL3am3mvm1HlLlyE2p42"
    assert seen({**met(EveryKey()), "name": stored}) == ("Ann", "Annie", "Rome")
    written = base64.b64decode(met(EveryKey())["name"], validate=True)
    assert key.decrypt(written[:12], written[12:], about) == b'"Ann"'


def test_ciphertext_of_another_topic_is_unreadable() -> None:
    class Stranger(Aggregate):
        TOPIC = "stranger"

        class Met(Aggregate.Created):
            TOPIC = "stranger.met"
            SUBJECT = "subject_id"
            subject_id: UUID
            name: Personal[str]

    state = json.dumps(met(EveryKey())).encode()
    assert decoded(Codec([Stranger]), "stranger.met", state).name == UNREADABLE


def test_personal_data_without_a_subject_or_its_key_are_never_stored_in_clear() -> None:
    with pytest.raises(TypeError, match="Give it a subject"):
        met(EveryKey(), subject_id=None)
    with pytest.raises(KeyError):
        met({})
    assert met({}, subject_id=None, name=None, nick=None)["name"] is None


# Registration


def test_a_class_with_personal_fields_and_no_subject_is_refused() -> None:
    """Its events could not be encrypted, and so never be erased."""

    class Nobody(Aggregate):
        class Seen(Aggregate.Event):
            TOPIC = "nobody.seen"
            name: Personal[str] | None

    with pytest.raises(TypeError, match=r"nobody\.seen has personal fields \['name'\] and no SUBJECT"):
        Codec([Nobody])


def test_a_personal_field_with_a_default_in_clear_is_refused() -> None:
    """Where a state lacks the field, readers would take the default for a ciphertext."""

    class Default(Aggregate):
        class Seen(Aggregate.Event):
            TOPIC = "default.seen"
            SUBJECT = "subject_id"
            subject_id: UUID
            name: Personal[str] = "nobody"

    with pytest.raises(TypeError, match=r"name of default\.seen has the default 'nobody'"):
        Codec([Default])


def test_a_subject_that_is_no_field_is_refused() -> None:
    """Found when the process starts, not when the first person registers."""

    class Typo(Aggregate):
        class Seen(Aggregate.Event):
            TOPIC = "typo.seen"
            SUBJECT = "subjekt_id"
            subject_id: UUID
            name: Personal[str]

    with pytest.raises(TypeError, match="subjekt_id"):
        Codec([Typo])


def test_two_classes_with_one_topic_are_refused() -> None:
    with pytest.raises(TypeError, match="Two event classes"):
        Codec([Crate, Crate])


def test_the_mapper_of_the_package_reads_what_the_codec_writes() -> None:
    keys = EveryKey()
    mapper = TenantMapper(PEOPLE, TENANT, keys)
    event = decoded(PEOPLE, "person.met", json.dumps(met(keys)).encode(), keys)
    stored = mapper.to_stored_event(event)
    assert (stored.topic, stored.originator_id, stored.originator_version) == ("person.met", ORIGINATOR, 1)
    assert mapper.to_domain_event(stored, NOON) == event
