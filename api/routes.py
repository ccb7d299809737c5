"""The decorators of our routes: the framework's, without what it does at each request for guards, dependencies and answers that ours
never are: guards that change the handler (a copy of it, 16 µs), dependencies that have dependencies or clean up (an exit stack and a
parsed signature, 6 µs; a task group if there are two), answers that its layers add to. Where all arguments come as the handler wants
them, as of all routes without a query string, they are not converted either, and no hook is looked for (12 µs).
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Empty, Receive, Send

from api.sent import Answer

Extractor = Callable[[dict[str, Any], ASGIConnection[Any, Any, Any, Any]], Awaitable[None]]


class route(HTTPRouteHandler):
    """`litestar.route`."""

    _extractors: Sequence[Extractor] = ()
    _comes_as_wanted = False
    _exception_handlers: Any = None

    async def authorize_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        for guard in self.resolve_guards():
            await guard(connection, self)  # type: ignore[misc]  # a guard may give back no awaitable; ours do

    def create_kwargs_model(self, path_parameters: Any) -> Any:
        """The framework's, with dependencies extracted like all other arguments, after them."""
        model = super().create_kwargs_model(path_parameters)
        for dependency in (each for batch in model.dependency_batches for each in batch):
            model.extractors.append(_extractor(dependency))
        model.dependency_batches = []
        given = {"request", *self.resolve_dependencies()}
        given |= {name for name, each in path_parameters.items() if each.type is UUID}
        if self.resolve_data_dto() is not None:
            given.add("data")
        self._extractors = model.extractors
        self._comes_as_wanted = given.issuperset(self.signature_model._fields) and not self.has_sync_callable
        return model

    def resolve_exception_handlers(self) -> Any:
        """The framework's, collected once: it is asked for at each request."""
        if self._exception_handlers is None:
            self._exception_handlers = super().resolve_exception_handlers()
        return self._exception_handlers

    def resolve_middleware(self) -> list[Any]:
        return [self._directly, *super().resolve_middleware()]

    def _directly(self, app: ASGIApp) -> ASGIApp:
        """The innermost middleware, which answers in the place of `app`, the framework's way to the handler."""
        if not self._comes_as_wanted:
            return app
        make_request, guards = self.resolve_request_class(), self.resolve_guards()
        handle, wanted, extractors = self.fn, tuple(self.signature_model._fields), self._extractors

        async def answer(scope: Any, receive: Receive, send: Send) -> None:
            request = make_request(scope, receive, send)
            for guard in guards:
                await guard(request, self)  # type: ignore[misc]  # as in authorize_connection
            values: dict[str, Any] = {}
            for extract in extractors:
                await extract(values, request)
            if values.get("data") is Empty:  # there is no body, which is for the framework to judge
                del values["data"]
                values = self.signature_model.parse_values_from_connection_kwargs(request, values)
            found = await handle(**{name: values[name] for name in wanted})
            response = await self.to_response(scope["litestar_app"], found, request)
            await response(scope, receive, send)

        return answer

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
