"""Domain events to stored bytes and back: msgspec by the fields' annotations, topics, upcasting, personal data.

A state is a UTF-8 JSON object of the event's own fields. Not stored: `originator_id` and `originator_version` (columns),
`timestamp` (the recorded time is the only one; it is given back as `timestamp`) and `originator_topic`. A class with
`class_version` above 1 stores it and has `upcast_vN_vM` static methods, as the `eventsourcing` package defines them.

A field annotated with msgspec.Meta(extra={"personal": True}) is stored as base64 of nonce (12) ‖ AES-256-GCM ciphertext of
its JSON, under the key of the subject that the class names in SUBJECT, associated data
tenant (16) ‖ subject (16) ‖ originator (16) ‖ version (i32) ‖ u32 length, topic ‖ u32 length, field name.
"""

import base64
import logging
import os
import types
import typing
from collections.abc import Iterable, Sequence
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
        self.personal = {name: _plain(hint) for name, hint in hints.items() if _is_personal(hint)}
        if self.personal and self.subject is None:
            raise TypeError(
                f"{self.topic} has personal fields {sorted(self.personal)} and no SUBJECT. Name the field of its subject."
            )
        if self.subject is not None and self.subject not in (*self.names, "originator_id"):
            raise TypeError(
                f"{self.topic} names {self.subject!r} as its SUBJECT, which is none of its fields {self.names}."
            )
        fields: list[tuple[str, Any, Any]] = []
        for name, hint in hints.items():
            stored = str | None if name in self.personal else hint
            default = getattr(cls, name, msgspec.NODEFAULT)
            fields.append((name, stored, default))
        fields.append(("class_version", int, 1))
        self.struct = msgspec.defstruct(f"State_{self.topic.replace('.', '_')}", fields, kw_only=True)
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.struct)

    def subject_of(self, state: object, originator_id: UUID) -> UUID | None:
        """The person whom the personal fields are about; None if the event has none."""
        if not self.personal or self.subject is None:
            return None
        return originator_id if self.subject == "originator_id" else getattr(state, self.subject)


def _stored_names(cls: type) -> set[str]:
    return set(getattr(cls, "__dataclass_fields__", {})) - _NOT_STORED


def _is_personal(hint: Any) -> bool:
    """Whether Personal[...] stands at the top of the annotation, or in a union such as Personal[str] | None."""
    if typing.get_origin(hint) is typing.Annotated:
        return any(isinstance(m, msgspec.Meta) and (m.extra or {}).get("personal") for m in hint.__metadata__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_is_personal(part) for part in typing.get_args(hint))
    return False


def _plain(hint: Any) -> Any:
    """The decoder of a personal field's own JSON."""
    return msgspec.json.Decoder(hint)


def _associated(tenant_id: UUID, subject_id: UUID, originator_id: UUID, version: int, topic: str, field: str) -> bytes:
    numbers = tenant_id.bytes + subject_id.bytes + originator_id.bytes + version.to_bytes(4, "big")
    return numbers + chain.framed(topic.encode()) + chain.framed(field.encode())


class Codec:
    """Knows the event classes of a set of aggregates. Immutable after construction, shared by all tasks."""

    def __init__(self, aggregates: Iterable[type[Aggregate]]) -> None:
        self._by_topic: dict[str, _EventType] = {}
        self._by_class: dict[type, _EventType] = {}
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
            for name in known.personal:
                if state[name] is not None:
                    nonce = os.urandom(NONCE_BYTES)
                    about = _associated(
                        tenant_id, subject, event.originator_id, event.originator_version, known.topic, name
                    )
                    state[name] = base64.b64encode(
                        nonce + keys[subject].encrypt(nonce, _ENCODER.encode(state[name]), about)
                    ).decode()
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
            parsed = known.decoder.decode(state)
        except _UNREADABLE as error:
            raise errors.EventUnreadable(topic, originator_id, version, f"{type(error).__name__}: {error}") from error
        if parsed.class_version > known.version:
            why = f"its class_version {parsed.class_version} is newer than this release"
            raise errors.EventUnreadable(topic, originator_id, version, why)
        return Parsed(known, parsed, known.subject_of(parsed, originator_id))

    def finish(
        self, tenant_id: UUID, originator_id: UUID, version: int, recorded_at: datetime, parsed: "Parsed", keys: Keys
    ) -> Any:
        """Second half: the domain event, personal fields in clear, or ERASED where `keys` lacks the subject."""
        known, state = parsed.known, parsed.state
        attributes = {name: getattr(state, name) for name in known.names}
        for name in known.personal if parsed.subject_id is not None else ():
            if attributes[name] is not None:
                attributes[name] = _decipher(tenant_id, originator_id, version, parsed, name, attributes[name], keys)
        attributes["originator_id"] = originator_id
        attributes["originator_version"] = version
        attributes["timestamp"] = recorded_at
        if known.aggregate_topic is not None:
            attributes["originator_topic"] = known.aggregate_topic
        event = object.__new__(known.cls)
        object.__setattr__(event, "__dict__", attributes)  # frozen dataclass: what its own __init__ would have set
        return event


class Parsed(typing.NamedTuple):
    """An event between the two halves of decoding."""

    known: _EventType
    state: Any
    subject_id: UUID | None


def _attributes(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name in vars(base)}


def _upcast(known: _EventType, state: dict[str, Any], version: int) -> dict[str, Any]:
    while version < known.version:
        getattr(known.cls, f"upcast_v{version}_v{version + 1}")(state)
        version += 1
    state["class_version"] = version
    return state


def _decipher(
    tenant_id: UUID, originator_id: UUID, version: int, parsed: Parsed, name: str, stored: str, keys: Keys
) -> Any:
    subject = parsed.subject_id
    assert subject is not None
    key = keys.get(subject)
    if key is None:
        return ERASED
    about = _associated(tenant_id, subject, originator_id, version, parsed.known.topic, name)
    try:
        sealed = base64.b64decode(stored, validate=True)
        return parsed.known.personal[name].decode(key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about))
    except (InvalidTag, ValueError, msgspec.DecodeError):
        _log.error(
            "The field %s of %s version %s cannot be deciphered. Verify the ledger.", name, originator_id, version
        )
        return UNREADABLE


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
