"""Every view there is: what the runner keeps up and what can be rebuilt."""

from projections import accounts, products, refunds, sales, tenants, transactions
from projections.view import View

VIEWS: tuple[View, ...] = (products.VIEW, transactions.VIEW, refunds.VIEW, sales.VIEW, accounts.VIEW, tenants.VIEW)
