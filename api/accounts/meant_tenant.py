"""Which tenant somebody means who has no token yet."""

import ipaddress
from contextlib import suppress
from uuid import UUID

from api import errors
from api.asked import HttpRequest
from api.parts import Parts
from commands import tenant_settings
from commands import tenants as tenant_commands
from commands.accounts import challenges, mailed
from commands.accounts.challenges import Challenge
from ledger import errors as ledger_errors


async def of(slug: str | None, request: HttpRequest, parts: Parts) -> UUID:
    """A tenant that is at work, as `found`. Raises SlugUnknown, RequestRefused, TenantSuspended, TenantClosed."""
    tenant_id = await found(slug, request, parts)
    await tenant_settings.check_open(tenant_id, parts.ledger)
    return tenant_id


async def found(slug: str | None, request: HttpRequest, parts: Parts) -> UUID:
    """The body's word, else the host's, else the installation's. Raises SlugUnknown, RequestRefused."""
    if slug is not None:
        return await tenant_commands.find(slug, parts.ledger)
    host = request.headers.get("host", "")
    given = await tenant_settings.of_host(without_port(host), parts.ledger)
    if given is not None:
        return given
    of_host = slug_of_host(host)
    if of_host is not None:
        try:
            return await tenant_commands.find(of_host, parts.ledger)
        except tenant_commands.SlugUnknown:
            pass  # a host name such as www.example.com names no tenant
    if parts.default_tenant is not None:
        return await tenant_commands.find(parts.default_tenant, parts.ledger)
    text = 'Nothing says which tenant is meant. Add "tenant" with its slug.'
    raise errors.RequestRefused(errors.INVALID, text, {"tenant": [text]})


def without_port(host: str) -> str:
    return host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host


def slug_of_host(host: str) -> str | None:
    """The first label of a name with three or more, or under localhost; addresses have none."""
    name = without_port(host)
    labels = name.lower().rstrip(".").split(".")
    if _is_address(name) or not (len(labels) >= 3 or (len(labels) == 2 and labels[1] == "localhost")):
        return None
    return labels[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def of_token(token: str, parts: Parts) -> UUID:
    """Of a token that came by mail. Raises MailedTokenInvalid, TenantSuspended, TenantClosed."""
    tenant_id, _ = mailed.parse(token)
    with suppress(ledger_errors.NotFound):  # then nothing is kept of such a token either
        await tenant_settings.check_open(tenant_id, parts.ledger)
    return tenant_id


async def of_challenge(challenge: str, parts: Parts) -> Challenge:
    """What the second step of a log-in goes on with. Raises ChallengeInvalid, TenantSuspended, TenantClosed."""
    found = challenges.parse(challenge, parts.ledger)
    await tenant_settings.check_open(found.tenant_id, parts.ledger)
    return found
