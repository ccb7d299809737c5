"""Two tenants with an account of each role, and what tests ask of them over HTTP."""

import asyncio
import contextlib
import dataclasses
import math
import socket
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import jwt
import uvicorn
from litestar import Litestar

from api import roles, tokens
from api.parts import Parts
from api.socket import wire
from commands import accounts as account_commands
from commands import invitations as invitation_commands
from commands import products as product_commands
from commands import service_accounts as service_account_commands
from commands import tenants as tenant_commands
from commands import transactions as transaction_commands
from domain import accounts, products, tenants, transactions
from ledger import token_keys
from ledger.revocations import Revocations
from ledger.store import Ledger
from ledger.token_keys import TokenKeys
from projections import catalogue
from tests.world import MASTER, World, caller

PASSWORD = "correct horse battery"
SEED = bytes(range(32))
ISSUER = AUDIENCE = "bitnexus"
PATIENCE_S = 20.0
"""How long a test waits for what must happen; it is there much sooner."""


def keys(*seeds: bytes) -> TokenKeys:
    """Those of these seeds, which all sign by now; the tests' own one if none is said."""
    made = TokenKeys(MASTER)
    made.all = tuple(token_keys.of_seed(seed) for seed in seeds or (SEED,))
    return made


def access_tokens(revocations: Revocations | None = None) -> tokens.AccessTokens:
    """As the application makes and checks them. Without `revocations` nobody has logged out."""
    return tokens.AccessTokens(keys(), revocations or everybody_counts(), ISSUER, AUDIENCE)


def everybody_counts() -> Revocations:
    """What is known where nobody has logged out, and always known."""
    made = Revocations()
    made._known_at = math.inf
    return made


@dataclasses.dataclass(frozen=True)
class Person:
    """An account with a session, and its access token."""

    id: UUID
    email: str
    role: str
    token: str

    @property
    def session_id(self) -> UUID:
        return UUID(jwt.decode(self.token, options={"verify_signature": False})["sid"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclasses.dataclass(frozen=True)
class Program(Person):
    """A service account; its token is an API key."""

    key_id: UUID


@dataclasses.dataclass(frozen=True)
class House:
    """A tenant, with someone of each role."""

    id: UUID
    slug: str
    admin: Person
    user: Person
    affiliate: Person
    ledger: Ledger

    async def invites(self, email: str) -> UUID:
        command = invitation_commands.Issue(email=email)
        return (await invitation_commands.issue(command, caller(self.id), self.ledger)).aggregate.id

    async def lists(self, sku: str = "MUG", price: str = "9.00") -> products.Product:
        command = product_commands.ListProduct(sku=sku, name=f"{self.slug} {sku}", price=Decimal(price))
        return (await product_commands.list_product(command, caller(self.id), self.ledger)).aggregate

    async def sells(
        self,
        product: products.Product,
        quantity: int = 2,
        buyer: Person | None = None,
        affiliate: Person | None = None,
        buyer_ref: str | None = None,
    ) -> transactions.Transaction:
        command = transaction_commands.Record(
            lines=[transaction_commands.LineOrdered(product_id=product.id, quantity=quantity)],
            sets_prices=False,
            buyer_id=buyer.id if buyer else None,
            buyer_ref=buyer_ref,
            affiliate_id=affiliate.id if affiliate else None,
        )
        return (await transaction_commands.record(command, caller(self.id), self.ledger)).aggregate

    async def refunds(self, sale: transactions.Transaction, quantity: int) -> transactions.RefundMade:
        lines = [transaction_commands.RefundLineOrdered(line_id=1, quantity=quantity)]
        command = transaction_commands.Refund(transaction_id=sale.id, lines=lines)
        receipt = await transaction_commands.refund(command, caller(self.id), self.ledger)
        return list(receipt.aggregate.refunds.values())[-1]

    async def program(self, *scopes: str) -> Program:
        """A service account with a key."""
        command = service_account_commands.Create(name="Program", scopes=scopes, may_give=roles.SCOPES)
        made = await service_account_commands.make(command, caller(self.id), self.ledger)
        assert made.key is not None
        return Program(made.receipt.aggregate.id, "", "service", made.key, made.key_id)

    async def refunds_the_unknown(self) -> transactions.Refund:
        line = transaction_commands.LineOrdered(sku="OLD", quantity=1, unit_price=Decimal("3.00"))
        command = transaction_commands.RecordRefund(lines=[line], currency="EUR", buyer_ref="17850")
        return (await transaction_commands.record_refund(command, caller(self.id), self.ledger)).aggregate


async def build(world: World, slug: str) -> House:
    command = tenant_commands.Create(
        slug=slug,
        name=f"{slug} Ltd",
        currency="EUR",
        admin_email=f"admin@{slug}.test",
        admin_name=f"{slug} Admin",
        admin_password=PASSWORD,
    )
    created = await tenant_commands.create(command, caller(tenants.PLATFORM_ID), world.ledger, world.passwords)
    tenant_id = created.aggregate.id
    admin, user, affiliate = [
        await person(world, tenant_id, role, f"{role}@{slug}.test", is_there=role == accounts.Role.ADMIN)
        for role in (accounts.Role.ADMIN, accounts.Role.USER, accounts.Role.AFFILIATE)
    ]
    return House(tenant_id, slug, admin, user, affiliate, world.ledger)


async def person(world: World, tenant_id: UUID, role: accounts.Role, email: str, *, is_there: bool = False) -> Person:
    """Somebody with a session; registered first unless `is_there`."""
    if not is_there:
        register = account_commands.Register(email=email, name=_name(email), password=PASSWORD, role=role)
        await account_commands.register(register, caller(tenant_id), world.ledger, world.passwords)
    logged_in = await account_commands.log_in(
        account_commands.LogIn(email=email, password=PASSWORD), caller(tenant_id), world.ledger, world.passwords
    )
    token = access_tokens().issue(
        tenant_id=tenant_id, account_id=logged_in.account.id, role=role, session_id=logged_in.session.aggregate.id
    )
    return Person(logged_in.account.id, email, role, token)


def _name(email: str) -> str:
    local, _, domain = email.partition("@")
    return f"{domain.split('.')[0]} {local}"


class Served:
    """The application behind a client: in the same process, or a real server where connections matter."""

    def __init__(self, app: Litestar, parts: Parts) -> None:
        self.app = app
        self.parts = parts
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # an ASGI application, of Litestar's types
        self.client = httpx.AsyncClient(transport=transport, base_url="http://api.test")

    async def ask(self, person: Person | None, method: str, path: str, **request: Any) -> httpx.Response:
        """Paths are below /api/v1."""
        headers = {**(person.headers if person else {}), **request.pop("headers", {})}
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **request)

    async def get(self, person: Person | None, path: str, **request: Any) -> httpx.Response:
        return await self.ask(person, "GET", path, **request)

    async def post(self, person: Person | None, path: str, json: Any, **request: Any) -> httpx.Response:
        return await self.ask(person, "POST", path, json=json, **request)

    async def views_reach(self, house: House) -> None:
        """Whatever has been recorded is in the views."""
        head = (await self.parts.ledger.head(house.id)).position
        await self.parts.reached.wait(house.id, [view.name for view in catalogue.VIEWS], head, PATIENCE_S)


@contextlib.asynccontextmanager
async def listening(app: Litestar, parts: Parts) -> AsyncIterator[str]:
    """A uvicorn server on a free port, in this event loop, stopped as `bitnexus serve` stops it. Gives its address."""
    config = uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=10, **wire.OPTIONS)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]  # pytest's signals stay pytest's
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(PATIENCE_S):
            while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
                await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            parts.stopping.set()
            server.should_exit = True
            await task
