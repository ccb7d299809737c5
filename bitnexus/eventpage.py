"""The catalogue of events as a page to read: an AsyncAPI document (see `events`) in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from ledger import codec

Json = dict[str, Any]

NOBODY = "nobody yet"

_HEAD = """<!-- Made of the code by `python -m bitnexus.events docs`. Do not edit: a test compares it. -->

# Events

Everything that the ledger can record. An event is stored as a JSON object of its own fields under its topic; a stored example
of each lies in `tests/events/`. The same as an AsyncAPI 3 document with JSON Schemas: [asyncapi.json](asyncapi.json).

- **Version** is the `class_version` of what is recorded now. Older versions are brought up to it when they are read.
- **Personal** fields are stored as ciphertext under the key of the person whose id stands in the field that is named; once that
  key is destroyed, every reader sees `{erased}` instead.
- **Money** is in minor units, prices are exact decimals: [money.md](money.md).
- **Consumers** are the views that are kept up from the event, and the feed with the name of its message. Auditors read every
  event as it is stored, at `{stream}`.
"""


def page(document: Json) -> str:
    """Markdown, its tables in the order of the document."""
    schemas: Json = document["components"]["schemas"]
    of_stream = [document["components"]["messages"][topic] for topic in document["channels"]["stream"]["messages"]]
    parts = _parts(of_stream, schemas)
    sections = [
        _HEAD.format(stream=document["channels"]["stream"]["address"], erased=codec.ERASED),
        _table(["event", "version", "aggregate", "consumers"], map(_row, of_stream)),
        "## What every event has\n\nBeside its own fields, and for all topics the same:\n",
        _fields(schemas["Entry"], None),
        *(text for message in of_stream for text in _section(message, schemas)),
        *(
            text
            for name in parts
            for text in (f"## {name}\n\n{schemas[name]['description']}\n", _fields(schemas[name], None))
        ),
        *_feed(document),
    ]
    return "\n".join(sections)


def _row(message: Json) -> list[str]:
    topic = message["name"]
    return [
        f"[{topic}](#{_anchor(topic)})",
        str(message["x-class-version"]),
        message["x-aggregate"],
        _consumers(message["x-consumers"]),
    ]


def _section(message: Json, schemas: Json) -> list[str]:
    head = (
        f"## {message['name']}\n\n{message['summary']}\n\n"
        f"Version {message['x-class-version']}, of the aggregate `{message['x-aggregate']}`. "
        f"Consumers: {_consumers(message['x-consumers'])}.\n"
    )
    schema = schemas[message["name"]]
    if not schema["properties"]:
        return [head, "It has no fields of its own.\n"]
    return [head, _fields(schema, message.get("x-subject"))]


def _consumers(consumers: Sequence[Json]) -> str:
    named = [
        f"{kind} {name}" if kind == "view" else f"{kind} `{name}`" for each in consumers for kind, name in each.items()
    ]
    return ", ".join(named) or NOBODY


def _fields(schema: Json, subject: str | None) -> str:
    columns = ["field", "type", "unit", "meaning", "personal"]
    rows = [
        [f"`{name}`", _type(field), field.get("x-unit", ""), field["description"], _whose(field, subject)]
        for name, field in schema["properties"].items()
    ]
    wanted = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    return _table([columns[index] for index in wanted], ([row[index] for index in wanted] for row in rows))


def _whose(field: Json, subject: str | None) -> str:
    return f"of `{subject}`" if field.get("x-personal") else ""


def _type(schema: Json) -> str:
    match schema:
        case {"anyOf": [*several]}:
            return " or ".join(_type(each) for each in several)
        case {"$ref": str(ref)}:
            name = ref.rpartition("/")[2]
            return f"[{name}](#{_anchor(name)})"
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": "string", "format": str(form)}:
            return form
    return str(schema["type"])


def _parts(of_stream: Iterable[Json], schemas: Json) -> list[str]:
    """Names of what events are made of, in the order in which they are first used."""
    waiting = [schemas[message["name"]] for message in of_stream]
    found: list[str] = []
    for schema in waiting:
        for ref in _refs(schema):
            name = ref.rpartition("/")[2]
            if name not in found:
                found.append(name)
                waiting.append(schemas[name])
    return found


def _refs(schema: Any) -> Iterable[str]:
    match schema:
        case {"$ref": str(ref)}:
            yield ref
        case dict():
            for each in schema.values():
                yield from _refs(each)
        case list():
            for each in schema:
                yield from _refs(each)


def _feed(document: Json) -> list[str]:
    feed = document["channels"]["feed"]
    told = [document["components"]["messages"][f"feed.{name}"] for name in feed["messages"]]
    rows = [[f"`{message['name']}`", message["summary"]] for message in told]
    return [f"## The feed\n\n`{feed['address']}`. {feed['description']}\n", _table(["message", "what it tells"], rows)]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(each.replace('|', chr(92) + '|') for each in line)} |\n" for line in lines)


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return heading.lower().replace(".", "")
