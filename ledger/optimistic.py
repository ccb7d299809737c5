"""Deciding upon what others may change meanwhile: the append validates what was read, in its own transaction.

Optimistic concurrency control with a read set (Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981). A command
that reads one aggregate to append to another is serial with all that changes what it read; and as that is made sure of at the end, it
may be decided upon what the process has at hand, without asking.
"""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.domain import Aggregate

from ledger import errors, packing
from ledger.caller import Caller
from ledger.lookups import Wanted
from ledger.store import Ledger, Receipt

A = TypeVar("A", bound=Aggregate)


class Optimistic(Ledger):
    """For one attempt at one command. Its `append` raises ReadOutdated, beside what the ledger's does, if what was read no longer stands.

    `asks`: it looks everything up. Otherwise it takes what is at hand, and what is decided without an append, such as a refusal, is
    worth nothing while `guessed`: decide again.
    """

    def __init__(self, ledger: Ledger, *, asks: bool) -> None:
        self.__dict__.update(ledger.__dict__)
        self._asks = asks
        self._read: dict[Wanted, tuple[UUID, bytes]] = {}
        self.guessed = False

    async def _find(self, wanted: Sequence[Wanted]) -> dict[Wanted, Aggregate]:
        known = None if self._asks else self._lookups.at_hand(wanted)
        if known is None:
            known = await self._lookups.find(wanted)
        else:
            self.guessed = True
        self._read.update((each, (found.aggregate.id, found.hash)) for each, found in known.items())
        return {each: found.aggregate for each, found in known.items()}

    async def append(self, caller: Caller, aggregate: A, *others: Aggregate, **what: Any) -> Receipt[A]:
        try:
            return await super().append(caller, aggregate, *others, **what)
        except errors.ReadOutdated:
            raise
        except errors.LedgerError:
            self.guessed = False  # it stood
            raise

    def _reads(self, appended: Sequence[Aggregate]) -> Sequence[packing.Read]:
        """Of what is appended to, the versions say whether it still stands."""
        changed = {each.id for each in appended}
        return [
            packing.Read(wanted.kind.encode(), wanted.key if wanted.kind else b"", owner.bytes, hash)
            for wanted, (owner, hash) in self._read.items()
            if owner not in changed
        ]
