"""Sales that a demo makes up while it serves, so that there is always something to see: one every few seconds, now and then a refund."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg

from commands import transactions
from domain import refusals
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Ledger

PAUSE_S = (1.0, 4.0)
LIVELY_S = 3_600.0
CALM = 20
"""After that long the pauses are so many times longer: a demo that nobody ends writes 2,000 sales a day, not 35,000."""
REFUNDED = 0.15
"""Of the times, if there is something to give back: half of them all of a sale, half of them one piece."""
RECENT_MAX = 20
"""Sales that may still be given back."""
LINES_MAX, QUANTITY_MAX = 3, 6

_log = logging.getLogger(__name__)


class Trade:
    """What happens in one tenant. `products` are SKUs; buyers and affiliates are accounts, None somebody unknown."""

    def __init__(
        self,
        ledger: Ledger,
        tenant_id: UUID,
        products: Sequence[str],
        buyers: Sequence[UUID | None],
        affiliates: Sequence[UUID | None],
        chosen: random.Random,
    ) -> None:
        self.ledger = ledger
        self.tenant_id = tenant_id
        self._products = products
        self._buyers = buyers
        self._affiliates = affiliates
        self._chosen = chosen
        self._recent: deque[UUID] = deque(maxlen=RECENT_MAX)

    def pause_s(self, lasted_s: float) -> float:
        """Until the next time, if it has been going on so long."""
        pause_s = self._chosen.uniform(*PAUSE_S)
        return pause_s if lasted_s < LIVELY_S else pause_s * CALM

    async def happens(self) -> None:
        """A sale, or the refund of one. Raises what the commands raise."""
        caller = Caller(tenant_id=self.tenant_id, actor_id=None, role="system", command_id=ids.new_id())
        if self._recent and self._chosen.random() < REFUNDED:
            await transactions.refund(self._refund(), caller, self.ledger)
        else:
            receipt = await transactions.record(self._sale(), caller, self.ledger)
            self._recent.append(receipt.aggregate.id)

    def _sale(self) -> transactions.Record:
        chosen = self._chosen
        skus = chosen.sample(self._products, chosen.randint(1, min(LINES_MAX, len(self._products))))
        return transactions.Record(
            lines=[transactions.LineOrdered(sku=sku, quantity=chosen.randint(1, QUANTITY_MAX)) for sku in skus],
            sets_prices=False,
            buyer_id=chosen.choice(self._buyers),
            affiliate_id=chosen.choice(self._affiliates),
        )

    def _refund(self) -> transactions.Refund:
        sale_id = self._chosen.choice(self._recent)
        self._recent.remove(sale_id)
        piece = transactions.RefundLineOrdered(line_id=1, quantity=1)
        return transactions.Refund(transaction_id=sale_id, lines=self._chosen.choice((None, [piece])))


@asynccontextmanager
async def running(trade: Trade) -> AsyncIterator[None]:
    """Trades while it lasts, unless the tenant is suspended."""
    task = asyncio.create_task(_run(trade), name="trading")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _run(trade: Trade) -> None:
    clock = asyncio.get_running_loop().time
    begun_at = clock()
    while True:
        await asyncio.sleep(trade.pause_s(clock() - begun_at))
        if trade.ledger.revocations.is_suspended(trade.tenant_id):
            continue
        try:
            await trade.happens()
        except refusals.Refusal as refusal:
            _log.debug("The demo did not sell: %s", refusal)  # somebody retired a product, or gave the sale back before
        except (errors.LedgerError, psycopg.Error) as error:
            _log.warning("The demo could not sell, and will try again: %s", str(error).strip())
        except Exception:  # noqa: BLE001  the edge of a supervised task
            _log.exception("The demo could not sell, and will try again")
