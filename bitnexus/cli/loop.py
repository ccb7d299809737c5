"""Running a command's asynchronous part, with the parts of a process where it needs them."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from bitnexus import cli, collecting, installation, process
from bitnexus.cli.output import Output
from bitnexus.settings import Settings

T = TypeVar("T")


class InputWrong(Exception):
    """A value on the command line cannot be used."""

    def __init__(self, happened: str, value: str, advice: str) -> None:
        super().__init__(f"{happened}: {value}. {advice}.")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Its result. SIGINT and SIGTERM cancel it, so that what is open is closed, and raise KeyboardInterrupt."""

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await main

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, cli.interrupt)


def with_process(
    settings: Settings,
    output: Output,
    work: Callable[[process.Process], Coroutine[Any, Any, T]],
    *,
    projecting: bool = False,
) -> T:
    """What `work` gives back, done with the parts of a process on the installation of these settings."""

    async def opened(base: installation.Installation) -> T:
        async with process.running(base, projecting=projecting, hashing=settings.hashing) as parts:
            collecting.seldom()
            return await work(parts)

    with installation.opened(settings, output.say) as base:
        return run(opened(base))
