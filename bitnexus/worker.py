"""A worker process: `python -m bitnexus.worker LISTENER CONTROL`, two inherited descriptors, started by supervision.py.

The control socket brings the settings first, so that no secret stands on a command line or in an environment; it is told
when requests are answered, and its end says that the parent is gone.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import psycopg
import psycopg_pool
import uvloop

from bitnexus import installation, logs, orders, serve
from bitnexus.installation import Installation

_DATABASE_GONE = (psycopg.OperationalError, psycopg_pool.PoolTimeout)

_log = logging.getLogger(__name__)


def main() -> None:
    """Ends with 0 after a stop, and with 1 after a failure, which it logs."""
    # The parent speaks for a terminal's Ctrl-C; until the server has its handlers, a stop ends us as it is.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(fileno=int(sys.argv[1]))
    control = socket.socket(fileno=int(sys.argv[2]))
    told = _told(control)
    logs.configure(told.settings.log_level)
    master = installation.key(told.settings)
    assert master is not None  # the parent started with it
    try:
        with suppress(asyncio.CancelledError):  # stopped before it was ready
            uvloop.run(_serve(Installation(told.app_url, master), told, listener, control))
    except _DATABASE_GONE as error:
        _log.error("The worker cannot start, the database does not answer: %s", str(error).strip())
        sys.exit(1)
    except Exception:  # noqa: BLE001  the edge of the process
        # Python's own way of telling it would be a traceback with whatever the message quotes, which logs.py takes out.
        _log.exception("The worker ends")
        sys.exit(1)


async def _serve(base: Installation, told: orders.Orders, listener: socket.socket, control: socket.socket) -> None:
    orphaned = False

    def stops(stop: Callable[[], None]) -> None:
        def gone() -> None:
            nonlocal orphaned
            orphaned = True
            loop.remove_reader(control)
            _log.warning("The parent process is gone, this worker stops")
            stop()

        loop = asyncio.get_running_loop()
        control.setblocking(False)
        loop.add_reader(control, gone)  # nothing more is ever sent: readable means closed

    def ready() -> None:
        control.sendall(orders.READY)

    try:
        await serve.serve(base, told.settings, listener, ready, stops, told.slot, process_id=told.process_id)
    finally:
        if orphaned:
            shutil.rmtree(told.slot.folder, ignore_errors=True)  # which the parent would have done


def _told(control: socket.socket) -> orders.Orders:
    received = b""
    while not received.endswith(b"\n"):
        block = control.recv(orders.BYTES_MAX)
        if not block:
            os._exit(1)  # the parent died before it said anything
        received += block
    return orders.decoded(received)


if __name__ == "__main__":
    main()
