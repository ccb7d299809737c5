"""The ledger as an import uses it: what a chunk of commands needs is read at once, beforehand.

Handlers ask for each sale's products and buyer. A thousand sales of one chunk ask for much the same, and reading it in two
queries instead of two thousand is most of the difference between 900 and 2,500 sales a second. What is at hand is as old as
the chunk, which takes a second at the most: a product that somebody retires meanwhile may still be sold in it, as it could
by any sale that is under way at that moment.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast
from uuid import UUID

from eventsourcing.domain import Aggregate

from commands.products import SKU
from commands.transactions import BUYER
from domain import products
from ledger.store import Ledger

A = TypeVar("A", bound=Aggregate)

KEYS_PER_READ_MAX = 1_000


class StockedLedger(Ledger):
    """Looks at hand first for products by SKU and for buyers, and else in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger._pool, ledger._appender, ledger._lookups, ledger.codec, ledger.keyring)
        self._products: dict[str, products.Product] = {}
        self._buyers: dict[str, UUID] = {}

    async def stock(self, tenant_id: UUID, skus: Iterable[str], buyers: Iterable[str]) -> None:
        """Forget what was at hand and read these. Buyers that are new get their subject and its key."""
        self._products.clear()
        self._buyers.clear()
        for keys in chunks(sorted(set(skus)), KEYS_PER_READ_MAX):
            self._products |= await super().load_by(products.Product, tenant_id, SKU, keys)
        for keys in chunks(sorted(set(buyers)), KEYS_PER_READ_MAX):
            self._buyers |= await super().subjects(tenant_id, BUYER, keys)

    async def load_by(self, cls: type[A], tenant_id: UUID, kind: str, keys: Sequence[str]) -> dict[str, A]:
        """As in Ledger."""
        if cls is not products.Product or kind != SKU or not all(key in self._products for key in keys):
            return await super().load_by(cls, tenant_id, kind, keys)
        return cast("dict[str, A]", {key: self._products[key] for key in keys})

    async def known_subject(self, tenant_id: UUID, kind: str, ref: str) -> UUID | None:
        """As in Ledger."""
        at_hand = self._buyers.get(ref) if kind == BUYER else None
        return at_hand if at_hand is not None else await super().known_subject(tenant_id, kind, ref)


T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """The items in order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
