"""The catalogue of events (docs/events.md, docs/asyncapi.json) says what the code records, and nothing else."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from eventsourcing.domain import event

from api import ledger as ledger_api
from bitnexus import eventpage, events
from domain import aggregates, catalogue
from domain.meaning import meaning
from domain.personal import Personal
from ledger.codec import Codec
from tests.domain.given import SALE_ID

ROOT = Path(__file__).parents[1]
REGENERATE = "The catalogue is not that of the code. Run: .venv/bin/python -m bitnexus.events docs"
DOCUMENT = events.current()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
CODEC = Codec(catalogue.AGGREGATES)
EXAMPLES = {path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "tests" / "events").glob("*.json")}
KEY = re.compile(r"[\w.-]+")  # of a component, in the AsyncAPI standard


def refs(node: object) -> Iterator[str]:
    match node:
        case {"$ref": str(ref)}:
            yield ref
        case dict():
            for each in node.values():
                yield from refs(each)
        case list():
            for each in node:
                yield from refs(each)


def at(ref: str) -> Any:
    """What a reference of the document refers to. KeyError if nothing."""
    found: Any = DOCUMENT
    for step in ref.removeprefix("#/").split("/"):
        found = found[step]
    return found


FORMATS: dict[str, Callable[[str], object]] = {"uuid": UUID, "date-time": datetime.fromisoformat, "decimal": Decimal}
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
SAID = {"title", "description", "x-unit", "x-personal"}


def faults(schema: dict[str, Any], value: Any, where: str = "") -> list[str]:
    """Where the value breaks the schema. Knows as much of JSON Schema as the document uses, and refuses the rest."""
    if "$ref" in schema:
        return faults(at(schema["$ref"]), value, where)
    if "anyOf" in schema:
        return [] if any(not faults(each, value, where) for each in schema["anyOf"]) else [where]
    assert schema.keys() <= SAID | {"type", "format", "items", "properties", "required"}, schema
    if type(value) is not TYPES[schema["type"]]:  # True is an int to Python, not to JSON
        return [where]
    found = [f"{where}.{name}" for name in schema.get("required", ()) if name not in value]
    for name, each in schema.get("properties", {}).items():
        found += faults(each, value[name], f"{where}.{name}") if name in value else []
    for index, each in enumerate(value if "items" in schema else ()):
        found += faults(schema["items"], each, f"{where}.{index}")
    if "format" in schema:
        try:
            FORMATS[schema["format"]](value)
        except (ValueError, ArithmeticError):
            found.append(where)
    return found


@pytest.mark.parametrize("name", [events.DOCUMENT, events.PAGE])
def test_the_written_files_are_those_of_the_code(name: str) -> None:
    """Somebody builds on what the catalogue says of an event."""
    assert (ROOT / "docs" / name).read_text("utf-8") == events.files(DOCUMENT)[name], REGENERATE


def test_the_command_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert events.main([str(tmp_path)]) == 0
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == events.files(DOCUMENT)
    assert events.main([]) == events.main([str(tmp_path / "absent")]) == 2
    assert "python -m bitnexus.events" in capsys.readouterr().err


def test_every_event_that_the_ledger_can_record_is_in_it() -> None:
    """With the fields that are stored; the personal ones are those that the ledger encrypts."""
    assert sorted(DOCUMENT["channels"]["stream"]["messages"]) == CODEC.topics
    for topic in CODEC.topics:
        version = MESSAGES[topic]["x-class-version"]
        state = msgspec.json.encode(EXAMPLES[f"{topic}.v{version}"]["state"])
        known = CODEC.parse(topic, SALE_ID, 1, state).known
        fields = SCHEMAS[topic]["properties"]
        assert tuple(fields) == known.names
        assert {name for name, field in fields.items() if field.get("x-personal")} == set(known.personal)
        assert (known.version, known.subject) == (version, MESSAGES[topic].get("x-subject"))


def test_every_event_and_field_says_what_it_means() -> None:
    page = eventpage.page(DOCUMENT)
    for topic in CODEC.topics:
        assert MESSAGES[topic]["summary"] == SCHEMAS[topic]["description"]
        assert f"## {topic}\n\n{MESSAGES[topic]['summary']}\n" in page
    for schema in (each for name, each in SCHEMAS.items() if not name.startswith("feed.")):
        for name, field in schema["properties"].items():
            assert field["description"][0].isupper(), name
            assert f"| `{name}` |" in page
            assert field["description"] in page
            assert field.get("x-unit", "") in page


def test_money_quantities_prices_and_times_have_a_unit() -> None:
    """Minor units taken for whole ones are off by a hundred."""
    for schema in (each for name, each in SCHEMAS.items() if not name.startswith("feed.")):
        for name, field in schema["properties"].items():
            if re.search(r"_minor$|price|quantity|currency|_at$|^lines$", name):
                assert field["x-unit"], name


def test_it_says_who_consumes_an_event() -> None:
    consumers = {topic: MESSAGES[topic]["x-consumers"] for topic in CODEC.topics}
    assert consumers["transaction.recorded"] == [
        {"view": "transactions"},
        {"view": "sales"},
        {"feed": "new_transaction"},
    ]
    page = eventpage.page(DOCUMENT)
    for topic, found in consumers.items():
        named = [f"view {each['view']}" if "view" in each else f"feed `{each['feed']}`" for each in found]
        assert re.search(rf"^\| \[{re.escape(topic)}\].* \| {', '.join(named) or 'nobody yet'} \|$", page, re.MULTILINE)
        here = {"$ref": f"#/channels/stream/messages/{topic}"}
        receiving = {name for name, each in DOCUMENT["operations"].items() if here in each["messages"]} - {"record"}
        assert receiving == {f"project_{each['view']}" if "view" in each else "watch" for each in found}


def test_the_document_is_whole() -> None:
    """As AsyncAPI 3.0 wants it: every reference leads somewhere, operations use their channel's messages."""
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    used = {ref for part in ("channels", "operations", "components") for ref in refs(DOCUMENT[part])}
    for ref in used:
        assert at(ref), ref
    for kind, components in DOCUMENT["components"].items():
        for name in components:
            assert KEY.fullmatch(name)
            assert f"#/components/{kind}/{name}" in used
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert operation["messages"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{operation['channel']['$ref']}/messages/")


def test_what_stands_beside_an_event_is_what_an_auditor_gets() -> None:
    assert SCHEMAS["Entry"]["properties"].keys() < {each.name for each in msgspec.structs.fields(ledger_api.Entry)}


@pytest.mark.parametrize("topic", CODEC.topics)
def test_the_stored_example_is_what_the_schema_says(topic: str) -> None:
    """And an example that lacks a field, or has another type in it, is not."""
    state = EXAMPLES[f"{topic}.v{MESSAGES[topic]['x-class-version']}"]["state"]
    assert faults(SCHEMAS[topic], state) == []
    for name in state:
        assert faults(SCHEMAS[topic], {key: value for key, value in state.items() if key != name}) == [f".{name}"]
        wrong = 1 if isinstance(state[name], bool) else True
        assert faults(SCHEMAS[topic], state | {name: wrong}) == [f".{name}"]


class Parcel(aggregates.Aggregate):
    """Nothing of ours."""

    TOPIC = "parcel"

    class Sent(aggregates.Aggregate.Created):
        """It is on its way."""

        TOPIC = "parcel.sent"
        SUBJECT = "originator_id"
        class_version = 2
        to: Annotated[Personal[str], meaning("Where | to")] | None
        weight: Annotated[int, meaning("How heavy", unit="grams")] = 0

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["weight"] = 0

    @event(Sent)
    def __init__(self, id: UUID, to: str | None, weight: int = 0) -> None:
        self.to, self.weight = to, weight


class Mute(aggregates.Aggregate):
    TOPIC = "mute"

    class Made(aggregates.Aggregate.Created):
        TOPIC = "mute.made"

    @event(Made)
    def __init__(self, id: UUID) -> None: ...


class Vague(aggregates.Aggregate):
    TOPIC = "vague"

    class Made(aggregates.Aggregate.Created):
        """It is there."""

        TOPIC = "vague.made"
        size: int

    @event(Made)
    def __init__(self, id: UUID, size: int) -> None:
        self.size = size


def test_a_new_event_brings_all_of_it_along() -> None:
    """Version, subject, default, unit, and that nobody consumes it."""
    document = events.document(events.events([Parcel]), [], [])
    message, schema = (document["components"][kind]["parcel.sent"] for kind in ("messages", "schemas"))
    assert (message["x-class-version"], message["x-subject"], message["x-consumers"]) == (2, "originator_id", [])
    assert schema == {
        "title": "parcel.sent",
        "description": "It is on its way.",
        "type": "object",
        "properties": {
            "to": {"description": "Where | to", "x-personal": True, "anyOf": [{"type": "string"}, {"type": "null"}]},
            "weight": {"description": "How heavy", "x-unit": "grams", "type": "integer", "default": 0},
        },
        "required": ["to"],
    }
    page = eventpage.page(document)
    assert "| [parcel.sent](#parcelsent) | 2 | parcel | nobody yet |" in page
    assert "| `to` | string or null |  | Where \\| to | of `originator_id` |" in page
    assert "| `weight` | integer | grams | How heavy |  |" in page


def test_an_event_or_a_field_that_does_not_say_what_it_means_is_refused() -> None:
    with pytest.raises(events.MeaningMissing, match=r"event does not say what it means: mute\.made"):
        events.events([Mute])
    with pytest.raises(events.MeaningMissing, match=r"field does not say what it means: vague\.made, size"):
        events.document(events.events([Vague]), [], [])
