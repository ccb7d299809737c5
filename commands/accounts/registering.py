"""Make an account. Only the hash of its password is kept, outside the events."""

from contextlib import suppress
from uuid import UUID

import msgspec

from commands import limits
from commands.accounts import mailed
from commands.passwords import HashingOverloaded, Passwords
from commands.repeats import repeatable
from domain import accounts, refusals, tenants
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt, Secret

EMAIL = limits.ADDRESS
"""The kind of reservation that makes an e-mail address unique in its tenant; its owner is the account."""
PASSWORD = "password"
ADMIN_PREFIX = "admin "
"""Of the kind of a secret of the tenant's own (the owner's id is the tenant's) that names an account which runs it and has a
password, so that whoever is the last one is found without a search."""


class EmailTaken(refusals.Conflict):
    def __init__(self, email: str) -> None:
        super().__init__(
            "There is an account with this address", email, "Log in, or use another address", field="email"
        )


class RegistrationNotOpen(refusals.Refusal):
    def __init__(self, mode: str) -> None:
        advice = "Ask an admin for an invitation" if mode == tenants.RegistrationMode.INVITATION else "Ask an admin"
        super().__init__("Not everybody may make an account in this tenant", mode, advice)


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """`verify`: let a mail go to the address, by which the person shows that it is theirs."""

    email: str
    name: str
    password: str
    role: str = accounts.Role.USER
    verify: bool = False


@repeatable(accounts.Account)
async def register(
    command: Register, caller: Caller, ledger: Ledger, passwords: Passwords
) -> Receipt[accounts.Account]:
    """Raises EmailTaken, LimitReached, HashingOverloaded and what `accounts.check_password` and `accounts.register` raise."""
    accounts.check_password(command.password, email=command.email, name=command.name)
    account = accounts.register(
        id=ids.new_id(), tenant_id=caller.tenant_id, email=command.email, name=command.name, role=command.role
    )
    await limits.check_users(caller.tenant_id, ledger)
    key = accounts.normalise_email(account.email)
    if await ledger.find(caller.tenant_id, EMAIL, [key]):
        raise EmailTaken(account.email)  # before 100 ms are spent on hashing; the claim below is what decides
    hashed = await passwords.hash(command.password)
    letters = await mailed.verifying(account, ledger) if command.verify else []
    try:
        return await limits.append_account(
            caller,
            ledger,
            account,
            claims=[Claim(EMAIL, key, account.id)],
            secrets=[*passworded(account, hashed), *letters],
        )
    except errors.ReservationTaken:
        raise EmailTaken(account.email) from None


def passworded(account: accounts.Account, hashed: bytes) -> list[Secret]:
    """What an append carries that gives an account a password."""
    secrets = [Secret(account.id, PASSWORD, hashed)]
    if account.role in accounts.RUNNING:
        secrets.append(Secret(account.tenant_id, admin_kind(account.id), b"\1"))
    return secrets


async def strengthen(
    account_id: UUID, password: str, hashed: bytes, tenant_id: UUID, ledger: Ledger, passwords: Passwords
) -> None:
    """For a password that was just checked: hash it anew if it was hashed with less than is asked for by now.

    Nothing if there is no room to hash, or if the password was changed meanwhile.
    """
    if not passwords.is_weak(hashed):
        return
    with suppress(HashingOverloaded):
        await ledger.replace_secret(tenant_id, account_id, PASSWORD, hashed, await passwords.hash(password))


async def check_mode(tenant_id: UUID, ledger: Ledger, *, invited: bool) -> None:
    """Whether somebody may make an account of their own. Raises RegistrationNotOpen."""
    tenant = (await ledger.load_many(tenants.Tenant, tenant_id, [tenant_id])).get(tenant_id)
    if tenant is None or tenant.registration == tenants.RegistrationMode.OPEN:
        return
    if not invited or tenant.registration == tenants.RegistrationMode.CLOSED:
        raise RegistrationNotOpen(tenant.registration)


def admin_kind(account_id: UUID) -> str:
    return f"{ADMIN_PREFIX}{account_id}"


async def admins_of(tenant_id: UUID, ledger: Ledger) -> set[UUID]:
    """The accounts that run the tenant and have a password."""
    kinds = await ledger.secret_kinds(tenant_id, tenant_id)
    return {UUID(kind.removeprefix(ADMIN_PREFIX)) for kind in kinds if kind.startswith(ADMIN_PREFIX)}


async def show(account_id: UUID, tenant_id: UUID, ledger: Ledger) -> accounts.Account:
    """Raises NotFound."""
    return await ledger.load(accounts.Account, tenant_id, account_id)
