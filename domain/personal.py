"""How an event says which of its fields are about a person."""

from typing import Annotated, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

# `email: Personal[str]`. The ledger keeps such a field as ciphertext under the key of the event's subject; destroying
# that key erases the person and leaves the chain whole. An event class with personal fields names the field that
# holds its subject's id in the class attribute SUBJECT. Schemas made of it say so too, as `x-personal`.
Personal: TypeAlias = Annotated[T, msgspec.Meta(extra={"personal": True}, extra_json_schema={"x-personal": True})]
