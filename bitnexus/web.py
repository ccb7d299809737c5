"""The HTTP application on the parts of a process."""

import asyncio
from datetime import timedelta
from importlib import metadata

from litestar import Litestar

from api import app as api_app
from api.kept import Kept
from api.parts import Parts
from api.rates import Rates
from bitnexus import database, erasures
from bitnexus.process import Process
from bitnexus.settings import Settings
from bitnexus.telemetry import Telemetry
from domain.accounts import SessionLimits
from ledger.positions import Tokens
from projections.replica import Replica
from projections.travel import Travels

SESSION_KEY = "long poll session tokens"


def application(
    parts: Process,
    settings: Settings,
    telemetry: Telemetry,
    limits: Rates,
    stopping: asyncio.Event,
    replica: Replica | None = None,
) -> Litestar:
    """`stopping` is set before the server waits for its connections."""
    master = parts.installation.master
    return api_app.create_app(
        Parts(
            ledger=parts.ledger,
            passwords=parts.passwords,
            pool=parts.app,
            projector=parts.projector,
            platform=parts.platform,
            reached=parts.reached,
            rows=parts.rows,
            travels=Travels(database.travelling_connector(parts.installation.app_url), parts.source),
            waker=parts.waker,
            tokens=Tokens(master),
            token_keys=parts.token_keys,
            token_issuer=settings.token_issuer,
            token_audience=settings.token_audience,
            session_limits=SessionLimits(
                lasts=timedelta(days=settings.session_days), idle=timedelta(days=settings.session_idle_days)
            ),
            default_tenant=settings.default_tenant,
            noted=erasures.of(settings).note,
            version=metadata.version("bitnexus"),
            stopping=stopping,
            http=telemetry.http,
            scrape=telemetry.scrape,
            rates=limits,
            cors_origins=settings.cors_origins,
            metrics_token=settings.metrics_token,
            session_key=master.derive(SESSION_KEY),
            socket_origins=settings.socket_origins,
            sockets_per_session=settings.sockets_per_session,
            replica=replica,
            kept=Kept(settings.cache_mib * 1024 * 1024),
        )
    )
