"""From exceptions to answers: one table, problem details (RFC 9457) with the member `errors`.

`errors` is {field: [messages]}, or {"detail": "…"} where no field is to blame. What is not in the table is a bug: it is
logged, and the answer says nothing of it.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import psycopg
import psycopg_pool
from litestar import Request, Response
from litestar import exceptions as litestar_exceptions
from litestar.params import ParameterKwarg

from api import rates, rights, tokens
from commands import accounts as account_commands
from commands import limits, passwords, privacy, service_accounts, sessions
from commands.accounts import challenges, mailed, password, registering, second_factor
from domain import accounts, refusals, tenants
from ledger import errors as ledger_errors
from ledger import keyring, replay
from projections import positions, rebuild, sales, travel

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

_log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """What an exception is to whoever asked. `name` ends the problem's type."""

    status: int
    name: str
    title: str


class RequestRefused(Exception):
    """The request itself is wrong, before any rule was asked. `kind` says how."""

    def __init__(self, kind: Kind, detail: str, fields: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.fields = dict(fields or {})


MALFORMED = Kind(400, "malformed", "The request cannot be read")
SECOND_FACTOR = Kind(401, "second-factor", "The second factor is needed, too")
UNAUTHENTICATED = Kind(401, "unauthenticated", "Who you are is not known")
FORBIDDEN = Kind(403, "forbidden", "You may not do this")
WRONG_PASSWORD = Kind(403, "wrong-password", "The current password is another one")
WRONG_CODE = Kind(403, "wrong-code", "The code is not right")
NOT_FOUND = Kind(404, "not-found", "There is no such thing")
CONFLICT = Kind(409, "conflict", "What is recorded forbids this")
CHANGED = Kind(409, "changed-meanwhile", "It was changed meanwhile")
IN_FLIGHT = Kind(409, "in-flight", "The same request is being done")
REFETCH = Kind(410, "refetch", "The feed cannot go back that far")
STALE = Kind(412, "stale-version", "It is no longer the version that you named")
LIMITED_RATE = Kind(429, "rate-limited", "Too many requests")
URI_TOO_LONG = Kind(414, "uri-too-long", "The address is too long")
HEADERS_TOO_LARGE = Kind(431, "headers-too-large", "The headers are too many or too long")
TOO_LARGE = Kind(413, "too-large", "The request is too large")
MEDIA_TYPE_WRONG = Kind(415, "media-type", "The body must be JSON")
INVALID = Kind(422, "invalid", "What was sent breaks a rule")
SUSPENDED = Kind(403, "tenant-suspended", "Nobody acts in the tenant")
LIMITED = Kind(403, "limit-reached", "The tenant uses as much as it may")
ID_REUSED = Kind(422, "idempotency-key-reused", "The idempotency key belongs to another request")
TOO_OFTEN = Kind(429, "too-often", "Not so often")
BROKEN = Kind(500, "internal", "Something went wrong on our side")
UNAVAILABLE = Kind(503, "unavailable", "Not now")
PARKED = Kind(503, "parked", "It waits for an operator")

TABLE: dict[type[Exception], Kind] = {
    refusals.Refusal: INVALID,
    refusals.Invalid: INVALID,
    refusals.Conflict: CONFLICT,
    limits.LimitReached: LIMITED,
    tenants.TenantSuspended: SUSPENDED,
    tenants.TenantClosed: SUSPENDED,
    service_accounts.KeyInvalid: UNAUTHENTICATED,
    account_commands.CredentialsWrong: UNAUTHENTICATED,
    sessions.RefreshTokenInvalid: UNAUTHENTICATED,
    sessions.RefreshTokenReplayed: UNAUTHENTICATED,
    challenges.SecondFactorNeeded: SECOND_FACTOR,
    challenges.ChallengeInvalid: UNAUTHENTICATED,
    second_factor.CodeWrong: WRONG_CODE,
    second_factor.GuessedTooOften: TOO_OFTEN,
    mailed.MailedTooOften: TOO_OFTEN,
    password.PasswordWrong: WRONG_PASSWORD,
    registering.RegistrationNotOpen: FORBIDDEN,
    accounts.SessionRevoked: UNAUTHENTICATED,
    accounts.SessionExpired: UNAUTHENTICATED,
    rights.Unauthenticated: UNAUTHENTICATED,
    rights.Forbidden: FORBIDDEN,
    tokens.RevocationsUnknown: UNAVAILABLE,
    rates.RateLimited: LIMITED_RATE,
    ledger_errors.NotFound: NOT_FOUND,
    ledger_errors.TenantUnknown: NOT_FOUND,
    ledger_errors.VersionConflict: CHANGED,
    ledger_errors.ReservationTaken: CONFLICT,
    ledger_errors.CommandIdReused: ID_REUSED,
    ledger_errors.EventTooLarge: TOO_LARGE,
    ledger_errors.SubjectErased: CONFLICT,
    keyring.SubjectKeyUnusable: CONFLICT,
    replay.AggregateUnknown: NOT_FOUND,
    replay.AggregateTooLong: INVALID,
    ledger_errors.PositionTokenInvalid: MALFORMED,
    sales.SummaryTooLong: INVALID,
    rebuild.Refused: CONFLICT,
    passwords.HashingOverloaded: UNAVAILABLE,
    privacy.NotNoted: UNAVAILABLE,
    ledger_errors.Overloaded: UNAVAILABLE,
    ledger_errors.TenantBusy: UNAVAILABLE,
    ledger_errors.NotWritable: UNAVAILABLE,
    ledger_errors.DatabaseAway: UNAVAILABLE,
    ledger_errors.AppenderClosed: UNAVAILABLE,
    ledger_errors.OutcomeUnknown: UNAVAILABLE,
    positions.ViewBehind: UNAVAILABLE,
    positions.TooManyWaiters: UNAVAILABLE,
    travel.Crowded: UNAVAILABLE,
    psycopg_pool.PoolTimeout: UNAVAILABLE,
    psycopg_pool.PoolClosed: UNAVAILABLE,
    psycopg.OperationalError: UNAVAILABLE,
    psycopg.errors.InternalError_: UNAVAILABLE,  # a quota; or the server crashed at the commit, and perhaps it stands
}
KEPT = {"invalid": INVALID, "conflict": CONFLICT, "not-found": NOT_FOUND}
"""Of refusals that were stored as the outcome of a command: what the table says of those that are kept as that."""

_OF_STATUS = {
    400: MALFORMED,
    401: UNAUTHENTICATED,
    403: FORBIDDEN,
    404: NOT_FOUND,
    405: Kind(405, "method-not-allowed", "This cannot be done here"),
    413: TOO_LARGE,
    415: MEDIA_TYPE_WRONG,
}
"""Of the framework's own exceptions."""


class SecondFactor(msgspec.Struct, frozen=True, kw_only=True):
    """What a log-in goes on with, good for five minutes. `enrol`: there is none yet, and it has to be made first."""

    challenge: str
    enrol: bool


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Problem details for HTTP APIs (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: dict[str, list[str]] | dict[str, str]
    second_factor: SecondFactor | msgspec.UnsetType = msgspec.UNSET


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """What the caller is told. The application's handler of every exception."""
    kind, detail, fields, headers = _told(request, error)
    if _is_uncounted(request):
        limits: rates.Rates = request.app.state["rates"]
        try:  # or tokens could be tried as often as one likes; for the want of a lease no other answer is taken back
            (limits.at_once if kind.status == 401 else limits.anonymous)(request.scope)
        except rates.RateLimited as limited:
            kind, detail, fields, headers = _told(request, limited)
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    elif kind.status == 503 or kind is IN_FLIGHT:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    elif isinstance(error, second_factor.GuessedTooOften | mailed.MailedTooOften):
        headers["Retry-After"] = str(error.retry_after_s)
    return Response(
        _problem(
            kind,
            detail,
            fields,
            SecondFactor(challenge=error.challenge, enrol=error.enrol)
            if isinstance(error, challenges.SecondFactorNeeded)
            else msgspec.UNSET,
        ),
        status_code=kind.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def problem(error: Exception) -> Problem | None:
    """What whoever asked otherwise than by a request is told; None for a bug."""
    if isinstance(error, RequestRefused):
        return _problem(error.kind, str(error), error.fields)
    found = kind_of(error)
    if found is None:
        return None
    if isinstance(error, psycopg.Error):
        return _problem(found, _DATABASE_CANNOT, {})
    return _problem(found, str(error), getattr(error, "fields", {}))


def kind_of(error: Exception) -> Kind | None:
    """None: it is a bug."""
    if isinstance(error, ledger_errors.RefusedBefore):
        return KEPT[error.kept_as]
    return next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), None)


def _problem(
    kind: Kind,
    detail: str,
    fields: dict[str, list[str]],
    second_factor: SecondFactor | msgspec.UnsetType = msgspec.UNSET,
) -> Problem:
    return Problem(
        type=f"urn:bitnexus:problem:{kind.name}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        errors=fields or {"detail": detail},
        second_factor=second_factor,
    )


def _is_uncounted(request: Request[Any, Any, Any]) -> bool:
    """It brought a token, so that edge.py left it to a guard, and got as far as none: the token is not good, or has not the right,
    or there is nothing at the address."""
    return request.scope.get("user") is None and "rate" not in request.scope["state"]


def _told(request: Request[Any, Any, Any], error: Exception) -> tuple[Kind, str, dict[str, list[str]], dict[str, str]]:
    """Kind, detail, fields to blame, headers."""
    if isinstance(error, RequestRefused):
        return error.kind, str(error), error.fields, {}
    if isinstance(error, litestar_exceptions.ValidationException):
        return _invalid_parameters(request, error)
    if isinstance(error, litestar_exceptions.HTTPException) and error.status_code < 500:
        kind = _OF_STATUS.get(error.status_code) or Kind(error.status_code, "refused", "The request was refused")
        return kind, _DETAILS.get(kind, error.detail), {}, dict(error.headers or {})
    found = kind_of(error)
    if found is None:
        _log.error("%s %s failed", request.method, request.scope.get("path_template"), exc_info=error)
        return BROKEN, "The request failed, and nothing of it was kept. Send it again later.", {}, {}
    if isinstance(error, psycopg.Error):
        level = logging.ERROR if isinstance(error, psycopg.errors.InternalError_) else logging.WARNING
        _log.log(level, "The database did not answer %s: %s", request.scope.get("path_template"), str(error).strip())
        return found, _DATABASE_CANNOT, {}, {}
    if found is CHANGED and "if-match" in request.headers:
        found = STALE
    return found, str(error), getattr(error, "fields", {}), dict(getattr(error, "headers", {}))


_DATABASE_CANNOT = (
    "The database cannot answer now. Send the request again in a second, a command with the same Idempotency-Key."
)
_DETAILS = {
    NOT_FOUND: "There is nothing at this address. Look it up at /schema.",
    TOO_LARGE: "The body is larger than 1 MiB. Send less at once.",
    _OF_STATUS[405]: "The address does not know this method. The header Allow names those that it knows.",
}


def _invalid_parameters(
    request: Request[Any, Any, Any], error: litestar_exceptions.ValidationException
) -> tuple[Kind, str, dict[str, list[str]], dict[str, str]]:
    """Parameters of the query; a body is decoded by `bodies`, so that here it is only missing."""
    fields: dict[str, list[str]] = {}
    for each in error.extra if isinstance(error.extra, list) else []:
        if each.get("key") == "data":
            return MALFORMED, "The body is empty. Send a JSON object, {} if there is nothing to say.", {}, {}
        name = _outside(request, str(each.get("key")))
        message = f"The parameter {name} is not valid: {each.get('message')}. Look it up at /schema."
        fields.setdefault(name, []).append(message)
    if not fields:  # a parameter that must be there is not
        return INVALID, f"{error.detail}. Look it up at /schema.", {}, {}
    return INVALID, "; ".join(message for messages in fields.values() for message in messages), fields, {}


def _outside(request: Request[Any, Any, Any], argument: str) -> str:
    """The name under which the caller sent a handler's argument."""
    field = request.route_handler.parsed_fn_signature.parameters.get(argument)
    definition = None if field is None else field.kwarg_definition
    return (definition.name if isinstance(definition, ParameterKwarg) else None) or argument
