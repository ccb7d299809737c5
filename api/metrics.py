"""What the process measures, as Prometheus reads it, and who may read it."""

import hmac
from collections.abc import Mapping

from litestar import Response, get
from litestar.di import NamedDependency

from api import answers, rights
from api.asked import HttpRequest
from api.parts import Parts
from api.rights import open_to_all

MEDIA_TYPE = "text/plain; version=0.0.4"  # and its charset, which Litestar adds
THIS_MACHINE = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""A request that a proxy of this machine passed on comes from elsewhere, whoever the proxy says that it is."""


@get(
    "/metrics",
    operation_id="metrics",
    operation_class=answers.Plain,
    tags=["operation"],
    media_type="text/plain",
    opt=open_to_all("it asks for a token of its own, or is for this machine alone"),
)
async def metrics(request: HttpRequest, parts: NamedDependency[Parts]) -> Response[bytes]:
    """All metrics, in Prometheus's text format; of several workers the sum.

    With the token of `BITNEXUS_METRICS_TOKEN` as a bearer token; where none is set, only for this machine itself.
    """
    check(request.headers, None if request.client is None else request.client.host, parts.metrics_token)
    return Response(await parts.scrape(), media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})


def check(headers: Mapping[str, str], address: str | None, token: str | None) -> None:
    """Whether who asks from that address may read them. `headers` by their names in lower case. Raises Unauthenticated, Forbidden."""
    if token is not None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise rights.Unauthenticated(
                "The token of scrapers is missing or wrong. Send BITNEXUS_METRICS_TOKEN as a bearer token."
            )
    elif address not in THIS_MACHINE or any(name in headers for name in PASSED_ON):
        raise rights.Forbidden(
            "The metrics are told to this machine only, as no token is set. "
            "Set BITNEXUS_METRICS_TOKEN and send it as a bearer token."
        )
