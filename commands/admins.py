"""Who runs a tenant: let somebody in where nobody has a password (after an import, or when all admins lost theirs), and let
nobody go without whom nobody would run it."""

from uuid import UUID

import msgspec

from commands import accounts as account_commands
from commands import sessions
from commands.accounts import mailed, second_factor
from commands.passwords import Passwords
from domain import accounts, refusals
from ledger import codec, errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt, Secret

LEFT, LAST_LEFT = "admin left", "last"
"""Kind and key of the reservation whose owner is an id made for the last time that an admin of the tenant ceased to be one."""
LEAVE_TRIES_MAX = 5
"""Each try that fails saw another admin of the same tenant leave."""
OTHERS_LOADED_MAX = 100
"""One is enough; more than one is looked at only because an account may be left over in the list (`leave`)."""


class NotAnAdmin(refusals.Conflict):
    def __init__(self, email: str, role: str) -> None:
        super().__init__(
            f"The account with this address is no admin's, its role is {role}", email, "Give another address"
        )


class AdminDeactivated(refusals.Conflict):
    def __init__(self, email: str) -> None:
        super().__init__("The account with this address has been deactivated", email, "Give another address")


class Appoint(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: of a new account; one that is there keeps its own. `role`: one that runs the tenant."""

    email: str
    name: str
    password: str
    role: str = accounts.Role.ADMIN


class Appointed(msgspec.Struct, frozen=True, kw_only=True):
    receipt: Receipt[accounts.Account]
    new_account: bool


async def appoint(command: Appoint, caller: Caller, ledger: Ledger, passwords: Passwords) -> Appointed:
    """The admin of that address, who has this password from now on, no second factor and no session; a new account if there was none.

    Raises NotAnAdmin, AdminDeactivated, HashingOverloaded, TenantUnknown and what `accounts.check_password` and `accounts.register` raise.
    """
    accounts.check_password(command.password, email=command.email, name=command.name)
    email = accounts.normalise_email(command.email)
    account_id = (await ledger.find(caller.tenant_id, account_commands.EMAIL, [email])).get(email)
    if account_id is None:
        new = account_commands.Register(
            email=command.email, name=command.name, password=command.password, role=command.role
        )
        registered = await account_commands.register(new, caller, ledger, passwords)
        return Appointed(receipt=registered, new_account=True)
    account = await ledger.load(accounts.Account, caller.tenant_id, account_id)
    if account.role != command.role:
        raise NotAnAdmin(email, account.role)
    if not account.active:
        raise AdminDeactivated(email)
    secrets = [
        *account_commands.passworded(account, await passwords.hash(command.password)),
        *mailed.used(account.id, *mailed.BEGUN_BY_PASSWORD),
        *second_factor.taken_away(account),  # after an import its secret is nowhere
    ]
    account.change_password(accounts.PasswordSet.APPOINTED)
    ended = await sessions.ending_all(account.id, caller.tenant_id, "password set", ledger)
    receipt = await sessions.append(ended, caller, ledger, account, secrets=secrets)
    return Appointed(receipt=receipt, new_account=False)


async def leave(account: accounts.Account, caller: Caller, ledger: Ledger, *, last_too: bool = False) -> None:
    """Whoever is about to take an account away from its tenant calls this first. Nothing if it is none that runs it.

    Of two admins who leave at the same moment one stays. Everybody who leaves takes over the reservation LAST_LEFT from
    whoever left before (its owner is the id of that leaving, never used again), in the append that ends their being an
    admin, and reads first who that was and only then who the admins are. If anybody else left after that reading, the owner
    is another, nothing is released, the claim is taken, and all of it is read and decided again. So from the reading to the
    commit no admin left, and those who came meanwhile do no harm: whoever was seen to stay is there.

    It is an append of its own, before the erasure is noted outside the database, because what stands there is done at the
    next start, refused or not. If what should follow it fails, the account is still there and counts no more until it is
    given a password again (`appoint`): the guard then refuses too much, never too little.

    The password of an account that is erased at the same moment can bring its mark back. Therefore the others are loaded,
    and those that read as erased do not count.

    Raises LastAdmin (unless `last_too`), VersionConflict (others kept leaving).
    """
    if account.role not in accounts.RUNNING:
        return
    for _ in range(LEAVE_TRIES_MAX):
        before = (await ledger.find(account.tenant_id, LEFT, [LAST_LEFT])).get(LAST_LEFT)
        admins = await account_commands.admins_of(account.tenant_id, ledger)  # after `before` was read
        if account.id not in admins:
            return
        if not last_too and not await _is_anybody_there(admins - {account.id}, account.tenant_id, ledger):
            raise accounts.LastAdmin(account.id)
        try:
            await ledger.append(
                msgspec.structs.replace(caller, command_id=ids.new_id(), fingerprint=b""),
                account,
                claims=[Claim(LEFT, LAST_LEFT, ids.new_id())],
                releases=[] if before is None else [Claim(LEFT, LAST_LEFT, before)],
                secrets=[Secret(account.tenant_id, account_commands.admin_kind(account.id), None)],
            )
            return
        except errors.ReservationTaken:
            continue
    raise errors.VersionConflict(account.id)


async def _is_anybody_there(others: set[UUID], tenant_id: UUID, ledger: Ledger) -> bool:
    some = sorted(others)[:OTHERS_LOADED_MAX]
    found = await ledger.load_many(accounts.Account, tenant_id, some)
    return any(account.email != codec.ERASED for account in found.values())
