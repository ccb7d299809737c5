"""What is recorded of a person is read by who has the key, by nobody else, and in spite of the tampered."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.aggregates import Aggregate
from domain.personal import Personal
from ledger import codec as codecs
from ledger.codec import ERASED, UNREADABLE, Codec, TenantMapper
from tests.ledger.codecs import NOON, ORIGINATOR, OTHER, TENANT, EveryKey, Keys, decoded


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


def test_the_mapper_of_the_package_reads_what_the_codec_writes() -> None:
    keys = EveryKey()
    mapper = TenantMapper(PEOPLE, TENANT, keys)
    event = decoded(PEOPLE, "person.met", json.dumps(met(keys)).encode(), keys)
    stored = mapper.to_stored_event(event)
    assert (stored.topic, stored.originator_id, stored.originator_version) == ("person.met", ORIGINATOR, 1)
    assert mapper.to_domain_event(stored, NOON) == event
