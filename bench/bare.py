"""The peer of `bench.reads`: a Litestar handler that answers a constant as large as a sale."""

from typing import Any

from litestar import Litestar, get

_SALE = {
    "data": {"id": "0" * 36, "lines": [{"sku": "85123A", "quantity": 6, "text": "x" * 150}] * 3, "amount": "12.34"}
}


@get("/")
async def handle() -> dict[str, Any]:
    return _SALE


app = Litestar([handle], openapi_config=None)
