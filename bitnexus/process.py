"""The parts of a process put together: pools, appender, ledger, projections; opened in order and closed in order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from bitnexus import database, stopping
from bitnexus.installation import Installation
from bitnexus.settings import Hashing
from commands.passwords import Passwords
from domain import catalogue
from ledger import listener, lookups
from ledger.appender import Appender
from ledger.codec import Codec
from ledger.keyring import Keyring, Watcher
from ledger.store import Ledger, Pool
from ledger.token_keys import TokenKeys
from ledger.waker import Waker
from ledger.watch import Watch
from projections import catalogue as views
from projections import positions, stream
from projections.rows import Rows
from projections.runner import Runner

APP_CONNECTIONS_MAX = 10
"""Requests read through these; two cores keep fewer than that busy."""
PLATFORM_CONNECTIONS_MAX = 2
"""Super admins are few."""
PROJECTOR_CONNECTIONS_MAX = 5
"""Feeds read through these. Each view's projector has a connection of its own beside them."""

DEFAULT_HASHING = Hashing()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Process:
    """What runs in one event loop. `runner` is at work if the process was opened with `projecting`."""

    installation: Installation
    app: Pool
    projector: Pool
    platform: Pool
    waker: Waker
    appender: Appender
    ledger: Ledger
    token_keys: TokenKeys
    passwords: Passwords
    source: stream.Source
    reached: positions.Reached
    rows: Rows
    runner: Runner


Beside: TypeAlias = Callable[[Process], AbstractAsyncContextManager[object]]
"""What goes on in a process beside its main work, for as long."""


@asynccontextmanager
async def running(
    installation: Installation,
    *,
    projecting: bool,
    hashing: Hashing = DEFAULT_HASHING,
    appends: listener.Listener = listener.NOBODY,
    process_id: UUID | None = None,
) -> AsyncIterator[Process]:
    """At the end accepted commands are finished first, then the batches in flight, then connections are let go.

    `appends` is told what the appender does; the views' leases are held as `process_id`.

    Raises psycopg.OperationalError, psycopg_pool.PoolTimeout, TokenKeyUnusable.
    """
    app_url = installation.app_url
    connect_app, connect_projector = database.connector(app_url, "app"), database.connector(app_url, "projector")
    codec, keyring = Codec(catalogue.AGGREGATES), Keyring(installation.master)
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(database.pool(app_url, "app", APP_CONNECTIONS_MAX))
        projector = await stack.enter_async_context(database.pool(app_url, "projector", PROJECTOR_CONNECTIONS_MAX))
        platform = await stack.enter_async_context(database.pool(app_url, "platform", PLATFORM_CONNECTIONS_MAX))
        passwords = Passwords(hashing.parameters, hashing.at_once)
        stack.callback(passwords.close)
        waker = Waker(connect_app)
        await waker.start()
        stack.push_async_callback(waker.close)
        watcher = Watcher(keyring, connect_projector)
        await watcher.start()
        stack.push_async_callback(watcher.close)
        reached = positions.Reached(connect_projector)
        stack.push_async_callback(reached.close)
        source = stream.Source(codec, keyring)
        runner = Runner(
            views.VIEWS, database.projecting_connector(app_url), source, waker, reached, process_id=process_id
        )
        if projecting:
            await runner.start()
            stack.push_async_callback(runner.close)
        appender = Appender(connect_app, waker, appends)
        await appender.start()
        stack.push_async_callback(_finish, appender)
        looks = await stack.enter_async_context(lookups.running(connect_app, app, codec, keyring))
        rows = Rows(connect_app)
        await rows.start()
        stack.push_async_callback(rows.close)
        ledger = Ledger(app, appender, looks, codec, keyring)
        token_keys = TokenKeys(installation.master)
        watch = Watch(connect_projector, ledger.revocations, token_keys)
        await watch.start()
        stack.push_async_callback(watch.close)
        yield Process(
            installation,
            app,
            projector,
            platform,
            waker,
            appender,
            ledger,
            token_keys,
            passwords,
            source,
            reached,
            rows,
            runner,
        )


async def _finish(appender: Appender) -> None:
    waiting = appender.waiting
    try:
        async with asyncio.timeout(stopping.COMMANDS_S_MAX):
            await appender.close()
    except TimeoutError:
        _log.error(
            "The stop gave up after %s s: %s accepted commands were not confirmed. Their senders were not answered and "
            "will send them again; see why the database did not answer.",
            stopping.COMMANDS_S_MAX,
            waiting,
        )
