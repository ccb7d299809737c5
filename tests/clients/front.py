"""A front end at an origin of its own, as a single-page app has one: files over HTTP."""

import functools
import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".mjs": "text/javascript"}


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, files: Mapping[str, Path], *arguments: Any) -> None:
        self._files = files
        super().__init__(*arguments)

    def do_GET(self) -> None:
        file = self._files.get(self.path.partition("?")[0])
        body = b"" if file is None else file.read_bytes()
        self.send_response(404 if file is None else 200)
        if file is not None:
            self.send_header("Content-Type", TYPES[file.suffix])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@contextmanager
def served(files: Mapping[str, Path]) -> Iterator[str]:
    """The origin at which these files lie, by their paths."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, files)) as server:
        thread = threading.Thread(target=server.serve_forever, name="front-end")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
