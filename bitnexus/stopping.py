"""How a process stops: on which signals, and how long it takes its time."""

import asyncio
import signal
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REQUESTS_S_MAX = 10
"""For requests in flight. They are answered in milliseconds; who is still there then is cut off."""
COMMANDS_S_MAX = 10.0
"""For accepted commands. They take milliseconds; longer only if the database is gone."""
WORKER_S_MAX = REQUESTS_S_MAX + COMMANDS_S_MAX + 5.0
"""Both, and a margin. A worker that is still there then is killed."""


def on_signal(stop: Callable[[], object]) -> None:
    """Call `stop` in the running loop, at each of SIGNALS; it takes the place of what was called before."""
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)


def ignore_signals() -> None:
    """The stop is under way, and bounded: from now on to the end of the process a further signal must not cut it off.

    A loop that closes would give the signals their default back, which is to end the process at once.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
