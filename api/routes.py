"""The decorators of our routes: the framework's, without what it does at each request for guards, dependencies and answers that ours
never are: guards that change the handler (a copy of it, 16 µs), dependencies that have dependencies or clean up (an exit stack and a
parsed signature, 6 µs; a task group if there are two), answers that its layers add to.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from api.sent import Answer

Extractor = Callable[[dict[str, Any], ASGIConnection[Any, Any, Any, Any]], Awaitable[None]]


class route(HTTPRouteHandler):
    """`litestar.route`."""

    async def authorize_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        for guard in self.resolve_guards():
            await guard(connection, self)  # type: ignore[misc]  # a guard may give back no awaitable; ours do

    def create_kwargs_model(self, path_parameters: Any) -> Any:
        """The framework's, with dependencies extracted like all other arguments, after them."""
        model = super().create_kwargs_model(path_parameters)
        for dependency in (each for batch in model.dependency_batches for each in batch):
            model.extractors.append(_extractor(dependency))
        model.dependency_batches = []
        return model

    async def to_response(self, app: Litestar, data: Any, request: Request[Any, Any, Any]) -> ASGIApp:
        if isinstance(data, Answer):
            answer: ASGIApp = data.to_asgi_response(None, request)
            return answer
        return await super().to_response(app, data, request)


def _extractor(dependency: Any) -> Extractor:
    """Of a dependency that is an async function of the request, or of nothing. Raises TypeError for any other."""
    key, provide = dependency.key, dependency.provide
    wanted = set(provide.signature_model._fields)
    if not wanted <= {"request"} or provide.has_sync_callable or provide.use_cache:
        raise TypeError(
            f"The dependency {key} wants {sorted(wanted)}. Let it be an async function of the request alone."
        )

    async def of_request(values: dict[str, Any], request: ASGIConnection[Any, Any, Any, Any]) -> None:
        values[key] = await provide.dependency(request)

    async def of_nothing(values: dict[str, Any], request: ASGIConnection[Any, Any, Any, Any]) -> None:
        values[key] = await provide.dependency()

    return of_request if wanted else of_nothing


get = partial(route, http_method="GET")
post = partial(route, http_method="POST")
put = partial(route, http_method="PUT")
patch = partial(route, http_method="PATCH")
delete = partial(route, http_method="DELETE")
