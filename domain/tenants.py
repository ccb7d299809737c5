"""Organisations: a tenant in its own stream, and its registration in the stream of the platform."""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, NamedTuple, TypeAlias
from urllib.parse import urlsplit
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
LOGO_URL_LENGTH_MAX = 2_000  # what every browser takes
SENDER_LENGTH_MAX = 254  # as for any address
SENDER_PATTERN = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
COLOUR_PATTERN = re.compile(r"#[0-9a-f]{6}")
FLAG_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,49}")
FLAGS_MAX = 50
HOSTS_MAX = 20
HOST_LENGTH_MAX = 253  # RFC 1035
LIMIT_MAX = 10**9
REASON_LENGTH_MAX = 200

# The types of an event's fields.
TenantId: TypeAlias = Annotated[UUID, meaning("The tenant in whose stream the event is")]
Slug: TypeAlias = Annotated[str, meaning("The tenant's name in addresses: a label of a host name, unique")]
Name: TypeAlias = Annotated[str, meaning("The tenant's name as people read it")]


class RegistrationMode(StrEnum):
    """Who may make an account in a tenant."""

    OPEN = "open"  # everybody
    INVITATION = "invitation"  # whom an admin invited
    CLOSED = "closed"  # nobody: admins make accounts


class SecondFactor(StrEnum):
    """Whether an account of a tenant has to have one."""

    OPTIONAL = "optional"
    REQUIRED = "required"


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


class SettingInvalid(refusals.Invalid):
    """A colour, an address, a flag, a host name or a limit."""


class TenantSuspended(refusals.Conflict):
    kept_as = None

    def __init__(self, tenant_id: UUID) -> None:
        super().__init__("The tenant is suspended, nobody acts in it", tenant_id, "Ask whoever runs the installation")


class TenantClosed(refusals.Conflict):
    kept_as = None

    def __init__(self, tenant_id: UUID) -> None:
        super().__init__(
            "The tenant was closed for good", tenant_id, "Make another one, or import its export elsewhere"
        )


class TenantNotSuspended(refusals.Conflict):
    def __init__(self, tenant_id: UUID) -> None:
        super().__init__("The tenant is at work", tenant_id, "Suspend and export it first, then close it")


class Status(StrEnum):
    """active <-> suspended -> closed."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"


class Branding(NamedTuple):
    """What the sign-in page shows, and whom mails are from. Colours as #rrggbb."""

    name: str
    logo_url: str | None = None
    primary_colour: str | None = None
    accent_colour: str | None = None
    sender_address: str | None = None


class Limits(NamedTuple):
    """None: as many as there are."""

    users: int | None = None
    requests_per_minute: int | None = None
    events_per_day: int | None = None


class Tenant(aggregates.Aggregate):
    """An organisation. Its stream begins with it; `currency` is what its prices are in unless they say otherwise."""

    TOPIC = "tenant"

    class Created(aggregates.Aggregate.Created):
        """The organisation is there. The first event of every tenant's stream."""

        TOPIC = "tenant.created"
        slug: Slug
        name: Name
        currency: Annotated[money.Currency, meaning("What the tenant's prices are in unless they say otherwise")]

    class Branded(aggregates.Aggregate.Event):
        """How the tenant shows itself from now on: all of it, what was there before is gone."""

        TOPIC = "tenant.branded"
        name: Name
        logo_url: Annotated[str | None, meaning("Where its logo is, https")]
        primary_colour: Annotated[str | None, meaning("As #rrggbb")]
        accent_colour: Annotated[str | None, meaning("As #rrggbb")]
        sender_address: Annotated[str | None, meaning("The address that its mails are from, of no person")]

    class Configured(aggregates.Aggregate.Event):
        """What the tenant wants from now on: all of it, what was there before is gone."""

        TOPIC = "tenant.configured"
        currency: Annotated[money.Currency, meaning("What the tenant's prices are in unless they say otherwise")]
        flags: Annotated[list[str], meaning("The features that are switched on, in order")]

    class Limited(aggregates.Aggregate.Event):
        """How much the tenant may use from now on, as the platform says: null is as much as there is."""

        TOPIC = "tenant.limited"
        users: Annotated[int | None, meaning("Accounts that have an address")]
        requests_per_minute: Annotated[int | None, meaning("Requests of all callers together")]
        events_per_day: Annotated[int | None, meaning("Events of a UTC day, without those about accounts and security")]

    class Suspended(aggregates.Aggregate.Event):
        """Nobody acts in the tenant any more; its data stay."""

        TOPIC = "tenant.suspended"
        reason: Annotated[str, meaning("Why, in the words of the super admin")]

    class Resumed(aggregates.Aggregate.Event):
        """The tenant is at work again."""

        TOPIC = "tenant.resumed"

    class Closed(aggregates.Aggregate.Event):
        """The tenant is not at work any more, for good. It was exported before."""

        TOPIC = "tenant.closed"

    class SignInConfigured(aggregates.Aggregate.Event):
        """Who may make an account, and whether it needs a second factor. It counts for what happens from now on."""

        TOPIC = "tenant.sign_in_configured"
        registration: Annotated[str, meaning(f"Who may make an account: {', '.join(RegistrationMode)}")]
        second_factor: Annotated[str, meaning(f"Whether logging in needs one: {', '.join(SecondFactor)}")]

    @event(Created)
    def __init__(self, id: UUID, slug: str, name: str, currency: str) -> None:
        self.slug = slug
        self.name = name
        self.currency = currency
        self.flags: list[str] = []
        self.branding = Branding(name)
        self.limits = Limits()
        self.status = Status.ACTIVE
        self.registration: str = RegistrationMode.OPEN
        self.second_factor: str = SecondFactor.OPTIONAL

    def brand(self, wanted: Branding) -> None:
        """What is so already records nothing. Raises SettingInvalid, TextBlank, TextTooLong, TextForbidden."""
        checked = _checked_branding(wanted)
        if checked != self.branding:
            self._branded(*checked)

    def configure(self, currency: str, flags: Collection[str]) -> None:
        """What is so already records nothing. Raises CurrencyUnknown, SettingInvalid."""
        money.minor_digits(currency)
        if len(flags) > FLAGS_MAX:
            raise SettingInvalid("There are too many flags", len(flags), f"Give at most {FLAGS_MAX}", field="flags")
        for flag in flags:
            if FLAG_PATTERN.fullmatch(flag) is None:
                raise SettingInvalid(
                    "This is no name of a flag", flag, "Give 1 to 50 characters out of a-z, 0-9 and _", field="flags"
                )
        wanted = sorted(set(flags))
        if (currency, wanted) != (self.currency, self.flags):
            self._configured(currency, wanted)

    def limit(self, wanted: Limits) -> None:
        """What is so already records nothing. Raises SettingInvalid."""
        for field, value in wanted._asdict().items():
            if value is not None and not 0 <= value <= LIMIT_MAX:
                advice = f"Give 0 to {LIMIT_MAX}, or null for none"
                raise SettingInvalid("The limit is out of range", value, advice, field=field)
        if wanted != self.limits:
            self._limited(*wanted)

    def suspend(self, reason: str) -> None:
        """One that is suspended records nothing. Raises TenantClosed, TextBlank, TextTooLong, TextForbidden."""
        checked = text.line(reason, "reason", length_max=REASON_LENGTH_MAX)
        self._check_not_closed()
        if self.status is Status.ACTIVE:
            self._suspended(checked)

    def resume(self) -> None:
        """One that is at work records nothing. Raises TenantClosed."""
        self._check_not_closed()
        if self.status is Status.SUSPENDED:
            self._resumed()

    def close(self) -> None:
        """One that is closed records nothing. Raises TenantNotSuspended."""
        if self.status is Status.ACTIVE:
            raise TenantNotSuspended(self.id)
        if self.status is Status.SUSPENDED:
            self._closed()

    def check_open(self) -> None:
        """Raises TenantSuspended, TenantClosed."""
        self._check_not_closed()
        if self.status is Status.SUSPENDED:
            raise TenantSuspended(self.id)

    @event(Branded)
    def _branded(
        self,
        name: str,
        logo_url: str | None,
        primary_colour: str | None,
        accent_colour: str | None,
        sender_address: str | None,
    ) -> None:
        self.name = name
        self.branding = Branding(name, logo_url, primary_colour, accent_colour, sender_address)

    @event(Configured)
    def _configured(self, currency: str, flags: list[str]) -> None:
        self.currency = currency
        self.flags = flags

    @event(Limited)
    def _limited(self, users: int | None, requests_per_minute: int | None, events_per_day: int | None) -> None:
        self.limits = Limits(users, requests_per_minute, events_per_day)

    @event(Suspended)
    def _suspended(self, reason: str) -> None:
        self.status = Status.SUSPENDED

    @event(Resumed)
    def _resumed(self) -> None:
        self.status = Status.ACTIVE

    @event(Closed)
    def _closed(self) -> None:
        self.status = Status.CLOSED

    def _check_not_closed(self) -> None:
        if self.status is Status.CLOSED:
            raise TenantClosed(self.id)

    def configure_sign_in(self, registration: RegistrationMode, second_factor: SecondFactor) -> None:
        """What is so already records nothing."""
        if (registration, second_factor) != (self.registration, self.second_factor):
            self._sign_in_configured(str(registration), str(second_factor))

    @event(SignInConfigured)
    def _sign_in_configured(self, registration: str, second_factor: str) -> None:
        self.registration = registration
        self.second_factor = second_factor


class Registration(aggregates.Aggregate):
    """That a tenant exists, as the platform knows it. Lives in the platform's stream under the tenant's own id."""

    TOPIC = "registration"

    class Registered(aggregates.Aggregate.Created):
        """The platform knows the tenant, and its slug is taken. Its originator id is the tenant's id."""

        TOPIC = "tenant.registered"
        slug: Slug
        name: Name

    class HostsChanged(aggregates.Aggregate.Event):
        """Requests to these host names are the tenant's from now on; no other is, but those that its slug begins."""

        TOPIC = "tenant.hosts_changed"
        hosts: Annotated[list[str], meaning("Host names, in order, each of one tenant only")]

    @event(Registered)
    def __init__(self, id: UUID, slug: str, name: str) -> None:
        self.slug = slug
        self.name = name
        self.hosts: list[str] = []

    def change_hosts(self, hosts: Collection[str]) -> None:
        """Those that it has record nothing. Raises SettingInvalid."""
        if len(hosts) > HOSTS_MAX:
            raise SettingInvalid(
                "There are too many host names", len(hosts), f"Give at most {HOSTS_MAX}", field="hosts"
            )
        wanted = sorted({checked_host(host) for host in hosts})
        if wanted != self.hosts:
            self._hosts_changed(wanted)

    @event(HostsChanged)
    def _hosts_changed(self, hosts: list[str]) -> None:
        self.hosts = hosts


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


def checked_host(host: str) -> str:
    """In small letters and without a dot at the end. Raises SettingInvalid."""
    normal = host.lower().removesuffix(".")
    labels = normal.split(".")
    if len(normal) > HOST_LENGTH_MAX or len(labels) < 2 or not all(SLUG_PATTERN.fullmatch(label) for label in labels):
        raise SettingInvalid("This is no host name", host, "Give a name such as shop.example.com", field="hosts")
    return normal


def _checked_branding(wanted: Branding) -> Branding:
    for field in ("primary_colour", "accent_colour"):
        colour = getattr(wanted, field)
        if colour is not None and COLOUR_PATTERN.fullmatch(colour) is None:
            raise SettingInvalid("This is no colour", colour, "Give one as #0a7f42, in small letters", field=field)
    if wanted.logo_url is not None and not _is_https(wanted.logo_url):
        advice = f"Give one that begins with https:// and has at most {LOGO_URL_LENGTH_MAX} characters"
        raise SettingInvalid("This is no address of a logo", wanted.logo_url, advice, field="logo_url")
    sender = wanted.sender_address
    if sender is not None and (len(sender) > SENDER_LENGTH_MAX or SENDER_PATTERN.fullmatch(sender) is None):
        advice = "Give an address such as shop@example.com"
        raise SettingInvalid("Mails cannot be from this address", sender, advice, field="sender_address")
    return wanted._replace(name=_checked_name(wanted.name))


def _is_https(url: str) -> bool:
    """Whether a page may show it: nothing that a browser would run, and nothing with a password in it."""
    if len(url) > LOGO_URL_LENGTH_MAX or not url.isascii() or any(each.isspace() or each in "<>\"'\\" for each in url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
