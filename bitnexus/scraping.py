"""The metrics of a process that answers nothing else, on a port of their own, under the rules of `/metrics` of the API."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import msgspec
import uvicorn
from litestar.datastructures import Headers
from litestar.types import HTTPResponseStartEvent, HTTPScope, Receive, Send

from api import errors, metrics, rights
from bitnexus import protocol
from bitnexus.listening import BACKLOG

PATH = "/metrics"
STOP_S_MAX = 1
"""For a scrape that is under way: the next one would come in 15 s, and the views are not to wait for it."""


class _Server(uvicorn.Server):
    """uvicorn, which leaves the signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(
    listener: socket.socket, token: str | None, scrape: Callable[[], Awaitable[bytes]]
) -> AsyncIterator[None]:
    """Tells what `scrape` gives. The listener is closed at the end."""
    config = uvicorn.Config(
        _application(token, scrape),
        http=protocol.Http,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=STOP_S_MAX,
    )
    server = _Server(config)
    async with protocol.watching(server.server_state.connections):
        task = asyncio.create_task(server.serve([listener]), name="metrics")
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)


def _application(token: str | None, scrape: Callable[[], Awaitable[bytes]]) -> Callable[..., Awaitable[None]]:
    async def app(scope: HTTPScope, receive: Receive, send: Send) -> None:
        try:
            if (scope["path"], scope["method"]) != (PATH, "GET"):
                raise errors.RequestRefused(errors.NOT_FOUND, f"There is nothing but {PATH} here. Ask for that by GET.")
            client = scope["client"]
            metrics.check(Headers.from_scope(scope), None if client is None else client[0], token)
            status, media_type, body = 200, f"{metrics.MEDIA_TYPE}; charset=utf-8", await scrape()
        except (rights.Unauthenticated, rights.Forbidden, errors.RequestRefused) as refused:
            problem = errors.problem(refused)
            assert problem is not None  # all of them are in its table
            status, media_type, body = problem.status, errors.MEDIA_TYPE, msgspec.json.encode(problem)
        headers = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))]
        headers.append((b"cache-control", b"no-store"))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        start: HTTPResponseStartEvent = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app
