"""Organisations: a tenant in its own stream, and its registration in the stream of the platform."""

import re
from typing import Annotated, TypeAlias
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, money, refusals, text
from domain.meaning import meaning

# The tenant that holds the super admins and the registrations of all others. Fixed, so that every installation and
# every migration knows it without looking it up.
PLATFORM_ID = UUID("00000000-0000-7000-8000-000000000001")
PLATFORM_SLUG = "platform"

# A label of a host name (RFC 1123): a slug can be the left part of a tenant's address.
SLUG_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
NAME_LENGTH_MAX = 200  # as shown in page titles and statements

# The types of an event's fields.
TenantId: TypeAlias = Annotated[UUID, meaning("The tenant in whose stream the event is")]
Slug: TypeAlias = Annotated[str, meaning("The tenant's name in addresses: a label of a host name, unique")]
Name: TypeAlias = Annotated[str, meaning("The tenant's name as people read it")]


class SlugInvalid(refusals.Invalid):
    def __init__(self, slug: str) -> None:
        super().__init__(
            "The slug cannot be part of a host name",
            slug,
            "Give 1 to 63 characters out of a-z, 0-9 and -, with no - at either end",
            field="slug",
        )


class SlugReserved(refusals.Invalid):
    def __init__(self, slug: str) -> None:
        super().__init__("The slug is reserved", slug, "Choose another one", field="slug")


class Tenant(aggregates.Aggregate):
    """An organisation. Its stream begins with it; `currency` is what its prices are in unless they say otherwise."""

    TOPIC = "tenant"

    class Created(aggregates.Aggregate.Created):
        """The organisation is there. The first event of every tenant's stream."""

        TOPIC = "tenant.created"
        slug: Slug
        name: Name
        currency: Annotated[money.Currency, meaning("What the tenant's prices are in unless they say otherwise")]

    @event(Created)
    def __init__(self, id: UUID, slug: str, name: str, currency: str) -> None:
        self.slug = slug
        self.name = name
        self.currency = currency


class Registration(aggregates.Aggregate):
    """That a tenant exists, as the platform knows it. Lives in the platform's stream under the tenant's own id."""

    TOPIC = "registration"

    class Registered(aggregates.Aggregate.Created):
        """The platform knows the tenant, and its slug is taken. Its originator id is the tenant's id."""

        TOPIC = "tenant.registered"
        slug: Slug
        name: Name

    @event(Registered)
    def __init__(self, id: UUID, slug: str, name: str) -> None:
        self.slug = slug
        self.name = name


def create(*, id: UUID, slug: str, name: str, currency: str) -> Tenant:
    """Raises SlugInvalid, SlugReserved, TextBlank, TextTooLong, TextForbidden, CurrencyUnknown."""
    money.minor_digits(currency)
    return Tenant(id=id, slug=checked_slug(slug, id), name=_checked_name(name), currency=currency)


def register(*, id: UUID, slug: str, name: str) -> Registration:
    """Raises SlugInvalid, SlugReserved, TextBlank, TextTooLong, TextForbidden."""
    return Registration(id=id, slug=checked_slug(slug, id), name=_checked_name(name))


def checked_slug(slug: str, tenant_id: UUID) -> str:
    """Raises SlugInvalid, SlugReserved (the platform's slug for any other tenant)."""
    if SLUG_PATTERN.fullmatch(slug) is None:
        raise SlugInvalid(slug)
    if slug == PLATFORM_SLUG and tenant_id != PLATFORM_ID:
        raise SlugReserved(slug)
    return slug


def _checked_name(name: str) -> str:
    return text.line(name, "name", length_max=NAME_LENGTH_MAX)
