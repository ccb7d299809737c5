"""Somebody makes an account of their own, as the tenant lets them."""

import msgspec

from commands import invitations
from commands.accounts import registering
from commands.passwords import Passwords
from domain import accounts
from ledger.caller import Caller
from ledger.store import Ledger, Receipt


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """`invitation`: the token that came by mail."""

    email: str
    name: str
    password: str
    invitation: str | None = None


async def join(command: Join, caller: Caller, ledger: Ledger, passwords: Passwords) -> Receipt[accounts.Account]:
    """With an invitation the role is the admin's word, else it is user.

    Raises RegistrationNotOpen and what `registering.register` and `invitations.accept` raise.
    """
    await registering.check_mode(caller.tenant_id, ledger, invited=command.invitation is not None)
    if command.invitation is not None:
        accept = invitations.Accept(
            token=command.invitation, email=command.email, name=command.name, password=command.password
        )
        return await invitations.accept(accept, caller, ledger, passwords)
    register = registering.Register(email=command.email, name=command.name, password=command.password, verify=True)
    return await registering.register(register, caller, ledger, passwords)
