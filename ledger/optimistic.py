"""Deciding upon what others may change meanwhile: the append validates what was read, in its own transaction.

Optimistic concurrency control with a read set (Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981). A command
that reads one aggregate to append to another is serial with all that changes what it read; and as that is made sure of at the end, it
may be decided upon what the process has at hand, without asking.
"""

from collections.abc import Sequence

from eventsourcing.domain import Aggregate

from ledger import packing
from ledger.lookups import Wanted
from ledger.store import Ledger


class Optimistic(Ledger):
    """For one attempt at one command. Its `append` raises ReadOutdated, beside what the ledger's does, if what was read no longer stands.

    `asks`: it looks everything up. Otherwise it takes what is at hand; what is decided then without an append, such as a refusal, is
    worth nothing while `guessed`: decide again.
    """

    def __init__(self, ledger: Ledger, *, asks: bool) -> None:
        self.__dict__.update(ledger.__dict__)
        self._asks = asks
        self._read: list[packing.Read] = []
        self.guessed = False

    async def _find(self, wanted: Sequence[Wanted]) -> dict[Wanted, Aggregate]:
        known = None if self._asks else self._lookups.at_hand(wanted)
        if known is None:
            known = await self._lookups.find(wanted)
        else:
            self.guessed = True
        found: dict[Wanted, Aggregate] = {}
        for each, (aggregate, owner, hash) in known.items():
            found[each] = aggregate
            self._read.append(packing.Read(each.kind.encode(), each.key if each.kind else b"", owner, hash))
        return found

    def _reads(self, appended: Sequence[Aggregate]) -> Sequence[packing.Read]:
        self.guessed = False  # the append says whether it stood
        changed = [each.id.bytes for each in appended]  # of these the versions say so
        return [read for read in self._read if read.owner not in changed]
