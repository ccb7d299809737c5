"""Applications of the `eventsourcing` package on the ledger: `PERSISTENCE_MODULE=ledger.recorders`.

See docs/foreign-applications.md. The package looks for exactly one factory class in this module.
"""

from ledger.recorders.factory import LedgerFactory as LedgerFactory
