"""`serve` and `demo`."""

import asyncio
import contextlib
import logging
import os
import socket
from argparse import Namespace
from collections.abc import Callable

import msgspec
import uvloop
from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from bitnexus import cli, installation, listening, logs, process
from bitnexus import demo as showcase
from bitnexus.cli import loop
from bitnexus.cli.output import Output, table
from bitnexus.installation import Installation
from bitnexus.settings import Settings

_log = logging.getLogger(__name__)


def serve(arguments: Namespace, settings: Settings, output: Output) -> int:
    logs.configure(settings.log_level)
    try:
        with (
            listening.bind(arguments.host, arguments.port) as listener,
            installation.opened(settings, _log.info, keep=True) as base,
        ):

            def ready() -> None:
                url = listening.url(listener)
                document = {"url": url, "pid": os.getpid(), "workers": arguments.workers}
                output.result(document, Text(f"BitNexus listens on {url} (API {url}/schema, health {url}/health)"))

            run(base, settings, listener, arguments.workers, ready)
    except KeyboardInterrupt:
        pass  # before it was ready
    output.say("Stopped. Every command that was accepted is recorded.")
    return cli.GOOD


def run(
    base: Installation,
    settings: Settings,
    listener: socket.socket,
    workers: int,
    ready: Callable[[], None],
    beside: process.Beside = contextlib.nullcontext,
) -> None:
    """Until SIGTERM or SIGINT. `beside` is for one worker alone. Raises KeyboardInterrupt if that comes before requests are answered."""
    try:
        if workers == 1:
            from bitnexus import serve as serving  # half a second, which a parent of workers need not spend

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serving.serve(base, settings, listener, ready, beside=beside))
            return
        from bitnexus import supervision

        with asyncio.Runner() as runner:
            runner.run(supervision.supervise(base, settings, listener, workers, ready))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def demo(arguments: Namespace, settings: Settings, output: Output) -> int:
    logs.configure(_quieter(settings.log_level))
    if arguments.no_serve:
        with installation.opened(settings, output.say) as base:
            made = _prepare(base, settings, output)
        output.result(_document(made, None), *_shown(made, None))
        return cli.GOOD
    with (
        listening.bind(arguments.host, arguments.port) as listener,
        installation.opened(settings, output.say, keep=True) as base,
    ):
        made = _prepare(base, settings, output)
        url = listening.url(listener)

        def ready() -> None:
            output.result(_document(made, url), *_shown(made, url))

        run(base, settings, listener, 1, ready, lambda parts: showcase.trades(parts, made))
    output.say("Stopped. Every command that was accepted is recorded; `bitnexus demo` goes on with what is there.")
    return cli.GOOD


def _quieter(level: str) -> str:
    """What goes well is shown, not logged."""
    return "warning" if level == "info" else level


def _prepare(base: Installation, settings: Settings, output: Output) -> showcase.Demo:
    async def work() -> showcase.Demo:
        async with process.running(base, projecting=False, hashing=settings.hashing) as parts:
            with output.progress() as bars:
                return await showcase.prepare(parts, bars.move)

    return loop.run(work())


def _document(made: showcase.Demo, url: str | None) -> dict[str, object]:
    page = None if url is None else showcase.live_page(url, _admin(made))
    about = {"url": url, "page": page, "tenant": showcase.SLUG, "new": made.new}
    return {**about, "logins": made.logins, "sales": made.sales}


def _admin(made: showcase.Demo) -> showcase.Login:
    return next(login for login in made.logins if login.role == "admin")


def _shown(made: showcase.Demo, url: str | None) -> list[RenderableType]:
    sales = made.sales
    there = "Made" if made.new else "Found"
    about = [
        f"{there} the tenant {showcase.SLUG} with {sales.products:,} products, {sales.transactions:,} sales and "
        f"{sales.refunds:,} refunds ({sales.rows:,} rows of real sales); {sales.events:,} events recorded now.",
    ]
    if url is not None:
        about += ["", f"API       {url}/api/v1", f"schema    {url}/schema", f"health    {url}/health"]
        about += ["", "See sales arrive, one every few seconds. Log in with the admin's password below:"]
        about.append(showcase.live_page(url, _admin(made)))
    accounts = table("tenant", "e-mail", "role", "password")
    for login in made.logins:
        accounts.add_row(login.tenant, login.email, login.role, login.password)
    shown: list[RenderableType] = [
        Panel("\n".join(about), title="BitNexus", title_align="left", expand=False),
        accounts,
    ]
    if url is not None:
        shown += ["Log in and list transactions:", Text(_curl(url, _admin(made)), no_wrap=True, overflow="ignore")]
        shown.append("Ctrl-C stops it; the next `bitnexus demo` goes on with what is there.")
    return shown


def _curl(url: str, login: showcase.Login) -> str:
    body = {"email": login.email, "password": login.password, "tenant": login.tenant}
    return (
        f"TOKEN=$(curl -s {url}/api/v1/auth/login -H 'Content-Type: application/json' \\\n"
        f"  -d '{msgspec.json.encode(body).decode()}' \\\n"
        '  | python3 -c \'import json, sys; print(json.load(sys.stdin)["data"]["access_token"])\')\n'
        f'curl -s "{url}/api/v1/transactions?limit=2" -H "Authorization: Bearer $TOKEN"'
    )
