"""The application behind a real server."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.api.house import Served, listening


@pytest_asyncio.fixture
async def address(served: Served) -> AsyncIterator[str]:
    async with listening(served.app, served.parts) as address:
        yield address
