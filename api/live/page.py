"""The page's routes. All that it shows, it asks for by the API, as who logged in."""

from importlib import resources
from typing import Any

from litestar import Response, Router, get

from api import rights

PATH = "/live"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What is typed into its form is sent by its script alone; without the script it goes nowhere."""
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # after an upgrade all its files are of one release
}
FILES = {
    "/": ("live.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/live.js": ("live.js", "text/javascript"),
    "/sales.js": ("sales.js", "text/javascript"),
    "/client.js": ("client/client.js", "text/javascript"),
    "/feed.js": ("client/feed.js", "text/javascript"),
    "/problem.js": ("client/problem.js", "text/javascript"),
}
"""By their paths below PATH: where they lie, and what they are."""


def router() -> Router:
    """For the application."""
    return Router(
        PATH,
        route_handlers=[_file(path, *file) for path, file in FILES.items()],
        include_in_schema=False,
        opt=rights.open_to_all("it says nothing of any tenant; what it shows is asked for with a token"),
    )


def _file(path: str, name: str, media_type: str) -> Any:
    content = resources.files("api.live").joinpath(name).read_bytes()

    @get(path, media_type=media_type, name=f"live {name}", sync_to_thread=False)
    def serve() -> Response[bytes]:
        return Response(content, headers=HEADERS)

    return serve
