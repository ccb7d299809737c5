"""The catalogue of events, made of the code: `python -m bitnexus.events docs` writes events.md and asyncapi.json there.

What an event is comes from its class (docstring, fields and what they mean), who consumes it from the views' topics and the
feed's slices. The page is a rendering of the document, so that neither says what the other does not.
"""

import inspect
import json
import sys
import typing
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
from eventsourcing.domain import Aggregate, CanMutateAggregate
from eventsourcing.utils import get_topic

from api import app, ledger
from api.feed import controller, messages
from bitnexus import eventpage
from domain import catalogue as every_aggregate
from domain.meaning import meaning
from projections import catalogue as every_view
from projections.view import View

Json = dict[str, Any]

SCHEMAS = "#/components/schemas/"
DOCUMENT, PAGE = "asyncapi.json", "events.md"
STREAM_ADDRESS = f"{app.PREFIX}{ledger.LedgerController.path}/entries"
FEED_ADDRESS = f"{app.PREFIX}{controller.FeedController.path}"


class MeaningMissing(Exception):
    def __init__(self, what: str, name: str, todo: str) -> None:
        super().__init__(f"The {what} does not say what it means: {name}. {todo}")


class Entry(msgspec.Struct):
    """What stands beside an event's own fields, whatever its topic."""

    topic: Annotated[str, meaning("The event's type. It never changes")]
    position: Annotated[int, meaning("Where the event stands in its tenant's stream: 1, 2, 3 … without gaps")]
    originator_id: Annotated[UUID, meaning("The aggregate that the event is of")]
    originator_version: Annotated[int, meaning("Its place among that aggregate's events, counted from 1")]
    recorded_at: Annotated[
        datetime, meaning("When it was recorded; never decreases in a stream", unit="UTC", form="date-time")
    ]


class Event(msgspec.Struct, frozen=True):
    """One event class. `subject` names the field with the id of the person whom its personal fields are about."""

    topic: str
    name: str
    version: int
    aggregate: str
    meaning: str
    subject: str | None
    state: type[msgspec.Struct]


def events(aggregates: Sequence[type[Aggregate]]) -> list[Event]:
    """In the order of the aggregates, and in each of the code. Raises MeaningMissing for a class without a docstring."""
    return [
        _event(value, get_topic(aggregate))
        for aggregate in aggregates
        for value in vars(aggregate).values()
        if isinstance(value, type) and issubclass(value, CanMutateAggregate) and hasattr(value, "TOPIC")
    ]


def _event(cls: type[CanMutateAggregate[UUID]], aggregate: str) -> Event:
    topic = get_topic(cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    # The same that the ledger's codec stores: all fields but those of the package's own classes.
    own = [
        name
        for name in vars(cls)["__dataclass_fields__"]
        if name not in vars(Aggregate.Created)["__dataclass_fields__"]
    ]
    fields = [(name, hints[name], getattr(cls, name, msgspec.NODEFAULT)) for name in own]
    said = _docstring(cls)
    if not said:
        raise MeaningMissing("event", topic, "Give its class a docstring.")
    state = msgspec.defstruct(topic, fields, kw_only=True, namespace={"__doc__": said})
    return Event(
        topic, cls.__name__, getattr(cls, "class_version", 1), aggregate, said, getattr(cls, "SUBJECT", None), state
    )


def _docstring(cls: type) -> str:
    """The package derives an event class anew from the one that was written, and a dataclass without a docstring gets
    its signature for one: what was written is the first that is neither. Empty if there is none."""
    for each in cls.__mro__:
        written = each.__doc__ or ""
        if each.__qualname__ == cls.__qualname__ and written and not written.startswith(f"{cls.__name__}("):
            return inspect.cleandoc(written)
    return ""


def document(catalogue: Sequence[Event], views: Sequence[View], slices: Sequence[messages.Slice]) -> Json:
    """An AsyncAPI 3.0 document. Beyond the standard: of a message `x-aggregate`, `x-class-version`, `x-subject` and
    `x-consumers`, of a field `x-unit` and `x-personal`. Raises MeaningMissing for a field without one."""
    told = {topic: name for each in slices for topic, name in each.names.items()}
    heard = {**told, messages.REPAIRED: "what had been parked"}
    recorded = _schemas([Entry, *(each.state for each in catalogue)], "")
    _check_meanings(recorded)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "BitNexus events",
            "version": metadata.version("bitnexus"),
            "description": (
                "Every event that the ledger records, and what the feed tells of them. Payloads are an event's own "
                "fields as a reader with the keys gets them; in storage, personal fields (`x-personal`) are ciphertext."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {"stream": _stream(catalogue), "feed": _feed(slices)},
        "operations": _operations(catalogue, views, told),
        "components": {
            "messages": {each.topic: _message(each, _consumers(each.topic, views, heard)) for each in catalogue}
            | _feed_messages(slices),
            "schemas": recorded | _schemas([_resource(each) for each in slices], "feed."),
        },
    }


def _stream(catalogue: Sequence[Event]) -> Json:
    return {
        "address": STREAM_ADDRESS,
        "title": "A tenant's stream",
        "description": "Every event of a tenant, in order of position; for callers with the right ledger:read.",
        "messages": {each.topic: {"$ref": f"#/components/messages/{each.topic}"} for each in catalogue},
    }


def _feed(slices: Sequence[messages.Slice]) -> Json:
    return {
        "address": FEED_ADDRESS,
        "title": "The feed",
        "description": "Server-sent events: what happens, as far as the caller may see it, with the resource by now.",
        "messages": {
            name: {"$ref": f"#/components/messages/feed.{name}"} for each in slices for name in each.names.values()
        },
    }


def _operations(catalogue: Sequence[Event], views: Sequence[View], told: dict[str, str]) -> Json:
    def on(channel: str, names: Sequence[str]) -> Json:
        return {
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
        }

    topics = [each.topic for each in catalogue]
    record = {"action": "send", "summary": "A command's events are appended.", **on("stream", topics)}
    tell = {"action": "send", "summary": "Listeners are told.", **on("feed", list(told.values()))}
    watch = {
        "action": "receive",
        "summary": "The feed reads what it tells of.",
        **on("stream", [topic for topic in topics if topic in told or topic == messages.REPAIRED]),
    }
    project = {
        f"project_{view.name}": {
            "action": "receive",
            "summary": f"The view {view.name}, version {view.version}, is kept up.",
            **on("stream", [topic for topic in topics if topic in view.wanted]),
        }
        for view in views
    }
    return {"record": record, **project, "watch": watch, "tell": tell}


def _consumers(topic: str, views: Sequence[View], heard: dict[str, str]) -> list[Json]:
    found: list[Json] = [{"view": view.name} for view in views if topic in view.wanted]
    return [*found, {"feed": heard[topic]}] if topic in heard else found


def _message(event: Event, consumers: list[Json]) -> Json:
    return {
        "name": event.topic,
        "title": event.name,
        "summary": event.meaning,
        "headers": {"$ref": f"{SCHEMAS}{Entry.__name__}"},
        "payload": {"$ref": f"{SCHEMAS}{event.topic}"},
        "x-aggregate": event.aggregate,
        "x-class-version": event.version,
        **({"x-subject": event.subject} if event.subject else {}),
        "x-consumers": consumers,
    }


def _feed_messages(slices: Sequence[messages.Slice]) -> Json:
    return {
        f"feed.{name}": {
            "name": name,
            "summary": f"Tells of {topic}, with the row that the view {each.view} has by now.",
            "payload": {"$ref": f"{SCHEMAS}feed.{_resource(each).__name__}"},
        }
        for each in slices
        for topic, name in each.names.items()
    }


def _resource(each: messages.Slice) -> type[msgspec.Struct]:
    found: type[msgspec.Struct] = typing.get_type_hints(each.resource)["return"]
    return found


def _schemas(types: Sequence[type[msgspec.Struct]], prefix: str) -> Json:
    """By name, with those that they refer to; the names of resources and of events overlap, so each has its prefix."""
    _, found = msgspec.json.schema_components(types, ref_template=f"{SCHEMAS}{prefix}{{name}}")
    for schema in found.values():
        schema["properties"] = {name: _lifted(each) for name, each in schema["properties"].items()}
    return {f"{prefix}{name}": schema for name, schema in found.items()}


def _check_meanings(schemas: Json) -> None:
    for name, schema in schemas.items():
        for field, said in schema["properties"].items():
            if "description" not in said:
                raise MeaningMissing(
                    "field", f"{name}, {field}", 'Annotate it: Annotated[int, meaning("…", unit="…")].'
                )


def _lifted(field: Json) -> Json:
    """What is said of a value that may be null, said of the field: one place to look."""
    values = [each for each in field.get("anyOf", ()) if each != {"type": "null"}]
    if len(values) != 1:
        return field
    said = {key: value for key, value in values[0].items() if key == "description" or key.startswith("x-")}
    value = {key: each for key, each in values[0].items() if key not in said}
    return {**said, **field, "anyOf": [value, {"type": "null"}]}


def current() -> Json:
    """The document of what this release records."""
    return document(events(every_aggregate.AGGREGATES), every_view.VIEWS, messages.SLICES)


def files(of: Json) -> dict[str, str]:
    """The files of the catalogue, by name."""
    return {DOCUMENT: json.dumps(of, indent=2, ensure_ascii=False) + "\n", PAGE: eventpage.page(of)}


def main(arguments: Sequence[str]) -> int:
    """2 if the arguments are not one directory."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m bitnexus.events DIRECTORY, such as docs", file=sys.stderr)
        return 2
    for name, text in files(current()).items():
        (Path(arguments[0]) / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
