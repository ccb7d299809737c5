"""Let somebody into a tenant where nobody has a password: after an import, or when all of its admins lost theirs."""

import msgspec

from commands import accounts as account_commands
from commands.passwords import Passwords
from domain import accounts, refusals
from ledger.caller import Caller
from ledger.store import Ledger, Receipt, Secret


class NotAnAdmin(refusals.Conflict):
    def __init__(self, email: str, role: str) -> None:
        super().__init__(
            f"The account with this address is no admin's, its role is {role}", email, "Give another address"
        )


class Appoint(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: of a new account; one that is there keeps its own."""

    email: str
    name: str
    password: str


class Appointed(msgspec.Struct, frozen=True, kw_only=True):
    receipt: Receipt[accounts.Account]
    new_account: bool


async def appoint(command: Appoint, caller: Caller, ledger: Ledger, passwords: Passwords) -> Appointed:
    """The admin of that address, who has this password from now on; a new account if there was none.

    Raises NotAnAdmin, PasswordLengthWrong, HashingOverloaded, TenantUnknown and what `accounts.register` raises.
    """
    accounts.check_password(command.password)
    email = accounts.normalise_email(command.email)
    account_id = (await ledger.find(caller.tenant_id, account_commands.EMAIL, [email])).get(email)
    if account_id is None:
        new = account_commands.Register(
            email=email, name=command.name, password=command.password, role=accounts.Role.ADMIN
        )
        registered = await account_commands.register(new, caller, ledger, passwords)
        return Appointed(receipt=registered, new_account=True)
    account = await ledger.load(accounts.Account, caller.tenant_id, account_id)
    if account.role != accounts.Role.ADMIN:
        raise NotAnAdmin(email, account.role)
    hashed = await passwords.hash(command.password)
    secret = Secret(account.id, account_commands.PASSWORD, hashed)
    return Appointed(receipt=await ledger.append(caller, account, secrets=[secret]), new_account=False)
