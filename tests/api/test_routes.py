"""The routes' own way with what the framework does for each request."""

from typing import Any

import pytest
from litestar import Litestar
from litestar.di import NamedDependency, Provide

from api.routes import get


async def of_another(parts: NamedDependency[int]) -> int:
    return parts


async def of_nothing() -> int:
    return 1


def at_once() -> int:
    return 1


@pytest.mark.parametrize("provide", [Provide(of_another), Provide(at_once, sync_to_thread=False)])
def test_a_dependency_that_a_route_could_not_give_what_it_wants_is_refused_at_the_start(provide: Any) -> None:
    """Not at the first request."""

    @get("/")
    async def handler(wanted: NamedDependency[int]) -> int:
        return wanted

    with pytest.raises(TypeError, match="wanted"):
        Litestar([handler], dependencies={"wanted": provide, "parts": Provide(of_nothing)}, openapi_config=None)
    Litestar([handler], dependencies={"wanted": Provide(of_nothing)}, openapi_config=None)
