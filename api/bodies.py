"""Request bodies: JSON objects, bare or under the resource's name, unknown fields refused.

Litestar hands the body's bytes to a DTO; this one decodes them by msgspec, strictly ("1" is no number), and says of what
is wrong which field it was.
"""

import re
from collections.abc import Callable, Generator
from decimal import Decimal
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import msgspec
from litestar.dto import AbstractDTO, DTOConfig
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.openapi.spec import OpenAPIType, Reference, Schema
from litestar.typing import FieldDefinition

from api import errors, headers

BODY_BYTES_MAX = 1024 * 1024

_JSON = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json\s*(?:;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)
_AT = re.compile(r" - at `\$(.*?)`$", re.DOTALL)
_NAMED = re.compile(r"^Object (contains unknown|missing required) field `(.*?)`", re.DOTALL)

T = TypeVar("T", bound=msgspec.Struct)


class _Body(AbstractDTO[Any]):
    """Subclassed by `named` for each body."""

    resource: ClassVar[str]
    model: ClassVar[type[msgspec.Struct]]
    bare: ClassVar["msgspec.json.Decoder[Any]"]
    wrapped: ClassVar["msgspec.json.Decoder[Any]"]
    begins_wrapped: ClassVar["re.Pattern[bytes]"]

    def decode_bytes(self, value: bytes) -> Any:
        """The body's struct. Raises RequestRefused."""
        content_type = headers.first(self.asgi_connection.scope, b"content-type") or ""
        if _JSON.fullmatch(content_type.strip()) is None:
            raise errors.RequestRefused(
                errors.MEDIA_TYPE_WRONG,
                f"The body's type is {content_type[:80] or 'not said'}. Send Content-Type: application/json.",
            )
        return self.read(value)

    @classmethod
    def read(cls, value: bytes) -> Any:
        """The struct that this JSON is. Raises RequestRefused."""
        is_wrapped = cls.begins_wrapped.match(value) is not None
        try:
            if is_wrapped:
                return getattr(cls.wrapped.decode(value), cls.resource)
            return cls.bare.decode(value)
        except msgspec.ValidationError as error:
            raise _invalid(str(error), cls.resource if is_wrapped else None) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise errors.RequestRefused(
                errors.MALFORMED, f"The body is not JSON in UTF-8: {error}. Send a JSON object."
            ) from None
        except RecursionError:
            raise errors.RequestRefused(
                errors.MALFORMED, "The body is nested too deeply to be read. Send a flatter object."
            ) from None

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None
    ) -> None:
        """Nothing is generated: msgspec knows the struct."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        bare: Reference | Schema = schema_creator.for_field_definition(FieldDefinition.from_annotation(cls.model))
        _document(cls.model, schema_creator.schema_registry)
        wrapped = Schema(
            type=OpenAPIType.OBJECT,
            properties={cls.resource: bare},
            required=[cls.resource],
            additional_properties=False,
        )
        return Schema(one_of=[bare, wrapped])

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False


def named(resource: str, model: type[T]) -> type[AbstractDTO[T]]:
    """The DTO of a body that comes bare or as {resource: body}. `model` forbids unknown fields."""
    if not model.__struct_config__.forbid_unknown_fields or resource in model.__struct_fields__:
        raise TypeError(f"{model.__name__} must forbid unknown fields and have no field {resource}.")
    wrapper = msgspec.defstruct(f"{model.__name__}Named", [(resource, model)], forbid_unknown_fields=True)
    return type(
        f"{model.__name__}Body",
        (_Body,),
        {
            "config": DTOConfig(),
            "model_type": model,
            "resource": resource,
            "model": model,
            "bare": msgspec.json.Decoder(model),
            "wrapped": msgspec.json.Decoder(wrapper),
            "begins_wrapped": re.compile(rb"\s*\{\s*\"" + resource.encode() + rb"\"\s*:"),
        },
    )


def reader(resource: str, model: type[T]) -> Callable[[bytes], T]:
    """Reads what comes otherwise than by a request as if it were one's body. The reader raises RequestRefused."""
    body: type[Any] = named(resource, model)
    read: Callable[[bytes], T] = body.read
    return read


def _document(model: type[msgspec.Struct], registry: Any) -> None:
    """What the framework does not know: an amount is taken as a JSON number too, and an unknown field is refused."""
    schema = registry.get_schema_for_field_definition(FieldDefinition.from_annotation(model))
    if model.__struct_config__.forbid_unknown_fields:
        schema.additional_properties = False
    properties = schema.properties or {}
    for name, hint in get_type_hints(model).items():
        for each in (hint, *get_args(hint)):
            if each is Decimal:
                said = properties[name]
                for one in (said, *(said.one_of or ())):
                    if one.type == OpenAPIType.STRING:
                        one.type = [OpenAPIType.STRING, OpenAPIType.NUMBER]
            for inner in (each, *get_args(each)):
                if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                    _document(inner, registry)


def _invalid(message: str, resource: str | None) -> errors.RequestRefused:
    """From msgspec's message, such as "Expected `int`, got `str` - at `$.lines[0].quantity`"."""
    at = _AT.search(message)
    what = message[: at.start()] if at else message
    path = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", at.group(1) if at else "").strip(".")
    if resource is not None:
        path = path.removeprefix(resource).strip(".")
    about = _NAMED.match(what)
    if about is None:
        field = path
        text = f"The field {field or 'of the body'} is not as it should be: {what}. Look it up at /schema."
    else:
        field = f"{path}.{about.group(2)}".strip(".")
        text = (
            f"The field {field} is not known here. Leave it out."
            if about.group(1) == "contains unknown"
            else f"The field {field} is missing. Add it."
        )
    return errors.RequestRefused(errors.INVALID, text, {field: [text]} if field else None)
