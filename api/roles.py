"""Which role has which right: the one table. `bitnexus rights` prints it, routes name its rights (`rights.may`)."""

from typing import NamedTuple

from domain.accounts import Role

_MEMBERS = frozenset({Role.ADMIN, Role.USER, Role.AFFILIATE})
_EVERYBODY = _MEMBERS | {Role.SUPER_ADMIN}
_ADMIN = frozenset({Role.ADMIN})
_SUPER = frozenset({Role.SUPER_ADMIN})
_RUNNING = frozenset({Role.ADMIN, Role.SUPER_ADMIN})


class Right(NamedTuple):
    """`meaning` ends "Whoever has it may …". Only what is not about one's own account can be the `scope` of an API key."""

    name: str
    meaning: str
    roles: frozenset[Role]
    scope: bool = True


TABLE: tuple[Right, ...] = (
    Right("account:read", "read one's own account and all that is kept of oneself", _EVERYBODY, scope=False),
    Right("account:write", "change one's own name, address, password and second factor", _EVERYBODY, scope=False),
    Right("account:erase", "have oneself forgotten", _EVERYBODY, scope=False),
    Right("session:end", "log out", _EVERYBODY, scope=False),
    Right("account:deactivate", "deactivate one's own account", _EVERYBODY, scope=False),
    Right("accounts:read", "read the accounts of the tenant", _RUNNING),
    Right("accounts:write", "make, change, deactivate and reactivate accounts of the tenant", _RUNNING, scope=False),
    Right("accounts:invite", "invite people into the tenant, with any role of it", _RUNNING, scope=False),
    Right("accounts:erase", "forget anybody of the tenant, and buyers without an account", _ADMIN),
    Right("accounts:export", "read all that is kept of anybody of the tenant", _ADMIN),
    Right("service_accounts:read", "see service accounts and their keys' ids", _RUNNING, scope=False),
    Right(
        "service_accounts:write",
        "make service accounts out of one's own rights, issue and revoke keys",
        _RUNNING,
        scope=False,
    ),
    Right("tenants:read", "read about one's own tenant", _EVERYBODY),
    Right("tenants:write", "change how the own tenant shows itself, its currency, features and sign-in", _RUNNING),
    Right("platform:read", "look into every tenant, and at all together; each look is recorded", _SUPER),
    Right("platform:write", "make, limit, suspend and resume tenants, give them host names", _SUPER, scope=False),
    Right("products:read", "read the catalogue", _MEMBERS),
    Right("products:write", "list, change and retire products", _ADMIN),
    Right("transactions:read", "read the sales of which one is buyer or affiliate", _MEMBERS),
    Right("transactions:read_all", "read every sale of the tenant", _ADMIN),
    Right("transactions:write", "record what one buys, at the catalogue's prices", _MEMBERS),
    Right("transactions:record", "record for others: buyer, reference, source and time are one's own word", _ADMIN),
    Right("transactions:price", "sell at other prices than the catalogue's", _ADMIN),
    Right("transactions:refund", "refund sales", _ADMIN),
    Right("transactions:summary", "read the sums of all sales", _ADMIN),
    Right("feed:read", "listen to what one may read", _MEMBERS),
    Right("ledger:read", "read and verify every event as it is stored", _ADMIN),
    Right("audit:read", "read the tenant's security events, without persons' data", _RUNNING),
    Right("projections:read", "see how far views are", _ADMIN),
    Right("projections:write", "fill a view of the tenant anew", _ADMIN),
)

RIGHTS: dict[str, frozenset[str]] = {
    role: frozenset(right.name for right in TABLE if role in right.roles) for role in Role
}
SCOPES = frozenset(right.name for right in TABLE if right.scope)
"""What an API key may be given."""
