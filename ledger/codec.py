"""Domain events to stored bytes and back: msgspec by the fields' annotations, topics, upcasting, personal data.

A state is a UTF-8 JSON object of the event's own fields. Not stored: `originator_id` and `originator_version` (columns),
`timestamp` (the recorded time is the only one; it is given back as `timestamp`) and `originator_topic`. A class with
`class_version` above 1 stores it and has `upcast_vN_vM` static methods, as the `eventsourcing` package defines them.

A field annotated with msgspec.Meta(extra={"personal": True}) is stored as base64 of nonce (12) ‖ AES-256-GCM ciphertext of
its JSON, under the key of the subject that the class names in SUBJECT, associated data
tenant (16) ‖ subject (16) ‖ originator (16) ‖ version (i32) ‖ u32 length, topic ‖ u32 length, field name.
"""

import logging
import os
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from eventsourcing.domain import Aggregate, CanInitAggregate, CanMutateAggregate, DomainEventProtocol
from eventsourcing.persistence import JSONTranscoder, Mapper, StoredEvent
from eventsourcing.utils import get_topic

from ledger import chain, errors
from ledger.keyring import Keys
from ledger.keys import NONCE_BYTES

A = TypeVar("A", bound=Aggregate)

ERASED = "[erased]"
"""What a reader sees of a person whose key is destroyed."""
UNREADABLE = "[unreadable]"
"""What a reader sees of a ciphertext that was tampered with; the rest of the event stays readable."""
REPORTED_MAX = 1_000
"""Fields that a process says are unreadable, each once; past that it says that it says no more. 200 bytes each."""

_NOT_STORED = {"originator_id", "originator_version", "timestamp", "originator_topic"}
_UNRECORDED = datetime.min.replace(tzinfo=UTC)
_ENCODER = msgspec.json.Encoder()
_log = logging.getLogger(__name__)


# What a state that does not fit raises, in the decoder or in an upcaster that does not find what it expects.
_UNREADABLE = (
    msgspec.MsgspecError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class _Version(msgspec.Struct):
    class_version: int = 1


_VERSION = msgspec.json.Decoder(_Version)
_BASE64 = msgspec.json.Decoder(bytes | None)
_NO_CIPHERTEXT = b""
_NONCE, _CIPHERTEXT = slice(0, NONCE_BYTES), slice(NONCE_BYTES, None)  # made once: it is done for every field


class _Field(typing.NamedTuple):
    """A personal field: its name, how the associated data ends, and what makes its value of the deciphered JSON."""

    name: str
    framed: bytes  # topic and name
    decode: Callable[[bytes], Any]


class _EventType:
    """What the codec knows about one event class."""

    def __init__(self, cls: type[CanMutateAggregate[UUID]], aggregate_topic: str) -> None:
        self.cls = cls
        self.topic = get_topic(cls)
        self.aggregate_topic = aggregate_topic if issubclass(cls, CanInitAggregate) else None
        self.version: int = getattr(cls, "class_version", 1)
        self.subject: str | None = getattr(cls, "SUBJECT", None)
        hints = {k: v for k, v in typing.get_type_hints(cls, include_extras=True).items() if k in _stored_names(cls)}
        self.names = tuple(hints)
        framed_topic = chain.framed(self.topic.encode())
        self.fields = tuple(
            _Field(name, framed_topic + chain.framed(name.encode()), msgspec.json.Decoder(hint).decode)
            for name, hint in hints.items()
            if _is_personal(hint)
        )
        self.personal = tuple(field.name for field in self.fields)
        if self.personal and self.subject is None:
            raise TypeError(
                f"{self.topic} has personal fields {sorted(self.personal)} and no SUBJECT. Name the field of its subject."
            )
        if self.subject is not None and self.subject not in (*self.names, "originator_id"):
            raise TypeError(
                f"{self.topic} names {self.subject!r} as its SUBJECT, which is none of its fields {self.names}."
            )
        self._struct = self._struct_with(hints, bytes | None)
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._struct)
        self._rough: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._struct_with(hints, msgspec.Raw))

    def _struct_with(self, hints: dict[str, Any], ciphertext: Any) -> type[msgspec.Struct]:
        """The stored state's shape, personal fields being of the type `ciphertext`."""
        fields: list[tuple[str, Any, Any]] = []
        for name, hint in hints.items():
            default = getattr(self.cls, name, msgspec.NODEFAULT)
            if name in self.personal and default not in (msgspec.NODEFAULT, None):
                raise TypeError(
                    f"The personal field {name} of {self.topic} has the default {default!r}. "
                    "What is not stored is not encrypted either: let it be None, or no default."
                )
            fields.append((name, ciphertext if name in self.personal else hint, default))
        fields.append(("class_version", int, 1))
        return msgspec.defstruct(f"State_{self.topic.replace('.', '_')}", fields, kw_only=True)

    def decode(self, state: bytes) -> Any:
        """The state; a personal field that holds no base64 is an empty ciphertext, which no key opens. Raises MsgspecError."""
        try:
            return self.decoder.decode(state)
        except msgspec.MsgspecError:
            if not self.personal:
                raise
        rough = self._rough.decode(state)
        values = {name: getattr(rough, name) for name in (*self.names, "class_version")}
        return self._struct(**values | {name: _ciphertext(values[name]) for name in self.personal})

    def subject_of(self, state: object, originator_id: UUID) -> UUID | None:
        """The person whom the personal fields are about; None if the event has none."""
        if not self.personal or self.subject is None:
            return None
        return originator_id if self.subject == "originator_id" else getattr(state, self.subject)


def _stored_names(cls: type) -> set[str]:
    return set(getattr(cls, "__dataclass_fields__", {})) - _NOT_STORED


def _about(tenant_id: UUID, subject_id: UUID, originator_id: UUID, version: int) -> bytes:
    """The associated data of an event's fields, up to the topic."""
    subject = subject_id.int.to_bytes(16)  # `bytes` does the same, and takes twice as long
    originator = subject if originator_id is subject_id else originator_id.int.to_bytes(16)
    return b"".join((tenant_id.int.to_bytes(16), subject, originator, version.to_bytes(4)))


def _is_personal(hint: Any) -> bool:
    """Whether Personal[...] stands at the top of the annotation, or in a union such as Personal[str] | None."""
    if typing.get_origin(hint) is typing.Annotated:
        return any(isinstance(m, msgspec.Meta) and (m.extra or {}).get("personal") for m in hint.__metadata__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_is_personal(part) for part in typing.get_args(hint))
    return False


def _ciphertext(raw: msgspec.Raw | None) -> bytes | None:
    try:
        return None if raw is None else _BASE64.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _NO_CIPHERTEXT


class Codec:
    """Knows the event classes of a set of aggregates. Shared by all tasks of the event loop's thread.

    Immutable after construction, but for what it has reported as unreadable.
    """

    def __init__(self, aggregates: Iterable[type[Aggregate]]) -> None:
        self._by_topic: dict[str, _EventType] = {}
        self._by_class: dict[type, _EventType] = {}
        self._reported: set[tuple[UUID, UUID, int, str]] = set()
        for aggregate in aggregates:
            for value in vars(aggregate).values():
                if isinstance(value, type) and issubclass(value, CanMutateAggregate) and "TOPIC" in _attributes(value):
                    self._register(value, get_topic(aggregate))

    def _register(self, cls: type[CanMutateAggregate[UUID]], aggregate_topic: str) -> None:
        known = _EventType(cls, aggregate_topic)
        if known.topic in self._by_topic:
            raise TypeError(
                f"Two event classes have the topic {known.topic!r}. Topics are for ever: give the newer one another."
            )
        self._by_topic[known.topic] = self._by_class[cls] = known

    @property
    def topics(self) -> Sequence[str]:
        """Of all known event classes, sorted."""
        return sorted(self._by_topic)

    @property
    def personal_topics(self) -> Sequence[str]:
        """Of the event classes with personal fields, sorted."""
        return sorted(topic for topic, known in self._by_topic.items() if known.personal)

    def personal_of(self, topic: str) -> frozenset[str]:
        """The names of the event's fields that are ciphertext in its state. Raises TopicUnknown."""
        return frozenset(self._known(topic).personal)

    def event_class(self, topic: str) -> type[CanMutateAggregate[UUID]]:
        """Raises TopicUnknown."""
        return self._known(topic).cls

    def _known(self, topic: str) -> _EventType:
        known = self._by_topic.get(topic)
        if known is None:
            raise errors.TopicUnknown(topic)
        return known

    def subject_of(self, event: DomainEventProtocol[UUID]) -> UUID | None:
        """Whose key encoding this event needs."""
        return self._by_class[type(event)].subject_of(event, event.originator_id)

    def encode(self, tenant_id: UUID, event: DomainEventProtocol[UUID], keys: Keys) -> bytes:
        """The state's bytes. `keys` has the event's subject; KeyError if it does not."""
        known = self._by_class[type(event)]
        attributes = vars(event)
        state = {name: attributes[name] for name in known.names}
        subject = known.subject_of(event, event.originator_id)
        if subject is not None:
            about = _about(tenant_id, subject, event.originator_id, event.originator_version)
            for name, framed, _ in known.fields:
                if state[name] is not None:
                    nonce, clear = os.urandom(NONCE_BYTES), _ENCODER.encode(state[name])
                    state[name] = nonce + keys[subject.int].encrypt(nonce, clear, about + framed)  # base64 in the JSON
        elif any(state[name] is not None for name in known.personal):
            raise TypeError(f"{known.topic} has personal data and its {known.subject} is empty. Give it a subject.")
        if known.version > 1:
            state["class_version"] = known.version
        return _ENCODER.encode(state)

    def parse(self, topic: str, originator_id: UUID, version: int, state: bytes) -> "Parsed":
        """First half of decoding: everything but the personal fields. Raises TopicUnknown, EventUnreadable."""
        known = self._known(topic)
        try:
            if known.version > 1 and (stored := _VERSION.decode(state).class_version) < known.version:
                state = _ENCODER.encode(_upcast(known, msgspec.json.decode(state), stored))
            parsed = known.decode(state)
        except _UNREADABLE as error:
            raise errors.EventUnreadable(topic, originator_id, version, f"{type(error).__name__}: {error}") from error
        if parsed.class_version > known.version:
            why = f"its class_version {parsed.class_version} is newer than this release"
            raise errors.EventUnreadable(topic, originator_id, version, why)
        return Parsed(known, parsed, known.subject_of(parsed, originator_id))

    def finish(
        self, tenant_id: UUID, originator_id: UUID, version: int, recorded_at: datetime, parsed: "Parsed", keys: Keys
    ) -> Any:
        """Second half: the domain event, personal fields in clear, or ERASED where `keys` lacks the subject.

        A field that cannot be deciphered is UNREADABLE, which is logged once.
        """
        known, state, _ = parsed
        attributes = {name: getattr(state, name) for name in known.names}
        if known.personal:
            unreadable = _decipher(tenant_id, originator_id, version, parsed, attributes, keys)
            if unreadable:
                self._report(tenant_id, originator_id, version, known.topic, unreadable)
        attributes["originator_id"] = originator_id
        attributes["originator_version"] = version
        attributes["timestamp"] = recorded_at
        if known.aggregate_topic is not None:
            attributes["originator_topic"] = known.aggregate_topic
        event = object.__new__(known.cls)
        object.__setattr__(event, "__dict__", attributes)  # frozen dataclass: what its own __init__ would have set
        return event

    def unreadable(
        self, tenant_id: UUID, originator_id: UUID, version: int, parsed: "Parsed", keys: Keys
    ) -> Sequence[str]:
        """The personal fields that `finish` gives as UNREADABLE, by name. Nothing is logged."""
        return _decipher(tenant_id, originator_id, version, parsed, parsed.ciphertexts(), keys)

    def _report(self, tenant_id: UUID, originator_id: UUID, version: int, topic: str, names: Iterable[str]) -> None:
        for name in names:
            field = (tenant_id, originator_id, version, name)
            if field in self._reported or len(self._reported) > REPORTED_MAX:
                continue
            self._reported.add(field)
            if len(self._reported) > REPORTED_MAX:
                _log.error(
                    "More than %s fields cannot be deciphered, and no more of them are logged. "
                    "Run `bitnexus audit verify --personal`: it counts them all.",
                    REPORTED_MAX,
                )
                continue
            _log.error(
                "The field %s of %s, version %s of %s in tenant %s, cannot be deciphered. "
                "Run `bitnexus audit verify --personal`, and compare the event with a backup.",
                name,
                topic,
                version,
                originator_id,
                tenant_id,
            )


class Parsed(typing.NamedTuple):
    """An event between the two halves of decoding."""

    known: _EventType
    state: Any
    subject_id: UUID | None

    def ciphertexts(self) -> dict[str, Any]:
        """The personal fields as they are stored, by name; None where nothing is."""
        return {name: getattr(self.state, name) for name in self.known.personal}


def _attributes(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name in vars(base)}


def _upcast(known: _EventType, state: dict[str, Any], version: int) -> dict[str, Any]:
    while version < known.version:
        getattr(known.cls, f"upcast_v{version}_v{version + 1}")(state)
        version += 1
    state["class_version"] = version
    return state


def _decipher(
    tenant_id: UUID, originator_id: UUID, version: int, parsed: Parsed, fields: dict[str, Any], keys: Keys
) -> Sequence[str]:
    """Put what they say in the place of the ciphertexts in `fields`. The names of those that are UNREADABLE come back."""
    known, _, subject_id = parsed
    if subject_id is None:  # `encode` lets nothing personal through without a subject
        return _mark(known, fields, UNREADABLE)
    key = keys.get(subject_id.int)
    if key is None:
        _mark(known, fields, ERASED)
        return ()
    decrypt, about = key.decrypt, _about(tenant_id, subject_id, originator_id, version)
    unreadable: Sequence[str] = ()
    for name, framed, decode in known.fields:
        sealed = fields[name]
        if sealed is not None:
            try:
                fields[name] = decode(decrypt(sealed[_NONCE], sealed[_CIPHERTEXT], about + framed))
            except (InvalidTag, ValueError, msgspec.MsgspecError, RecursionError):
                fields[name] = UNREADABLE
                unreadable = (*unreadable, name)
    return unreadable


def _mark(known: _EventType, fields: dict[str, Any], marker: str) -> Sequence[str]:
    marked = [name for name in known.personal if fields[name] is not None]
    fields.update(dict.fromkeys(marked, marker))
    return marked


class TenantMapper(Mapper[UUID]):
    """The codec as the `eventsourcing` package expects it: one tenant, keys at hand."""

    def __init__(self, codec: Codec, tenant_id: UUID, keys: Keys) -> None:
        super().__init__(JSONTranscoder())
        self._codec, self._tenant_id, self._keys = codec, tenant_id, keys

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        state = self._codec.encode(self._tenant_id, domain_event, self._keys)
        return StoredEvent(
            domain_event.originator_id, domain_event.originator_version, get_topic(type(domain_event)), state
        )

    def to_domain_event(self, stored_event: StoredEvent, recorded_at: datetime | None = None) -> Any:
        originator_id = stored_event.originator_id
        if not isinstance(originator_id, UUID):
            raise TypeError(f"The originator id {originator_id!r} is not a UUID. This ledger keeps UUIDs only.")
        version = stored_event.originator_version
        parsed = self._codec.parse(stored_event.topic, originator_id, version, stored_event.state)
        return self._codec.finish(
            self._tenant_id, originator_id, version, recorded_at or _UNRECORDED, parsed, self._keys
        )
