"""How much a tenant may use, as the platform said (`Tenant.limits`). What is over it is refused by the limit's name."""

from uuid import UUID

from domain import refusals, tenants
from ledger.store import Ledger

ADDRESS = "email"
"""The kind of the reservation that each account has, of its address."""


class LimitReached(refusals.Conflict):
    def __init__(self, limit: str, value: int) -> None:
        super().__init__(
            f"The tenant uses as much as it may, the limit {limit}", value, "Ask whoever runs the installation for more"
        )


async def check_users(tenant_id: UUID, ledger: Ledger) -> None:
    """Before an account is made. Of two that are made at the same moment one may be too many. Raises LimitReached."""
    tenant = (await ledger.load_many(tenants.Tenant, tenant_id, [tenant_id])).get(tenant_id)
    users = None if tenant is None else tenant.limits.users
    if users is not None and await ledger.count(tenant_id, ADDRESS, users) >= users:
        raise LimitReached("users", users)
