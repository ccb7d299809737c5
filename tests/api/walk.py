"""Every route asked by everybody: what `test_rights_table` compares with the table checked in."""

import asyncio
import dataclasses
from typing import Any
from uuid import UUID

import httpx
from litestar.handlers.base import BaseRouteHandler

from api import rights
from domain import accounts, tenants
from ledger import ids
from tests.api import house
from tests.api.house import House, Person, Served
from tests.world import World

CALLERS = (
    "anonymous",
    "owner",
    "stranger",
    "affiliate",
    "other affiliate",
    "admin",
    "auditor",
    "super_admin",
    "foreign admin",
)
"""The owner is the buyer of the sale and whose account it is; the affiliate brought the sale; the auditor is a service account
with the scope ledger:read; the foreign admin is another tenant's."""
ROLES = {
    "owner": accounts.Role.USER,
    "stranger": accounts.Role.USER,
    "affiliate": accounts.Role.AFFILIATE,
    "other affiliate": accounts.Role.AFFILIATE,
    "admin": accounts.Role.ADMIN,
}
BODIES: dict[str, Any] = {
    "register": {"email": "new@alpha.test", "name": "New", "password": house.PASSWORD, "tenant": "alpha"},
    "logIn": {"email": "admin@alpha.test", "password": house.PASSWORD, "tenant": "alpha"},
    "refresh": {"refresh_token": "none"},
    "forgotPassword": {"email": "admin@alpha.test", "tenant": "alpha"},
    "resetPassword": {"token": "none", "password": "quite another secret"},
    "verifyEmail": {"token": "none"},
    "changeEmail": {"token": "none"},
    "logInWithSecondFactor": {"challenge": "none", "code": "123456"},
    "enrolSecondFactorAtLogIn": {"challenge": "none"},
    "confirmSecondFactorAtLogIn": {"challenge": "none", "code": "123456"},
    "changeMe": {"name": "Other"},
    "changePassword": {"current_password": house.PASSWORD, "password": "quite another secret"},
    "askEmailChange": {"current_password": house.PASSWORD, "email": "other@alpha.test"},
    "enrolSecondFactor": {"current_password": house.PASSWORD},
    "confirmSecondFactor": {"code": "123456"},
    "removeSecondFactor": {"current_password": house.PASSWORD},
    "invite": {"role": "user"},  # with an address of its own
    "configureSignIn": {"registration": "open", "second_factor": "optional"},
    "changeProduct": {"name": "Cup"},
    "replaceProduct": {"name": "Cup"},
    "repriceProduct": {"price": "1.00"},
    "refundTransaction": {},
    "eraseBuyer": {"buyer_ref": "17850"},
    "listProduct": {"name": "New", "price": "1.00"},  # with a SKU of its own
    "createUser": {"name": "New", "password": house.PASSWORD},  # with an address of its own
    "replaceUser": {"name": "Other", "role": "affiliate"},
    "changeUser": {"role": "affiliate"},
    "createServiceAccount": {"name": "New", "scopes": ["accounts:read"]},
    "brandTenant": {"name": "Alpha"},
    "configureTenant": {"currency": "EUR", "flags": []},
    "createTenant": {
        "name": "New",
        "admin_email": "a@new.test",
        "admin_password": house.PASSWORD,
    },  # with a slug of its own
    "limitTenant": {},
    "changeHosts": {"hosts": ["alpha.example.com"]},
    "suspendTenant": {"reason": "a test"},
    "recordTransaction": {"lines": [{"sku": "MUG", "quantity": 1}]},
}
FEW = 3
"""Longer lists are only said to be long: their length says nothing of who asks."""
STREAMS = {"listen"}  # answers begin and do not end


@dataclasses.dataclass
class Cast:
    """Who asks, and what there is to ask for. Made anew where a request changes something."""

    people: dict[str, Person | None]
    given: dict[str, UUID | str]


class Stage:
    """Makes casts in the tenant `a`, asks, and says what came back."""

    def __init__(self, world: World, served: Served, a: House, b: House) -> None:
        self._world, self._served, self._a, self._b = world, served, a, b
        self._shared: Cast | None = None
        self._auditor: Person | None = None
        self._made = 0

    async def open(self) -> None:
        """What every caller of a query is asked about. `MUG` is there for all."""
        await self._a.lists("MUG")
        await self._a.refunds_the_unknown()
        self._shared = await self._cast(*CALLERS, with_program=True)
        await self._served.views_reach(self._a)

    async def row(self, name: str, handler: BaseRouteHandler) -> list[str]:
        """A cell for each caller: the status, and of a list how much of it the caller sees."""
        return [await self._cell(name, handler, caller) for caller in CALLERS]

    async def _cell(self, name: str, handler: BaseRouteHandler, caller: str) -> str:
        method, path = name.split(" ", 1)
        assert self._shared is not None
        with_program = "{service_account_id}" in path
        cast = self._shared if method == "GET" else await self._cast(caller, with_program=with_program)
        for parameter, value in cast.given.items():
            path = path.replace(f"{{{parameter}}}", str(value))
        assert "{" not in path, f"{path} has a parameter of which a cast has nothing: add it in tests/api/walk.py"
        person = cast.people[caller]
        headers = person.headers if person else {}
        operation = operation_of(handler, method)
        if operation in STREAMS:
            return str(await begun(self._served.app, path, headers))
        answer = await self._served.client.request(method, path, headers=headers, json=self._body(operation))
        if operation == "suspendTenant" and answer.status_code == 200:  # the others have to be let in again
            assert (await self._served.client.delete(path, headers=headers)).status_code == 204
        return shown(answer)

    def _body(self, operation: str) -> Any:
        if operation == "listProduct":
            return {**BODIES[operation], "sku": f"NEW-{self._made}"}
        if operation == "createTenant":
            return {**BODIES[operation], "slug": f"new-{self._made}"}
        if operation in ("createUser", "invite"):
            return {**BODIES[operation], "email": f"new-{self._made}@users.test"}
        return BODIES.get(operation)

    async def _cast(self, *callers: str, with_program: bool) -> Cast:
        """These people, and the owner and affiliate of what there is, all with sessions of their own."""
        people = {name: await self._person(name) for name in dict.fromkeys(("owner", "affiliate", *callers))}
        self._made += 1
        product = await self._a.lists(f"SKU-{self._made}")
        sale = await self._a.sells(product, quantity=3, buyer=people["owner"], affiliate=people["affiliate"])
        refund = await self._a.refunds(sale, 1)
        owner = people["owner"]
        assert owner is not None
        given: dict[str, UUID | str] = {
            "product_id": product.id,
            "transaction_id": sale.id,
            "refund_id": refund.id,
            "tenant_id": self._a.id,
            "user_id": owner.id,
            "aggregate_id": sale.id,
            "invitation_id": await self._a.invites(f"invited-{self._made}@users.test"),
            "view": "sales",
            "session_id": owner.session_id,
            "path": "nothing",
        }
        if with_program:  # there may be few
            program = await self._a.program("products:read")
            given |= {"service_account_id": program.id, "key_id": program.key_id}
        return Cast(people, given)

    async def _person(self, name: str) -> Person | None:
        if name == "anonymous":
            return None
        if name == "auditor":
            self._auditor = self._auditor or await self._a.program("ledger:read")
            return self._auditor
        if name == "foreign admin":
            return await house.person(self._world, self._b.id, accounts.Role.ADMIN, f"{ids.new_id()}@beta.test")
        if name == "super_admin":
            email = f"{ids.new_id()}@platform.test"
            return await house.person(self._world, tenants.PLATFORM_ID, accounts.Role.SUPER_ADMIN, email)
        return await house.person(self._world, self._a.id, ROLES[name], f"{ids.new_id()}@alpha.test")


def operation_of(handler: BaseRouteHandler, method: str) -> str:
    """A handler of several methods names its operation by a function, whose name for PUT and PATCH is by convention."""
    operation = getattr(handler, "operation_id", None)
    if callable(operation):
        return str(operation(handler, method, []))
    return str(operation)


def shown(answer: httpx.Response) -> str:
    if answer.status_code == 200 and answer.headers["content-type"].startswith("application/json"):
        data = answer.json().get("data") if isinstance(answer.json(), dict) else None
        if isinstance(data, list):
            return f"200 [{len(data) if len(data) <= FEW else 'many'}]"
    return str(answer.status_code)


async def begun(app: Any, path: str, headers: dict[str, str]) -> int:
    """The status of an answer that has begun; then the client goes."""
    status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    received = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for message in received:
            return message
        await status
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and not status.done():
            status.set_result(message["status"])

    scope = {
        **{"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": path, "root_path": ""},
        **{"raw_path": path.encode(), "query_string": b"", "client": ("127.0.0.1", 1), "server": ("api.test", 80)},
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    return await status


def table(rows: dict[str, tuple[str, list[str]]]) -> str:
    """Aligned, a line a route: method and path, the right that it declares, a column for each caller."""
    lines = [["route", "right", *CALLERS]]
    lines += [[name, right, *cells] for name, (right, cells) in rows.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def right_shown(handler: BaseRouteHandler) -> str:
    return rights.right_of(handler) or "open to all"
