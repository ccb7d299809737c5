"""The peers of `bench/http.py`, a worker of them until SIGTERM: Litestar handlers as its documentation shows them.

least    a constant: what the framework and the server answer at most on this machine at this moment
append   an append of the same event each time: no body, no token, no rule, no view
sale     the sale itself, as the API records it: read from the body, looked up, decided, appended, answered; without token,
         right, idempotency key, rates, metrics and views, so that it says what those cost

python -m bench.handlers least|append|sale TENANT LISTENER    with BENCH_APP_URL and BITNEXUS_MASTER_KEY
"""

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from uuid import UUID

import msgspec
import uvicorn
import uvloop
from litestar import Litestar, get, post
from litestar.params import JSONBody

from bench import append
from bitnexus import collecting, database, process
from bitnexus.installation import Installation
from commands import products, tenants
from commands import transactions as sales
from domain.tenants import PLATFORM_ID
from ledger import ids
from ledger.appender import Appender
from ledger.caller import Caller
from ledger.keys import MasterKey
from ledger.store import Ledger
from ledger.waker import Waker

OF_NO_VIEW = b"bench.appended"
SKU = "MUG"
PASSWORD = "correct horse battery"


class Line(msgspec.Struct, frozen=True):
    sku: str
    quantity: int


class Order(msgspec.Struct, frozen=True):
    lines: list[Line]


class Sold(msgspec.Struct, frozen=True):
    id: UUID
    version: int
    position: int
    amount_minor: int
    currency: str


def appending(appends: Appender, tenant_id: UUID) -> Litestar:
    @post("/")
    async def handle() -> dict[str, int]:
        return {"position": (await appends.submit(append.command(tenant_id, OF_NO_VIEW))).position}

    return Litestar([handle], openapi_config=None)


def selling(ledger: Ledger, tenant_id: UUID) -> Litestar:
    @post("/")
    async def handle(data: JSONBody[Order]) -> Sold:
        caller = Caller(tenant_id=tenant_id, actor_id=None, role="bench", command_id=ids.new_id())
        lines = [sales.LineOrdered(sku=line.sku, quantity=line.quantity) for line in data.lines]
        receipt = await sales.record(sales.Record(lines=lines, sets_prices=True), caller, ledger)
        sale = receipt.aggregate
        return Sold(sale.id, sale.version, receipt.position, sale.amount_minor, sale.currency)

    return Litestar([handle], openapi_config=None)


async def prepare(app_url: str, master: MasterKey) -> UUID:
    """A tenant with a product."""
    async with process.running(Installation(app_url, master), projecting=False) as parts:
        await tenants.ensure_platform(parts.ledger)
        admin = {"admin_email": "a@shop.example", "admin_name": "A", "admin_password": PASSWORD}
        shop = tenants.Create(slug="shop", name="Shop", currency="EUR", **admin)
        tenant_id = (await tenants.create(shop, _caller(PLATFORM_ID), parts.ledger, parts.passwords)).aggregate.id
        mug = products.ListProduct(sku=SKU, name="Mug", price=Decimal("9.50"))
        await products.list_product(mug, _caller(tenant_id), parts.ledger)
        return tenant_id


def _caller(tenant_id: UUID) -> Caller:
    return Caller(tenant_id=tenant_id, actor_id=None, role="bench", command_id=ids.new_id())


@asynccontextmanager
async def _least(app_url: str, tenant_id: UUID) -> AsyncIterator[Litestar]:
    @get("/")
    async def handle() -> dict[str, str]:
        return {"hello": "world"}

    yield Litestar([handle], openapi_config=None)


@asynccontextmanager
async def _appending(app_url: str, tenant_id: UUID) -> AsyncIterator[Litestar]:
    appends = Appender(database.connector(app_url, "app"), Waker())
    await appends.start()
    yield appending(appends, tenant_id)
    await appends.close()


@asynccontextmanager
async def _selling(app_url: str, tenant_id: UUID) -> AsyncIterator[Litestar]:
    base = Installation(app_url, MasterKey.parse(os.environ["BITNEXUS_MASTER_KEY"]))
    async with process.running(base, projecting=False) as parts:
        yield selling(parts.ledger, tenant_id)


async def _serve(kind: str, tenant_id: UUID, listener: socket.socket) -> None:
    of_kind = {"least": _least, "append": _appending, "sale": _selling}[kind]
    async with of_kind(os.environ["BENCH_APP_URL"], tenant_id) as app:
        collecting.seldom()  # as in ours
        await uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).serve([listener])


if __name__ == "__main__":
    _, which, tenant, descriptor = sys.argv
    uvloop.run(_serve(which, UUID(tenant), socket.socket(fileno=int(descriptor))))
