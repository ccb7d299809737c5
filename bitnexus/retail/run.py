"""Carries a plan out: every product, sale and refund is one command, through the handlers and the appender of the API.

Chunk by chunk; within a chunk up to `concurrency` commands at once, except that a sale's refunds follow each other. What was
recorded before is found by its SKU or external id and left alone, so a second run adds nothing and a killed one goes on.
Nothing that is recorded depends on the order in which concurrent commands happen to finish, but their positions do.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID

import msgspec

from bitnexus.retail import plan as retail_plan
from bitnexus.retail.plan import Plan
from bitnexus.retail.rows import CURRENCY
from bitnexus.retail.stock import StockedLedger, chunks
from commands import products, transactions
from domain import external, refusals
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Ledger

T = TypeVar("T")

SOURCE = "retail"
CONCURRENCY = 64
CONCURRENCY_MAX = 1_000
"""As many as a flush takes: more would only wait."""
COMMANDS_PER_CHUNK = 1_000
"""As many keys as one look-up takes. The chunk's products and buyers are in memory, and nothing older."""
TRIES_MAX = 8
RETRY_S_MIN, RETRY_S_MAX = 0.05, 2.0
"""About six seconds in all, after the half minute in which the appender itself tries to reach a lost database."""
EXAMPLES_MAX = 10
"""Refusals that are told in full; the rest is counted."""

# They say "not now": the same command with the same id is right.
_NOT_NOW = (errors.OutcomeUnknown, errors.TenantBusy, errors.NotWritable, errors.Overloaded, errors.VersionConflict)

Step = str
Progress = Callable[[Step, int, int], None]
"""Called with "products", "transactions" or "refunds", how many of them are done, and how many there are."""


class Refused(msgspec.Struct, frozen=True):
    """A command that a rule turned away."""

    what: str
    why: str


class Done(msgspec.Struct):
    """Counts of one kind of command. Touched by the event loop's thread only."""

    added: int = 0
    found: int = 0  # there before
    refused: int = 0


class Carried(msgspec.Struct):
    """What became of a plan."""

    products: Done = msgspec.field(default_factory=Done)
    transactions: Done = msgspec.field(default_factory=Done)
    refunds: Done = msgspec.field(default_factory=Done)
    refused: Counter[str] = msgspec.field(default_factory=Counter)  # by the rule's name
    examples: list[Refused] = msgspec.field(default_factory=list)

    @property
    def events(self) -> int:
        """Appended now: each of these commands has one event."""
        return self.products.added + self.transactions.added + self.refunds.added


def _silent(step: Step, done: int, total: int) -> None:
    pass


async def carry_out(
    plan: Plan,
    tenant_id: UUID,
    ledger: Ledger,
    *,
    source: str = SOURCE,
    concurrency: int = CONCURRENCY,
    progress: Progress = _silent,
) -> Carried:
    """Refusals by a rule are counted and do not stop the rest.

    Raises SourceInvalid, TenantUnknown, and OutcomeUnknown, TenantBusy, Overloaded or psycopg.Error if the database stays
    away: what was recorded by then stays, and the next run goes on from there.
    """
    external.checked(source, "1")  # the source alone is what is asked about
    if not 1 <= concurrency <= CONCURRENCY_MAX:
        raise ValueError(f"concurrency {concurrency} is not in 1 … {CONCURRENCY_MAX}")
    await ledger.head(tenant_id)
    work = _Import(plan, tenant_id, StockedLedger(ledger), source, concurrency, progress)
    await work.list_products()
    await work.record_sales()
    await work.record_refunds()
    return work.carried


class _Import:
    """One run."""

    def __init__(
        self, plan: Plan, tenant_id: UUID, ledger: StockedLedger, source: str, concurrency: int, progress: Progress
    ) -> None:
        self.carried = Carried()
        self._plan = plan
        self._tenant_id = tenant_id
        self._ledger = ledger
        self._source = source
        self._concurrency = concurrency
        self._progress = progress
        self._refunded = {refund.sale for refund in plan.refunds if refund.sale is not None}
        self._ids: dict[int, UUID] = {}  # index of a sale that will be refunded -> its transaction

    # Each step: what is there already, what the rest needs, the rest.

    async def list_products(self) -> None:
        listed, done = self._plan.products, self.carried.products
        for number, chunk in enumerate(chunks(listed, COMMANDS_PER_CHUNK)):
            there = await self._ledger.find(self._tenant_id, products.SKU, [product.sku for product in chunk])
            new = [product for product in chunk if product.sku not in there]
            done.found += len(there)
            await self._each("products", done, number, len(listed), new, self._list)

    async def record_sales(self) -> None:
        sales, done = self._plan.sales, self.carried.transactions
        for number, chunk in enumerate(chunks(list(enumerate(sales)), COMMANDS_PER_CHUNK)):
            there = await self._recorded([sale.external_id for _, sale in chunk])
            new = [(index, sale) for index, sale in chunk if sale.external_id not in there]
            done.found += len(there)
            for index, sale in chunk:
                if sale.external_id in there and index in self._refunded:
                    self._ids[index] = there[sale.external_id]
            await self._ledger.stock(
                self._tenant_id,
                (line.sku for _, sale in new for line in sale.lines),
                (sale.customer_id for _, sale in new if sale.customer_id is not None),
            )
            await self._each("transactions", done, number, len(sales), new, self._record)

    async def record_refunds(self) -> None:
        refunds, done = self._plan.refunds, self.carried.refunds
        for number, chunk in enumerate(chunks(refunds, COMMANDS_PER_CHUNK)):
            there = await self._recorded([refund.external_id for refund in chunk])
            new = [refund for refund in chunk if refund.external_id not in there]
            done.found += len(there)
            unmatched = [refund for refund in new if refund.sale is None]
            await self._ledger.stock(
                self._tenant_id,
                (refund.sku for refund in unmatched),
                (refund.customer_id for refund in unmatched if refund.customer_id is not None),
            )
            await self._each("refunds", done, number, len(refunds), _by_sale(new), self._record_in_turn)

    async def _recorded(self, external_ids: Sequence[str]) -> dict[str, UUID]:
        """The owners of those that are there, by external id."""
        keys = {external.key(self._source, each): each for each in external_ids}
        found = await self._ledger.find(self._tenant_id, transactions.EXTERNAL, list(keys))
        return {keys[key]: owner for key, owner in found.items()}

    async def _each(
        self,
        step: Step,
        done: Done,
        number: int,
        total: int,
        items: Sequence[T],
        carry: Callable[[T], Awaitable[None]],
    ) -> None:
        """All of a chunk's items, `concurrency` at once."""
        self._progress(step, number * COMMANDS_PER_CHUNK, total)
        waiting = iter(items)

        async def worker(nth: int) -> None:
            for item in waiting:
                if nth % 2:
                    await asyncio.sleep(0)  # half of them a step later: they decide while the others' flush is written
                await carry(item)
                self._progress(step, done.added + done.found + done.refused, total)

        try:
            async with asyncio.TaskGroup() as group:
                for nth in range(min(self._concurrency, len(items))):
                    group.create_task(worker(nth))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others were cancelled, or failed for the same reason

    # One command each.

    async def _list(self, product: retail_plan.Product) -> None:
        command = products.ListProduct(sku=product.sku, name=product.name, price=product.price, currency=CURRENCY)
        await self._settle(
            self.carried.products,
            f"product {product.sku}",
            lambda caller: products.list_product(command, caller, self._ledger),
        )

    async def _record(self, numbered: tuple[int, retail_plan.Sale]) -> None:
        index, sale = numbered
        command = transactions.Record(
            lines=[
                transactions.LineOrdered(sku=line.sku, quantity=line.quantity, unit_price=line.unit_price)
                for line in sale.lines
            ],
            sets_prices=True,
            currency=CURRENCY,
            buyer_ref=sale.customer_id,
            source=self._source,
            external_id=sale.external_id,
            occurred_at=sale.occurred_at,
        )

        async def record(caller: Caller) -> None:
            receipt = await transactions.record(command, caller, self._ledger)
            if index in self._refunded:
                self._ids[index] = receipt.aggregate.id

        await self._settle(self.carried.transactions, f"invoice {sale.external_id}", record)

    async def _record_in_turn(self, refunds: list[retail_plan.Refund]) -> None:
        for refund in refunds:
            carry = partial(self._refund, refund)
            await self._settle(self.carried.refunds, f"refund {refund.external_id}", carry)

    async def _refund(self, refund: retail_plan.Refund, caller: Caller) -> None:
        """Of its sale, or one of its own."""
        if refund.sale is None or refund.line_id is None:
            await transactions.record_refund(self._unmatched(refund), caller, self._ledger)
            return
        transaction_id = self._ids.get(refund.sale)
        if transaction_id is None:
            raise SaleRefused(self._plan.sales[refund.sale].external_id)
        command = transactions.Refund(
            transaction_id=transaction_id,
            lines=[transactions.RefundLineOrdered(line_id=refund.line_id, quantity=refund.quantity)],
            source=self._source,
            external_id=refund.external_id,
            occurred_at=refund.occurred_at,
        )
        await transactions.refund(command, caller, self._ledger)

    def _unmatched(self, refund: retail_plan.Refund) -> transactions.RecordRefund:
        return transactions.RecordRefund(
            lines=[transactions.LineOrdered(sku=refund.sku, quantity=refund.quantity, unit_price=refund.unit_price)],
            currency=CURRENCY,
            buyer_ref=refund.customer_id,
            source=self._source,
            external_id=refund.external_id,
            occurred_at=refund.occurred_at,
        )

    async def _settle(self, done: Done, what: str, command: Callable[[Caller], Awaitable[object]]) -> None:
        """Sends the command until it is answered, always under the same id, and counts the answer."""
        caller = Caller(tenant_id=self._tenant_id, actor_id=None, role="system", command_id=ids.new_id())
        pause_s = RETRY_S_MIN
        for tries_left in reversed(range(TRIES_MAX)):
            try:
                await command(caller)
            except (products.SkuTaken, transactions.ExternalIdTaken):
                done.found += 1  # another import recorded it meanwhile
            except (refusals.Refusal, errors.NotFound, errors.EventTooLarge) as refusal:
                done.refused += 1
                self.carried.refused[type(refusal).__name__] += 1
                if len(self.carried.examples) < EXAMPLES_MAX:
                    self.carried.examples.append(Refused(what, str(refusal)))
            except _NOT_NOW:
                if not tries_left:
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_S_MAX)
                continue
            else:
                done.added += 1
            return


class SaleRefused(refusals.Conflict):
    def __init__(self, external_id: str) -> None:
        super().__init__("The sale that it belongs to was refused", external_id, "See why that sale was refused")


def _by_sale(refunds: Sequence[retail_plan.Refund]) -> list[list[retail_plan.Refund]]:
    """Those of one sale together, in their order; the others each alone."""
    groups: dict[object, list[retail_plan.Refund]] = {}
    for refund in refunds:
        groups.setdefault(("unmatched", refund.external_id) if refund.sale is None else refund.sale, []).append(refund)
    return list(groups.values())
