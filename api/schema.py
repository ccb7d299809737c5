"""OpenAPI at /schema: the document, and Swagger UI served from a package, so that it works without internet access."""

import json
from pathlib import Path
from typing import Any

import swagger_ui_bundle
from litestar import MediaType, Request, Response, Router, get
from litestar.config.response_cache import CACHE_FOREVER
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from api import answers, rights

PATH = "/schema"

# Styles are set inline by Swagger UI itself, and its icons are data: addresses. Nothing comes from elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

_FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript", "favicon-32x32.png": "image/png"}

_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>BitNexus API</title>
<link rel="icon" type="image/png" href="{PATH}/favicon-32x32.png">
<link rel="stylesheet" href="{PATH}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{PATH}/swagger-ui-bundle.js"></script>
<script src="{PATH}/start.js"></script>
</body>
</html>
"""
# validatorUrl: Swagger UI would otherwise show a badge that a server of its makers draws
_START = f"""SwaggerUIBundle({{
  url: "{PATH}/openapi-3.0.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, persistAuthorization: true
}});
"""


class _SwaggerUI(OpenAPIRenderPlugin):
    """The page at /schema, and what it loads."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return _PAGE.encode()

    def receive_router(self, router: Router) -> None:
        for name, media_type in _FILES.items():
            router.register(_file(name, media_type))

        @get("/start.js", media_type="text/javascript", sync_to_thread=False)
        def start() -> bytes:
            return _START.encode()

        @get("/openapi-3.0.json", media_type=MediaType.JSON, sync_to_thread=False, cache=CACHE_FOREVER)
        def older(request: Request[Any, Any, Any]) -> bytes:
            return json.dumps(as_3_0(request.app.openapi_schema.to_schema())).encode()

        router.register(start)
        router.register(older)


def _file(name: str, media_type: str) -> Any:
    content = (Path(swagger_ui_bundle.swagger_ui_path) / name).read_bytes()

    @get(f"/{name}", media_type=media_type, name=name, sync_to_thread=False)
    def serve() -> Response[bytes]:
        return Response(content, headers={"Cache-Control": "public, max-age=86400"})

    return serve


def config(version: str) -> OpenAPIConfig:
    """For the application."""
    return OpenAPIConfig(
        title="BitNexus",
        version=version,
        description="An affiliate marketplace on an append-only, hash-linked ledger. Amounts are decimal strings, times UTC.",
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http",
                    scheme="bearer",
                    bearer_format="JWT",
                    description="An access token, or the API key of a service account (bnx_…).",
                )
            },
            responses=answers.PROBLEMS,
        ),
        render_plugins=[_SwaggerUI(path="/"), JsonRenderPlugin(path="/openapi.json")],
        openapi_router=Router(
            PATH,
            route_handlers=[],
            include_in_schema=False,
            opt=rights.open_to_all("the documentation says nothing of any tenant"),
            after_request=_missing,
            response_headers=[
                ResponseHeader(name="Content-Security-Policy", value=CONTENT_SECURITY_POLICY),
            ],
        ),
    )


async def _missing(response: Response[Any]) -> Response[Any]:
    """The framework answers an unknown page below /schema in HTML; here it is a problem like any other."""
    if response.status_code == 404:
        raise NotFoundException
    return response


def as_3_0(document: Any) -> Any:
    """The document as OpenAPI 3.0, which is what the bundled Swagger UI reads: null is no type there."""
    if isinstance(document, list):
        return [as_3_0(each) for each in document]
    if not isinstance(document, dict):
        return document
    if "openapi" in document:
        document = {**document, "openapi": "3.0.3"}
    found = {key: as_3_0(value) for key, value in document.items()}
    if isinstance(found.get("type"), list):
        types = [each for each in found["type"] if each != "null"]
        found |= {"type": types[0], "nullable": len(types) < len(document["type"])}
    for key in ("oneOf", "anyOf"):
        if isinstance(found.get(key), list) and {"type": "null"} in found[key]:
            found[key] = [each for each in found[key] if each != {"type": "null"}]
            found["nullable"] = True
    if "const" in found:
        found["enum"] = [found.pop("const")]
    return found
