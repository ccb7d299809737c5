"""`project`: keep the views up, without answering requests."""

import asyncio
import os
from argparse import Namespace

import uvloop
from rich.text import Text

from bitnexus import cli, collecting, installation, logs, process, stopping
from bitnexus.cli.output import Output
from bitnexus.installation import Installation
from bitnexus.settings import Settings


def project(arguments: Namespace, settings: Settings, output: Output) -> int:
    """Until SIGTERM or SIGINT."""
    logs.configure(settings.log_level)

    async def work(base: Installation) -> None:
        stopped = asyncio.Event()
        stopping.on_signal(stopped.set)
        try:
            async with process.running(base, projecting=True):
                collecting.seldom()
                output.result({"pid": os.getpid()}, Text("BitNexus keeps the views up."))
                await stopped.wait()
        finally:
            stopping.ignore_signals()

    with (
        installation.opened(settings, output.say, keep=True) as base,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(work(base))
    output.say("Stopped. What is not in the views yet is taken up by whoever projects next.")
    return cli.GOOD
