"""`project`: keep the views up, without answering requests."""

import asyncio
import contextlib
import os
import socket
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from rich.text import Text

from bitnexus import cli, collecting, installation, listening, logs, process, stopping
from bitnexus.cli.output import Output
from bitnexus.installation import Installation
from bitnexus.settings import Settings


def project(arguments: Namespace, settings: Settings, output: Output) -> int:
    """Until SIGTERM or SIGINT."""
    logs.configure(settings.log_level)

    async def work(base: Installation, listener: socket.socket | None) -> None:
        stopped = asyncio.Event()
        stopping.on_signal(stopped.set)
        url = None if listener is None else f"{listening.url(listener)}/metrics"
        try:
            async with _projecting(base, settings, listener):
                collecting.seldom()
                told = "" if url is None else f" Its metrics: {url}"
                output.result({"pid": os.getpid(), "metrics": url}, Text(f"BitNexus keeps the views up.{told}"))
                await stopped.wait()
        finally:
            stopping.ignore_signals()

    with (
        _listener(arguments) as listener,
        installation.opened(settings, output.say, keep=True) as base,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(work(base, listener))
    output.say("Stopped. What is not in the views yet is taken up by whoever projects next.")
    return cli.GOOD


def _listener(arguments: Namespace) -> contextlib.AbstractContextManager[socket.socket | None]:
    if arguments.metrics_port is None:
        return contextlib.nullcontext()
    return listening.bind(arguments.metrics_host, arguments.metrics_port, "--metrics-")


@asynccontextmanager
async def _projecting(base: Installation, settings: Settings, listener: socket.socket | None) -> AsyncIterator[None]:
    if listener is None:
        async with process.running(base, projecting=True):
            yield
        return
    from bitnexus import scraping, telemetry  # half a second, which a process without a port need not spend

    measured = telemetry.Telemetry()
    async with (
        process.running(base, projecting=True, appends=measured.appends) as parts,
        measured.watching(parts),
        scraping.running(listener, settings.metrics_token, measured.scrape),
    ):
        yield
