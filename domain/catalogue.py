"""Every aggregate there is: what the ledger's codec can write and read."""

from domain import (
    accounts,
    attempts,
    exports,
    invitations,
    looks,
    privacy,
    products,
    repairs,
    rotations,
    service_accounts,
    tenants,
    transactions,
)
from domain.aggregates import Aggregate

AGGREGATES: tuple[type[Aggregate], ...] = (
    tenants.Tenant,
    tenants.Registration,
    accounts.Account,
    accounts.Session,
    invitations.Invitation,
    service_accounts.ServiceAccount,
    privacy.Erasure,
    products.Product,
    transactions.Transaction,
    transactions.Refund,
    repairs.Repair,
    looks.Look,
    attempts.FailedLogIns,
    exports.PersonExport,
    exports.TenantExport,
    rotations.KeyRotation,
)
