"""What `bitnexus demo` has to show: a tenant, an account of each role, and the sample sales. Made once, found again later."""

import base64
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from bitnexus import trading
from bitnexus.process import Process
from bitnexus.retail import plan as retail_plan
from bitnexus.retail import report, rows, run
from commands import accounts, tenants
from domain.accounts import Role, normalise_email
from domain.tenants import PLATFORM_ID, PLATFORM_SLUG
from ledger import ids
from ledger.caller import Caller
from ledger.keys import MasterKey

SLUG, NAME, CURRENCY = "demo", "Demo shop", rows.CURRENCY
SAMPLE = "online-retail-5000.csv.gz"
SOURCE = "online-retail"
PASSWORD_BYTES = 10
"""80 bits in 16 characters of base32: not to be guessed, and still to be typed."""
TRADED_MAX = 300
"""Products of which sales are made up."""


class Login(msgspec.Struct, frozen=True):
    tenant: str
    email: str
    role: str
    password: str


@dataclass(frozen=True)
class Demo:
    """`new`: whether this run made the tenant. `products` are SKUs of which more may be sold."""

    new: bool
    logins: list[Login]
    sales: report.Report
    products: list[str]


def logins(master: MasterKey) -> list[Login]:
    """The same at every start, different in every installation."""
    return [
        Login(
            PLATFORM_SLUG if role is Role.SUPER_ADMIN else SLUG,
            f"{role.value.replace('_', '-')}@demo.example",
            role.value,
            _password(master, role),
        )
        for role in Role
    ]


def _password(master: MasterKey, role: Role) -> str:
    return base64.b32encode(master.derive(f"demo password {role.value}")[:PASSWORD_BYTES]).decode().lower()


async def prepare(parts: Process, progress: run.Progress) -> Demo:
    """Everything that is not there yet. Raises what the commands raise."""
    await tenants.ensure_platform(parts.ledger)
    found = logins(parts.installation.master)
    new = await _ensure_tenant(parts, next(login for login in found if login.role == Role.ADMIN))
    tenant_id = await tenants.find(SLUG, parts.ledger)
    for login in found:
        await _ensure_account(parts, login, PLATFORM_ID if login.tenant == PLATFORM_SLUG else tenant_id)
    begun = time.perf_counter()
    with resources.as_file(resources.files("bitnexus.data") / SAMPLE) as path:
        plan = retail_plan.plan(rows.read(path))
    carried = await run.carry_out(plan, tenant_id, parts.ledger, source=SOURCE, progress=progress)
    told = report.report(SAMPLE, SLUG, SOURCE, plan, carried, time.perf_counter() - begun)
    return Demo(new, found, told, [product.sku for product in plan.products[:TRADED_MAX]])


def live_page(url: str, login: Login) -> str:
    """Where that account, once it has logged in, sees sales arrive."""
    from api.live import page  # the HTTP side, half a second, which whoever serves has spent by now

    return f"{url}{page.PATH}#{urlencode({'tenant': login.tenant, 'email': login.email})}"


@asynccontextmanager
async def trades(parts: Process, made: Demo) -> AsyncIterator[None]:
    """Sells while it lasts: half of it through the affiliate, a third to the user, so that both see some arrive."""
    tenant_id = await tenants.find(SLUG, parts.ledger)
    emails = {login.role: normalise_email(login.email) for login in made.logins}
    known = await parts.ledger.find(tenant_id, accounts.EMAIL, list(emails.values()))
    user, affiliate = (known.get(emails[role]) for role in (Role.USER, Role.AFFILIATE))
    chosen = random.Random()  # nosec B311  # nothing secret hangs on it
    trade = trading.Trade(parts.ledger, tenant_id, made.products, (user, None, None), (affiliate, None), chosen)
    async with trading.running(trade):
        yield


async def _ensure_tenant(parts: Process, admin: Login) -> bool:
    command = tenants.Create(
        slug=SLUG,
        name=NAME,
        currency=CURRENCY,
        admin_email=admin.email,
        admin_name="Demo admin",
        admin_password=admin.password,
    )
    caller = Caller(tenant_id=PLATFORM_ID, actor_id=None, role="system", command_id=ids.new_id())
    try:
        await tenants.create(command, caller, parts.ledger, parts.passwords)
    except tenants.SlugTaken:
        return False
    return True


async def _ensure_account(parts: Process, login: Login, tenant_id: UUID) -> None:
    name = f"Demo {login.role.replace('_', ' ')}"
    command = accounts.Register(email=login.email, name=name, password=login.password, role=login.role)
    caller = Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=ids.new_id())
    with suppress(accounts.EmailTaken):  # an earlier run made it, or the tenant's making
        await accounts.register(command, caller, parts.ledger, parts.passwords)
