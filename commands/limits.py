"""How much a tenant may use, as the platform said (`Tenant.limits`). What is over it is refused by the limit's name."""

from collections.abc import Sequence
from uuid import UUID

from domain import accounts, aggregates, refusals, tenants
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt, Secret

ADDRESS = "email"
"""The kind of the reservation that each account has, of its address."""
MADE, LAST_MADE = "account made", "last"
"""Kind and key of the reservation whose owner is an id made for the last account of a tenant with a limit."""
TRIES_MAX = 10
"""Each try that fails saw another account of the same tenant be made."""


class LimitReached(refusals.Conflict):
    kept_as = None

    def __init__(self, limit: str, value: int) -> None:
        super().__init__(
            f"The tenant uses as much as it may, the limit {limit}", value, "Ask whoever runs the installation for more"
        )


async def check_users(tenant_id: UUID, ledger: Ledger) -> None:
    """Before a password is hashed for an account that cannot be made; `append_account` is what decides. Raises LimitReached."""
    users = await _users(tenant_id, ledger)
    if users is not None:
        await _check_room(tenant_id, users, ledger)


async def append_account(
    caller: Caller,
    ledger: Ledger,
    account: accounts.Account,
    *others: aggregates.Aggregate,
    claims: Sequence[Claim],
    secrets: Sequence[Secret],
) -> Receipt[accounts.Account]:
    """As `Ledger.append`, and with it the tenant has no more accounts than it may.

    Where there is a limit, whoever makes an account takes over the reservation LAST_MADE from whoever made the one before (its
    owner is the id of that making, never used again), and reads first who that was and only then how many accounts there are. If
    another one was made after that reading, the owner is another, nothing is released, the claim is taken, and all of it is
    read and decided again. So from the counting to the commit no account was made.

    Raises LimitReached, VersionConflict (others kept making accounts) and what an append raises.
    """
    for _ in range(TRIES_MAX):
        users = await _users(caller.tenant_id, ledger)
        if users is None:
            return await ledger.append(caller, account, *others, claims=claims, secrets=secrets)
        before = (await ledger.find(caller.tenant_id, MADE, [LAST_MADE])).get(LAST_MADE)
        await _check_room(caller.tenant_id, users, ledger)  # after `before` was read
        try:
            return await ledger.append(
                caller,
                account,
                *others,
                claims=[*claims, Claim(MADE, LAST_MADE, ids.new_id())],
                releases=[] if before is None else [Claim(MADE, LAST_MADE, before)],
                secrets=secrets,
            )
        except errors.ReservationTaken as taken:
            if taken.kind != MADE:
                raise
    raise errors.VersionConflict(account.id)


async def _users(tenant_id: UUID, ledger: Ledger) -> int | None:
    tenant = (await ledger.load_many(tenants.Tenant, tenant_id, [tenant_id])).get(tenant_id)
    return None if tenant is None else tenant.limits.users


async def _check_room(tenant_id: UUID, users: int, ledger: Ledger) -> None:
    if await ledger.count(tenant_id, ADDRESS, users) >= users:
        raise LimitReached("users", users)
